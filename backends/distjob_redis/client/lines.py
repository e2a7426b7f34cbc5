"""A subscription's connection on asyncio: a task of its own reads it, and rings the bell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError, RedisError  # noqa: A004

from distjob_redis.client.server import Command
from distjob_redis.client.wire import PlainWire, packed

if TYPE_CHECKING:
    from distjob_redis.client.pipeline import AsyncServer

MOST = 32 << 20
"""Bytes that may wait to be taken: as many as Redis lets wait for a subscriber, then cuts it off.
"""


class WireLine:
    """A subscription on asyncio, whose messages a task of its own reads."""

    def __init__(self, server: AsyncServer, ring: Callable[[], None]) -> None:
        self._server = server
        self._ring = ring
        self._wire: PlainWire | None = None
        self._task: asyncio.Task[None] | None = None
        self._come: list[Any] = []
        self._waiting = 0
        """Bytes of that."""

    async def open(self, command: Command) -> None:
        try:
            wire = self._wire = await self._server.connected()
        except (RedisError, OSError) as error:
            raise self._server.fault(error) from error
        self._task = asyncio.create_task(self._live(wire), name="distjob-redis subscription")
        self._task.add_done_callback(self._ended)
        wire.write(packed(command))

    def take(self) -> list[Any]:
        come, self._come, self._waiting = self._come, [], 0
        if self._task is not None and self._task.done():
            if come:
                self._ring()  # to be asked again: its end has rung already
            else:
                self._raise(self._task)
        for one in come:
            if isinstance(one, RedisError):
                raise self._server.fault(one) from one
        return come

    async def ping(self) -> None:
        if self._wire is not None:
            self._wire.write(packed(("PING",)))

    def file(self) -> int | None:
        return None

    def pause(self) -> float:
        return inf

    async def close(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def _raise(self, task: asyncio.Task[None]) -> None:
        try:
            task.result()
        except (RedisError, OSError) as error:
            raise self._server.fault(error) from error

    async def _live(self, wire: PlainWire) -> None:
        try:
            await wire.run(lambda reply: self._hear(wire, reply), pushes=True)
        finally:
            await wire.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # perhaps nobody takes any more, to be told
        self._ring()

    def _hear(self, wire: PlainWire, reply: Any) -> None:
        self._come.append(reply)
        if isinstance(reply, list) and isinstance(reply[-1], bytes):
            self._waiting += len(reply[-1])
        if self._waiting > MOST:
            wire.fail(ConnectionError(f"{MOST} bytes of messages wait, and nobody reads them"))
        self._ring()
