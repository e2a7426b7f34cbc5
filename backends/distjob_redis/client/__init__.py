"""A client of Redis that does not lie: what may have been carried out is not sent again.

    making.py    settings -> servers; the recipe of a program that makes redis-py's clients itself
    server.py    `Place`, what has the keys of a shard, and the plain case of it: one `Server`
    sentinel.py  the primary behind sentinels; cluster.py: the node that has a slot
    threads.py   a server that is asked, and subscribed to, in the caller's thread
    pipeline.py  a server on asyncio, whose tasks share round trips; lines.py: a subscription there
    wire.py      a connection of redis-py's, taken over: all that uses its private names

redis-py makes the connections, with TLS and credentials, and logs in. Its commands are not used,
for two reasons: it would send one again whose reply was lost, and its errors don't tell a command
that was never sent from one that may have been carried out.
"""
