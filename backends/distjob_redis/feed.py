"""What servers tell: wake-ups, on the client's channel; of sentinels, that another is primary.

A feed is one subscription, on one connection. When it is opened, asked and given up is decided in
`distjob.backend.listening`. Redis resumes nothing: what was published meanwhile is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from distjob.backend.source import Fault
from distjob.backend.world import World
from distjob.store import Event
from distjob_redis.client.server import Line, Place, Server
from distjob_redis.faults import RedisFault, Why
from distjob_redis.layout import Post

CONFIRMED = (b"subscribe", b"ssubscribe")
MESSAGES = (b"message", b"smessage")
PATIENCE = 2.0
"""Seconds that a subscription, once there is a connection, may take to be confirmed."""


class _Subscription:
    """One channel of ``server``: `distjob.backend.source.Feed` but for what is heard."""

    def __init__(self, server: Server, place: Place, world: World, *command: str | bytes) -> None:
        self.server = server
        self._place = place
        self._world = world
        self._command = command
        self._line: Line | None = None
        self._early: list[bytes] = []
        """What came right behind the confirmation."""

    async def open(self) -> bool:
        line = self._line = self.server.line(self._world.bell.ring)
        await line.open(self._command)
        until = self._world.monotonic() + PATIENCE
        while True:
            come = line.take()
            if any(_kind(reply) in CONFIRMED for reply in come):
                break
            if (left := until - self._world.monotonic()) <= 0:
                raise RedisFault(f"Redis at {self.server.name} does not confirm a subscription")
            # Rung for others, too: they look before they wait.
            file = line.file()
            await self._world.bell.wait(min(left, line.pause()), () if file is None else (file,))
        self._early = self._messages(come)
        return True

    async def prod(self) -> None:
        if self._line is not None:
            await self._line.ping()

    def when_readable(self) -> int | None:
        return None if self._line is None else self._line.file()

    def pause(self) -> float:
        return inf if self._line is None else self._line.pause()

    async def close(self) -> None:
        if (line := self._line) is not None:
            self._line, self._early = None, []
            await line.close()

    def _heard(self) -> list[bytes] | None:
        """Messages; None if nothing at all has come. Raises `Fault`."""
        if self._line is None:
            return None
        early, self._early = self._early, []
        come = self._line.take()
        if not come and not early:
            return None
        return early + self._messages(come)

    def _messages(self, come: Sequence[Any]) -> list[bytes]:
        if any(_kind(reply) == b"sunsubscribe" for reply in come):
            msg = f"Redis at {self.server.name} has a channel of ours no more: its slot has moved"
            raise RedisFault(msg, why=Why.LOST)
        return [reply[-1] for reply in come if _kind(reply) in MESSAGES]


def _kind(reply: Any) -> Any:
    """What a reply is; with RESP3 a ping is answered in one word."""
    return reply[0] if isinstance(reply, list) else reply


class RedisFeed(_Subscription):
    """The wake-ups of one client."""

    vital = True

    def __init__(
        self, server: Server, place: Place, world: World, post: Post, *command: str | bytes
    ) -> None:
        """``command`` subscribes to the client's channel."""
        super().__init__(server, place, world, *command)
        self._post = post

    async def open(self) -> bool:
        try:
            return await super().open()
        except Fault:
            self._place.doubt(self.server)
            raise

    async def take(self) -> Sequence[tuple[str, Event]] | None:
        if not self._place.holds(self.server):
            raise RedisFault(f"Redis at {self.server.name} is not the one to ask any more")
        try:
            messages = self._heard()
        except Fault:
            self._place.doubt(self.server)
            raise
        if messages is None:
            return None
        return [event for event in map(self._post.read, messages) if event is not None]


class SentinelFeed(_Subscription):
    """One sentinel's word that another server is the primary now.

    A primary that was replaced while it works is not told so for seconds.
    """

    vital = False

    def __init__(self, server: Server, place: Place, world: World) -> None:
        super().__init__(server, place, world, "SUBSCRIBE", b"+switch-master")
        self._again = False

    async def open(self) -> bool:
        await super().open()
        if self._again:
            self._place.alarm()  # it may have been said meanwhile
        self._again = True
        return True

    async def take(self) -> Sequence[tuple[str, Event]] | None:
        messages = self._heard()
        if messages:
            self._place.alarm()
        return None if messages is None else ()
