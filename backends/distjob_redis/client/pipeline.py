"""One server on asyncio: the commands of all tasks share its one connection, and round trips.

A command waits in the outbox for the loop's next turn, and goes out with all others that came by
then. Replies come in the order of the commands. So nothing of a command is ever sent twice: what a
lost connection took with it has no reply, and what was still in the outbox goes out on the next.
Decides when a connection is made, given up and left. Knows neither keys nor values.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004
    InvalidResponse,
    RedisError,
    TimeoutError,  # noqa: A004
)

from distjob.backend.source import Fault
from distjob.backend.world import World
from distjob_redis.client.lines import TaskChannel
from distjob_redis.client.server import Command, Server
from distjob_redis.client.wire import PlainWire, packed, wire
from distjob_redis.feed import Channel, Ear

GRACE = 0.01
"""Seconds in which a reply is still taken that lay there while the loop was held up."""


class _Request:
    """One command, or several in a row."""

    __slots__ = ("at", "data", "failure", "future", "replies", "wanted")

    def __init__(self, data: bytes, wanted: int, future: asyncio.Future[bool]) -> None:
        self.data = data
        self.wanted = wanted
        """How many replies there will be."""
        self.future = future
        """Whether the command was sent, when there is nothing more to come."""
        self.at = 0.0
        """When it was sent."""
        self.replies: list[Any] = []
        self.failure: BaseException | None = None
        """Why its replies will not come."""


class AsyncServer(Server):
    """For the tasks of the loop in which it is made. One task of its own, while connected."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._loop = asyncio.get_running_loop()
        self._outbox: list[_Request] = []
        self._sent: deque[_Request] = deque()
        self._due = False
        """Whether `_flush` will be called."""
        self._wire: PlainWire | None = None
        self._used = False
        """Whether something was sent on the wire."""
        self._leaving = False
        """Whether the wire takes nothing more, and ends with its last reply."""
        self._task: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._suspect: _Request | None = None
        self._closed = False

    async def exchange(self, commands: Sequence[Command], *, change: bool = False) -> list[Any]:
        future = self._loop.create_future()
        request = _Request(b"".join(map(packed, commands)), len(commands), future)
        self._outbox.append(request)
        if not self._due:
            self._soon()
        sent = await future
        if (failure := request.failure) is not None:
            if isinstance(failure, RedisError | OSError):
                raise self.fault(failure, change=change and sent) from failure
            raise failure
        return self.replies(request.replies)

    def channel(self, ear: Ear, world: World, command: Command) -> Channel:
        return TaskChannel(self, ear, world, command)

    async def connected(self) -> PlainWire:
        """A new connection. Raises `RedisError`, `OSError` or `Fault`."""
        return await wire(self._pool, self.address, self._greet)

    async def let_go(self) -> None:
        """What has been sent is still answered."""
        self._leave()

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        # What still subscribes ends its connection itself.
        await self._pool.disconnect(inuse_connections=False)

    def _soon(self) -> None:
        self._due = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what is in the outbox, if there is a connection for it."""
        self._due = False
        wire = self._wire
        if wire is None:
            self._connect()
            return
        if wire.is_closing():
            return  # what is in the outbox goes out on the next
        if self._used:
            if wire.is_outdated():
                self._leave()
            if self._leaving:
                return
            if not self._sent and wire.stirs():
                self._soon()  # when that has been read; most likely it is the end
                return
        self._send(wire)

    def _send(self, wire: PlainWire) -> None:
        now = self._loop.time()
        data = []
        for request in self._outbox:
            if not request.future.done():  # cancelled before it was sent: it never is
                request.at = now
                data.append(request.data)
                self._sent.append(request)
        self._outbox.clear()
        if data:
            wire.write(b"".join(data))
            self._used = True
            if self._watchdog is None and wire.timeout is not None:
                self._watchdog = self._loop.call_at(now + wire.timeout, self._look)

    def _take(self, reply: Any) -> None:
        """The next reply."""
        if not self._sent:
            raise InvalidResponse("a reply that nobody asked for")
        request = self._sent[0]
        request.replies.append(reply)
        if len(request.replies) < request.wanted:
            return
        self._sent.popleft()
        if not request.future.done():
            request.future.set_result(True)
        if self._leaving:
            self._leave()

    def _leave(self) -> None:
        """Use this connection no more; end it as soon as nothing is to come on it."""
        if self._wire is not None:
            self._leaving = True
            if not self._sent:
                self._wire.fail(ConnectionError("left for a new one"))

    def _look(self) -> None:
        """Give the connection up if the oldest request has waited too long."""
        self._watchdog = None
        wire = self._wire
        if not self._sent or wire is None or wire.timeout is None:
            return
        oldest = self._sent[0]
        again = oldest.at + wire.timeout
        if again <= self._loop.time():
            if self._suspect is oldest:
                wire.fail(TimeoutError(f"no answer in {wire.timeout:g} seconds"))
                return
            self._suspect = oldest
            again = self._loop.time() + GRACE
        self._watchdog = self._loop.call_at(again, self._look)

    def _connect(self) -> None:
        if self._closed:
            self._fail(self._outbox, ConnectionError("closed"), sent=False)
        elif self._outbox and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._live(), name=f"distjob-redis {self.name}")
            self._task.add_done_callback(self._ended)

    async def _live(self) -> None:
        """Connect, and take replies; anew, if something is to be sent when that has ended."""
        while self._outbox:
            try:
                wire = await self.connected()
            except (RedisError, OSError, Fault) as error:
                self._fail(self._outbox, error, sent=False)
                break
            self._wire, self._used, self._leaving = wire, False, False
            try:
                self._send(wire)
                await wire.run(self._take)
            except (RedisError, OSError) as error:
                self._fail(self._sent, error, sent=True)
            finally:
                self._wire = None
                if self._watchdog is not None:
                    self._watchdog.cancel()
                    self._watchdog = None
                await wire.close()
        self._task = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The task was cancelled, or has failed in a way of its own: that is told to all."""
        if task is self._task:
            self._task = None
            error = None if task.cancelled() else task.exception()
            error = error or ConnectionError("the connection was closed")
            self._fail(self._sent, error, sent=True)
            self._fail(self._outbox, error, sent=False)

    def _fail(
        self, requests: list[_Request] | deque[_Request], error: BaseException, *, sent: bool
    ) -> None:
        for request in requests:
            if not request.future.done():
                request.failure = error
                request.future.set_result(sent)
        requests.clear()
