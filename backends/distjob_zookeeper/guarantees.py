"""What ZooKeeper promises, by topology, and how long its own sessions must be for that.

A session of ours is ended by whoever watches it, a TTL after it was seen to be renewed last (see
`beats`). The ZooKeeper session that bears its nodes only has to outlive it, and to take away at
some time what nobody has watched.
"""

from __future__ import annotations

from distjob.store import Guarantees
from distjob_zookeeper.layout import LARGEST

SHARE, LAG = 1.8, 2.0
"""How long a ZooKeeper session must last: `SHARE` TTLs and `LAG` seconds.

Its nodes must not go while a holder counts on them, 0.9 TTL from the sending of a renewal. The
leader ends a ZooKeeper session so long after it heard of it last. It hears of a client from that
client's server, up to half a tick late, and never if that server dies first: then what the leader
knows is the message before, up to another 0.9 TTL older, as a session that was not renewed for
longer is given up by its owner. Half a tick is 1.5 s in a server whose tickTime is not set.
Nothing older counts: a session that is opened is made on a connection that is fresh.
"""


def needed(ttl: float) -> float:
    """Seconds that a ZooKeeper session must last for sessions of ``ttl`` seconds."""
    return SHARE * ttl + LAG


def of(*, ensemble: bool) -> Guarantees:
    """``ensemble``: several servers."""
    return Guarantees(
        reach="network",
        wakes="push",
        ends="told",
        durable=True,
        versions_survive_loss=not ensemble,  # where each election takes 72 minutes of the clock
        failover="quorum" if ensemble else "none",
        grace=1.0,
        largest_value=LARGEST,
    )


PROMISES = {"single": of(ensemble=False), "ensemble": of(ensemble=True)}
