"""A client of Redis that does not lie: what may have been carried out is not sent again.

    making.py                settings -> servers; the recipe of a program that makes clients itself
    server.py                whom commands go to: a `Server`, or a `Place`, which knows the server
    seeking.py               a place that asks others: sentinel.py, cluster.py
    threads.py               a server that is asked, and listened to, in the caller's thread
    pipeline.py lines.py     the same on asyncio, where tasks share round trips
    wire.py                  a connection of redis-py's, taken over: all that uses private names

redis-py makes the connections, with TLS and credentials, and logs in. Its commands are not used: it
would send one again whose reply was lost, and its errors don't tell what was never sent.
"""
