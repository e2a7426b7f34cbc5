"""How it is waited on asyncio: kazoo's threads wake the tasks of one event loop, and block none.

kazoo calls back from threads of its own, or at once if its threads have stopped; twice, if a
connection breaks while a request is queued; and rarely never, if it is stopped just then. So a
callback only looks whether all is there. Whoever has gone is not missed: nothing is kept for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from distjob.both import Lock
from distjob_zookeeper.links import Changes

T = TypeVar("T")
MOST = 200
"""Requests under way, or else one batch, besides the urgent ones. kazoo announces each to its
thread by a byte through a pipe; at some 270 that nobody reads, as while a server is silent, it
blocks whoever asks: here, the loop."""


class Loop:
    """`distjob_zookeeper.links.Link` for the tasks of the loop that runs when it is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._under_way: set[Any] = set()
        """kazoo's results that were not there when they were looked at last."""
        self._door = asyncio.Lock()
        """Held by the first of those for whom there is no room; it is fair."""
        self._freed = asyncio.Event()

    def lock(self) -> Lock:
        return asyncio.Lock()

    async def room(self, asks: int, seconds: float) -> bool:
        if not self._door.locked() and self._fits(asks):
            return True
        try:
            async with asyncio.timeout(seconds), self._door:
                while not self._fits(asks):
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            return False
        return True

    def _fits(self, asks: int) -> bool:
        if len(self._under_way) + asks <= MOST:
            return True
        self._under_way = {result for result in self._under_way if not result.ready()}
        return not self._under_way or len(self._under_way) + asks <= MOST

    async def answered(self, results: Sequence[Any], seconds: float) -> None:
        self._under_way.update(results)
        waiting = _Waiting(self, results)
        waiting.look()
        await asyncio.wait((waiting.over,), timeout=max(0.0, seconds))

    def done(self, results: Sequence[Any], over: asyncio.Future[None]) -> None:
        """All of them are there, whether or not somebody still waits."""
        self._under_way.difference_update(results)
        self._freed.set()
        end(over)

    async def changed(self, changes: Changes, seen: int, seconds: float) -> None:
        news: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            self.soon(end, news)

        with changes:
            if changes.count != seen:
                return
            changes.wakers.add(wake)
        try:
            await asyncio.wait((news,), timeout=seconds)
        finally:
            with changes:
                changes.wakers.discard(wake)

    async def aside(self, call: Callable[[], T], undo: Callable[[], object] | None = None) -> T:
        """In a thread of its own, which ends with it."""
        thread = ThreadPoolExecutor(1, "distjob-zookeeper-aside")
        try:
            return await self._loop.run_in_executor(thread, call)
        except asyncio.CancelledError:
            if undo is not None:
                thread.submit(undo)
            raise
        finally:
            thread.shutdown(wait=False)

    def soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have ``call`` called in the loop, if that still is. Any thread."""
        with contextlib.suppress(RuntimeError):  # it is closed: nobody waits
            self._loop.call_soon_threadsafe(call, *arguments)


class _Waiting:
    """A batch whose answers are awaited."""

    def __init__(self, loop: Loop, results: Sequence[Any]) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = loop
        self._results = results

    def look(self, _: object = None) -> None:
        """End the waiting if nothing is missing, or come back later. Any thread."""
        # Answers come in order, so that mostly the last one is the last to be linked to.
        for result in reversed(self._results):
            if not result.ready():
                result.rawlink(self.look)
                return
        self._loop.soon(self._loop.done, self._results, self.over)


def end(future: asyncio.Future[None]) -> None:
    """Let go on whoever awaits ``future``."""
    if not future.done():
        future.set_result(None)
