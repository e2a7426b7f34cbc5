"""What this client knows of VMs' nodes, so that a usual commit needs no read.

An entry may be wrong: the commit finds out, since it names the node's version and the epoch that
the entry was seen in. Bounded; thread-safe. Knows nothing of kazoo.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from distjob_zookeeper.layout import Epoch

MOST = 10_000


class Seen(NamedTuple):
    """One look at a VM's node."""

    version: int
    """As the store tells it: the zxid of the last write, or `ABSENT`."""
    node: int | None
    """The node's data version; None: there is no node."""
    epoch: Epoch
    """Read *before* the look: were it read after, a node could have been deleted in between."""


class Memory:
    """VM -> `Seen`; the oldest are forgotten first."""

    def __init__(self, epoch: Epoch, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._seen: dict[str, Seen] = {}
        self._epoch = epoch

    @property
    def epoch(self) -> Epoch:
        """The last one that was read."""
        return self._epoch

    def enter(self, epoch: Epoch) -> None:
        """``epoch`` was read: what was seen in others is worthless."""
        with self._lock:
            if epoch != self._epoch:
                self._epoch = epoch
                self._seen.clear()

    def get(self, vm: str) -> Seen | None:
        """What was seen of ``vm`` in the current epoch, if anything."""
        with self._lock:
            return self._seen.get(vm)

    def put(self, vm: str, seen: Seen) -> None:
        """Note ``seen``, unless it is of another epoch, or was overtaken by a later look."""
        with self._lock:
            known = self._seen.get(vm)
            if seen.epoch != self._epoch or (known is not None and _later(known, seen)):
                return
            self._seen.pop(vm, None)
            self._seen[vm] = seen
            if len(self._seen) > self._most:
                del self._seen[next(iter(self._seen))]


def _later(one: Seen, other: Seen) -> bool:
    """Within an epoch nodes are never deleted, so that their versions only rise."""
    return one.node is not None and (other.node is None or one.node > other.node)
