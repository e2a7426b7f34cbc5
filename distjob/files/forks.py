"""Files with locks of this process's own, across a fork.

SQLite remembers per process which locks it holds on a file. A forked child inherits the memory but
not the locks: even on connections of its own it would skip locking, and its commits would be lost
when the parent closes the file (sqlite.org/howtocorrupt.html, 2.6). So files are closed before a
fork. Decides what is closed, how long a fork waits for that, and what a child may not touch: every
file that could not be closed, whatever name it is opened by. Must not know what a file is besides
`Forkable`, nor how a refused child is told.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Protocol, TypeAlias

from distjob import clock

Identity: TypeAlias = tuple[int, int]
"""Of a file: device and inode."""


class Forkable(Protocol):
    """What can be closed for a fork."""

    def rest(self, seconds: float) -> bool:
        """Before: close it, waiting at most so long; False if it is in use. `wake` must follow."""

    def wake(self) -> None:
        """After, in parent and child: what `rest` closed may be opened again."""

    def abandon(self) -> None:
        """In the child: it was in use, so this process must never touch it again."""


class _Forks:
    PATIENCE = 0.25
    """Seconds that a fork waits for calls in other threads; most take less than a millisecond."""

    def __init__(self) -> None:
        self.untrusted: set[Identity] = set()
        """What a child inherits of them stays open, so that no later file has their numbers."""
        self._under_way = False
        self._lock = threading.RLock()
        self._files: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._resting: list[Forkable] = []

    def add(self, file: Forkable) -> None:
        """From now on it is closed before each fork, as long as anybody else has it."""
        with self._lock:
            self._files.add(file)

    def passed(self) -> bool:
        """Wait for a fork to pass, which threads that take turns would else keep waiting.

        False for the thread that forks: it is in another module's at-fork hook.
        """
        if not self._under_way:
            return True
        with self._lock:
            return not self._under_way

    def distrust(self, found: Identity | None) -> None:
        """In the child: a file that was in use."""
        if found is not None:
            self.untrusted.add(found)

    def before(self) -> None:
        self._lock.acquire()
        self._under_way = True
        until = clock.monotonic() + self.PATIENCE
        self._resting.extend(
            file for file in list(self._files) if file.rest(until - clock.monotonic())
        )

    def after_in_parent(self) -> None:
        while self._resting:
            self._resting.pop().wake()
        if self._under_way:  # not so where the fork was announced to the child only
            self._under_way = False
            self._lock.release()

    def after_in_child(self) -> None:
        for file in set(self._files).difference(self._resting):
            file.abandon()
        self.after_in_parent()


FORKS = _Forks()
"""Of this process."""
os.register_at_fork(
    before=FORKS.before,
    after_in_parent=FORKS.after_in_parent,
    after_in_child=FORKS.after_in_child,
)


def leak(inherited: object) -> None:
    """Never collect it, not even at exit: its end would be felt by the others who share it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
