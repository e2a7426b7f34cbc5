"""A kazoo client that does not lie: it is bounded in time, tells at once, and can be let go of.

    connection.py  one client after the other, and how it is asked
    asking.py      results that tell when they are there; room for so many requests at a time
    sockets.py     kazoo's connections: bounded, cut from outside, heard; its log
    making.py      how a client is made of the settings, or by the user's recipe

Only what kazoo documents is used: its client, its handler's interface, results and transactions.
Nothing here knows our nodes.
"""
