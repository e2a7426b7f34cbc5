"""One source for both worlds: a backend's verbs are coroutines, and its links wait or block.

A blocking link has coroutines for methods, too, which never suspend: they do their work and return.
So whatever awaits only such links runs to its end in one go, in the caller's thread (`now`), and
the blocking `Store` of a backend is its `AsyncStore` in `Blocking`'s shell. What must not be held
up by another thread, or by another task, takes a `Lock`, of the same world as the links.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar

from distjob.store import AsyncStore, Event, Guarantees, Reply, Versioned

T = TypeVar("T")
Lock: TypeAlias = AbstractAsyncContextManager[Any]
"""asyncio.Lock, or `ThreadLock`."""


def now(steps: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result."""
    try:
        steps.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    steps.close()
    raise AssertionError("a blocking link has suspended")


class ThreadLock:
    """threading.Lock as a `Lock`: it blocks, and never suspends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


class Blocking:
    """The blocking `Store` on ``verbs``, whose links block. See `distjob.store.Store`."""

    def __init__(self, verbs: AsyncStore) -> None:
        self.verbs = verbs
        self.guarantees: Guarantees = verbs.guarantees

    def open_session(self, ttl: float, owner: str) -> str:
        return now(self.verbs.open_session(ttl, owner))

    def keep_alive(self, session: str) -> bool:
        return now(self.verbs.keep_alive(session))

    def close_session(self, session: str) -> None:
        now(self.verbs.close_session(session))

    def read(self, vm: str) -> Versioned:
        return now(self.verbs.read(vm))

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        return now(self.verbs.commit(vm, expected, value, author, wake))

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        return now(self.verbs.remaining(sessions))

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        return now(self.verbs.receive(session, timeout))

    def interrupt(self) -> None:
        self.verbs.interrupt()

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        pages = self.verbs.scan()
        while True:
            try:
                yield now(_next(pages))
            except StopAsyncIteration:
                return

    def close(self) -> None:
        now(self.verbs.close())


async def _next(pages: Any) -> tuple[str, Versioned]:
    found: tuple[str, Versioned] = await anext(pages)
    return found
