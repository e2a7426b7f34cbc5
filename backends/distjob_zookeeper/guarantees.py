"""What ZooKeeper promises, by topology and by the session timeout that it grants."""

from __future__ import annotations

from distjob.store import Guarantees
from distjob_zookeeper.layout import LARGEST

MARGIN = 1.5
"""ZooKeeper's session timeout, in TTLs.

A server tells the leader whom it has heard of with its next reply to a ping. If it dies at once
after a renewal, the leader knows only of what came before that. kazoo sends something at least
every third of its timeout: half a TTL. So no session ends before its TTL is over.
"""
SLOWEST_TICK = 3.0
"""Seconds; the tickTime that a server has if none is set."""


def of(ttl: float, granted: float, *, ensemble: bool) -> Guarantees:
    """What sessions of ``ttl`` seconds can count on where a timeout of ``granted`` was given."""
    # A timeout is at least two ticks. It ends at the next whole tick, and the leader may have
    # heard of a client's last word half a tick after it was said.
    tick = min(SLOWEST_TICK, granted / 2)
    return Guarantees(
        reach="network",
        wakes="push",
        ends="told",
        durable=True,
        versions_survive_loss=False,
        failover="quorum" if ensemble else "none",
        shortest_ttl=granted / MARGIN if granted > ttl * MARGIN * 1.01 else 0.0,
        grace=max(0.0, granted - ttl + 1.5 * tick),
        idle="an empty node",
        largest_value=LARGEST,
    )


PROMISES = {
    "single": of(10.0, 15.0, ensemble=False),
    "ensemble": of(10.0, 15.0, ensemble=True),
}
"""With the default TTL."""
