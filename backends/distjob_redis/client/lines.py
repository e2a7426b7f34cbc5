"""A subscription's connection on asyncio: a task of its own reads it, and rings the bell."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError, RedisError  # noqa: A004

from distjob_redis.client.wire import PlainWire, packed
from distjob_redis.feed import Channel

if TYPE_CHECKING:
    from distjob_redis.client.pipeline import AsyncServer

MOST = 32 << 20
"""Bytes that may wait to be taken: as many as Redis lets wait for a subscriber, then cuts it off.
"""


class TaskChannel(Channel):
    """A task of its own reads it."""

    def __init__(self, server: AsyncServer, *given: Any) -> None:
        super().__init__(*given)
        self._server = server
        self._wire: PlainWire | None = None
        self._task: asyncio.Task[None] | None = None
        self._unread: list[Any] = []
        self._waiting = 0
        """Bytes of that."""

    async def prod(self) -> None:
        if self._wire is not None:
            self._wire.write(packed(("PING",)))

    async def close(self) -> None:
        task, self._task = self._task, None
        self._messages = []
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def _connect(self) -> None:
        try:
            wire = self._wire = await self._server.connected()
        except (RedisError, OSError) as error:
            raise self._server.fault(error) from error
        self._unread, self._waiting = [], 0
        self._task = asyncio.create_task(self._live(wire), name="distjob-redis subscription")
        self._task.add_done_callback(self._ended)
        wire.write(packed(self._command))

    def _read(self) -> list[Any]:
        come, self._unread, self._waiting = self._unread, [], 0
        try:
            if self._task is not None and self._task.done():
                if come:
                    self._world.bell.ring()  # to be asked again: its end has rung already
                else:
                    self._task.result()
            for one in come:
                if isinstance(one, RedisError):
                    raise one
        except (RedisError, OSError) as error:
            raise self._server.fault(error) from error
        return come

    async def _live(self, wire: PlainWire) -> None:
        try:
            await wire.run(lambda reply: self._hear(wire, reply), pushes=True)
        finally:
            await wire.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # perhaps nobody takes any more, to be told
        self._world.bell.ring()

    def _hear(self, wire: PlainWire, reply: Any) -> None:
        self._unread.append(reply)
        if isinstance(reply, list) and isinstance(reply[-1], bytes):
            self._waiting += len(reply[-1])
        if self._waiting > MOST:
            wire.fail(ConnectionError(f"{MOST} bytes of messages wait, and nobody reads them"))
        self._world.bell.ring()
