"""How it is waited: for answers, for news, for a turn. The one thing that has two implementations.

`Threads` blocks, here; `distjob_zookeeper.loop.Loop` suspends. The state that is waited for is the
same in both worlds: `Changes` guards it, and tells of it. Knows neither sessions nor nodes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from distjob.both import Lock, ThreadLock
from distjob.clock import monotonic

T = TypeVar("T")


class Changes:
    """The lock of a store's sessions and mail, and the news that something in them changed.

    It is held for moments only, and never over an await.
    """

    def __init__(self) -> None:
        self.count = 0
        """How often something changed."""
        self.wakers: set[Callable[[], None]] = set()
        """Called, with the lock held and in any thread, when something changed."""
        self._condition = threading.Condition()

    def __enter__(self) -> None:
        self._condition.acquire()

    def __exit__(self, *_: object) -> None:
        self._condition.release()

    def tell(self) -> None:
        """Something changed. With the lock held."""
        self.count += 1
        self._condition.notify_all()
        for wake in self.wakers:
            wake()

    def wait(self, seconds: float) -> None:
        """Until something changes, and no longer. With the lock held, which is lent meanwhile."""
        self._condition.wait(seconds)


class Link(Protocol):
    """What the verbs await."""

    def lock(self) -> Lock:
        """A new one."""

    async def room(self, asks: int, seconds: float) -> bool:
        """Until so many requests can be sent without being held up; False: the time is over."""

    async def answered(self, results: Sequence[Any], seconds: float) -> None:
        """Until all of kazoo's ``results`` are there; or until the time is over."""

    async def changed(self, changes: Changes, seen: int, seconds: float) -> None:
        """Until ``changes.count`` is not ``seen`` any more; or until the time is over."""

    async def aside(self, call: Callable[[], T], undo: Callable[[], object] | None = None) -> T:
        """What ``call`` returns, which blocks; ``undo`` follows it if nobody waits any more."""


class Threads:
    """`Link` for callers that may block: it never suspends. Has no state, and serves any thread."""

    def lock(self) -> Lock:
        return ThreadLock()

    async def room(self, asks: int, seconds: float) -> bool:  # noqa: ARG002
        return True  # kazoo itself blocks

    async def answered(self, results: Sequence[Any], seconds: float) -> None:
        until = monotonic() + seconds
        for result in results:
            result.wait(max(0.0, until - monotonic()))

    async def changed(self, changes: Changes, seen: int, seconds: float) -> None:
        with changes:
            if changes.count == seen:
                changes.wait(seconds)

    async def aside(self, call: Callable[[], T], undo: Callable[[], object] | None = None) -> T:  # noqa: ARG002
        return call()
