"""A blocking store on asyncio, in three threads of its own: for stores on a file or in memory.

One thread for values, one for sessions, so that a crowd's commits never hold up a renewal, and one
that receives. Their number does not grow with that of the tasks. Calls of one kind are carried out
in the order in which they were made, so a verb that was cancelled is never overtaken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from distjob.errors import BackendUnavailable
from distjob.store import Event, Guarantees, Reply, Store, Versioned

T = TypeVar("T")
_PAGE = 200


class OffLoop:
    """A `distjob.store.AsyncStore` on ``store``, which it closes in the end."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.guarantees: Guarantees = store.guarantees
        self._values = ThreadPoolExecutor(1, "distjob-values")
        self._sessions = ThreadPoolExecutor(1, "distjob-sessions")
        self._receiver = ThreadPoolExecutor(1, "distjob-receive")
        self._receiving: tuple[str, asyncio.Future[Sequence[Event]]] | None = None
        self._closed = False

    @classmethod
    async def connect(cls, connect: Callable[[], Store]) -> OffLoop:
        """On the store that ``connect`` opens, in a thread; cancelled, it closes that again."""
        opening = asyncio.get_running_loop().run_in_executor(None, connect)
        try:
            return cls(await asyncio.shield(opening))
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unused)
            raise

    async def open_session(self, ttl: float, owner: str) -> str:
        return await self._in(self._sessions, lambda: self.store.open_session(ttl, owner))

    async def keep_alive(self, session: str) -> bool:
        return await self._in(self._sessions, lambda: self.store.keep_alive(session))

    async def close_session(self, session: str) -> None:
        await self._in(self._sessions, lambda: self.store.close_session(session))

    async def settle(self, session: str) -> None:
        """Behind the commits that were sent before, in their thread."""
        await self._in(self._values, lambda: self.store.settle(session))

    async def read(self, vm: str) -> Versioned:
        return await self._in(self._values, lambda: self.store.read(vm))

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        return await self._in(
            self._values, lambda: self.store.commit(vm, expected, value, author, wake)
        )

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        return await self._in(self._sessions, lambda: self.store.remaining(sessions))

    async def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """As said there; what one that was cancelled would have returned, the next one does."""
        if self._receiving is not None and self._receiving[0] == session:
            _, under_way = self._receiving
        else:
            if self._receiving is not None:
                self.store.interrupt()  # an older session's
            under_way = self._in(self._receiver, lambda: self.store.receive(session, timeout))
            under_way.add_done_callback(_looked_at)
            self._receiving = session, under_way
        try:
            return await asyncio.shield(under_way)
        except asyncio.CancelledError:
            if not under_way.done():
                self.store.interrupt()
            raise
        finally:
            if under_way.done() and self._receiving == (session, under_way):
                self._receiving = None

    def interrupt(self) -> None:
        self.store.interrupt()

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        pages = self.store.scan()
        while page := await self._in(self._values, lambda: _page(pages)):
            for found in page:
                yield found

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        closing = asyncio.get_running_loop().run_in_executor(self._sessions, self.store.close)
        for threads in (self._values, self._sessions, self._receiver):
            threads.shutdown(wait=False)  # what was submitted is still done
        await asyncio.shield(closing)

    def _in(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> asyncio.Future[T]:
        if self._closed:
            raise BackendUnavailable("this store was closed; connect a new one")
        return asyncio.get_running_loop().run_in_executor(threads, call)


def _looked_at(receiving: asyncio.Future[Sequence[Event]]) -> None:
    """Whoever cancelled it is not there any more to be told of its error."""
    if not receiving.cancelled():
        receiving.exception()


def _close_unused(opening: asyncio.Future[Store]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _page(pages: Iterator[tuple[str, Versioned]]) -> list[tuple[str, Versioned]]:
    return list(islice(pages, _PAGE))
