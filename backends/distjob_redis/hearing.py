"""A subscription's connection on asyncio, and waiting for several."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from redis.exceptions import ConnectionError  # noqa: A004

from distjob_redis.packing import packed
from distjob_redis.wire import Wire

MOST = 32 << 20
"""Bytes that may wait to be read: as many as Redis lets wait for a subscriber, then cuts it off."""


class WireLine:
    """`Line` on a connection of ``pool``'s; a task of its own reads it."""

    def __init__(self, pool: Any, ring: Callable[[], None]) -> None:
        self._pool = pool
        self._ring = ring
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._come: deque[tuple[str, bytes] | Exception] = deque()
        self._waiting = 0
        """Bytes of that."""
        self._news = asyncio.Event()

    async def subscribe(self, channels: Collection[bytes], *, sharded: bool) -> None:
        """See `Line.subscribe`."""
        wire = await Wire.open(self._pool)
        self._wire = wire
        self._task = asyncio.create_task(self._live(wire), name="distjob-redis subscription")
        self._task.add_done_callback(self._ended)
        if sharded:  # of different slots: a command for each
            wire.write(b"".join(packed((b"SSUBSCRIBE", channel)) for channel in channels))
        else:
            wire.write(packed((b"SUBSCRIBE", *channels)))

    async def ping(self) -> None:
        """See `Line.ping`."""
        if self._wire is not None:
            self._wire.write(packed((b"PING",)))

    async def read(self, timeout: float) -> tuple[str, bytes] | None:
        """See `Line.read`."""
        if not self._come and not self.is_cut() and timeout > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._news.wait()
        if self._come:
            come = self._come.popleft()
            if isinstance(come, Exception):
                raise come
            self._waiting -= len(come[1])
            return come
        if self._task is not None and self._task.done():
            self._task.result()
        return None

    def is_cut(self) -> bool:
        """See `Line.is_cut`."""
        return self._task is None or (self._task.done() and not self._come)

    async def close(self) -> None:
        """See `Line.close`."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _live(self, wire: Wire) -> None:
        try:
            await wire.run(lambda reply: self._take(wire, reply), pushes=True)
        finally:
            await wire.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # perhaps nobody reads any more, to be told
        self._tell()

    def _take(self, wire: Wire, reply: Any) -> None:
        come = _understood(reply)
        self._come.append(come)
        if not isinstance(come, Exception):
            self._waiting += len(come[1])
            if self._waiting > MOST:
                wire.fail(ConnectionError(f"{MOST} bytes of messages wait, and nobody reads them"))
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._ring()


def _understood(reply: Any) -> tuple[str, bytes] | Exception:
    """A message, or what confirms a subscription; with RESP3 a ping is answered in one word."""
    if isinstance(reply, Exception):
        return reply
    if not isinstance(reply, list):
        return "pong", b""
    kind, data = reply[0].decode(), reply[-1]
    return kind, data if isinstance(data, bytes) else b""


class TaskBell:
    """`Bell` of one loop."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """See `Bell.ring`."""
        self._rung.set()

    async def wait(self, lines: Collection[WireLine], seconds: float) -> None:  # noqa: ARG002
        """See `Bell.wait`. The lines ring it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()

    def close(self) -> None:
        """See `Bell.close`."""


class TaskTurn:
    """`Turn` of tasks."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, timeout: float | None) -> bool:
        """See `Turn.take`."""
        if timeout is not None and timeout <= 0 and self._lock.locked():
            return False
        try:
            async with asyncio.timeout(timeout):
                await self._lock.acquire()
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        """See `Turn.leave`."""
        self._lock.release()
