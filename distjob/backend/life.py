"""Whether a store may be used here and now: open, in the process and the loop it was made in.

The one place that knows of closing and forking, so that nothing below it has to.
"""

from __future__ import annotations

import os
import threading

from distjob.backend.world import World
from distjob.errors import BackendUnavailable

CLOSED = "this store was closed; connect a new one"
FORKED = "this store was connected before a fork; connect a new one in this process"


class Life:
    """Of one store, from its making to its close."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def forked(self) -> bool:
        """Whether this is a child's copy: its sockets are the parent's, its threads are not here.

        Nothing of it may be touched: not a socket, not a lock that another thread may have held.
        """
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise `BackendUnavailable` where the store can't be used."""
        if self.forked:
            raise BackendUnavailable(FORKED)
        self._world.check()
        if self._closed:
            raise BackendUnavailable(CLOSED)

    def end(self) -> bool:
        """Close it; False if that was done already, or is the parent's to do."""
        if self.forked:
            return False
        self._world.check()
        with self._lock:
            ended, self._closed = self._closed, True
        return not ended
