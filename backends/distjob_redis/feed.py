"""What a server tells: the wake-ups on the client's channel.

A feed is one subscription, on one connection. When it is opened, asked and given up is decided in
`distjob.backend.listening`. Redis resumes nothing: what was published meanwhile is lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from distjob.backend.source import Fault
from distjob.backend.world import World
from distjob.store import Event
from distjob_redis.faults import RedisFault, Why

if TYPE_CHECKING:
    from distjob_redis.client.server import Command, Place, Server
    from distjob_redis.layout import Post

PATIENCE = 2.0
"""Seconds that a subscription, once there is a connection, may take to be confirmed."""


class Ear:
    """Who listens to a channel of ``server``: here, for the wake-ups of a client."""

    vital = True

    def __init__(self, server: Server, place: Place, post: Post) -> None:
        self.server = server
        self._place = place
        self._post = post

    def check(self) -> None:
        """Raise `RedisFault` if that channel is none to listen to any more."""
        if not self._place.holds(self.server):
            raise RedisFault(f"Redis at {self.server.name} is not the one to ask any more")

    def opened(self) -> None:
        """Note that the channel is subscribed to."""

    def hear(self, messages: Sequence[bytes]) -> Sequence[tuple[str, Event]]:
        """What the messages tell."""
        return [event for event in map(self._post.read, messages) if event is not None]

    def failed(self, fault: Fault) -> None:  # noqa: ARG002
        """Note that the channel could not be subscribed to, or was cut."""
        self._place.doubt(self.server)


class Channel(ABC):
    """`distjob.backend.source.Feed` of one channel; each world reads in a way of its own."""

    def __init__(self, ear: Ear, world: World, command: Command) -> None:
        """``command`` subscribes."""
        self.ear = ear
        self.vital = ear.vital
        self._world = world
        self._command = command
        self._messages: list[bytes] = []
        """Read, and not taken: also what came right behind the confirmation."""

    async def open(self) -> bool:
        try:
            await self._connect()
            until = self._world.monotonic() + PATIENCE
            while not any(_kind(one) in (b"subscribe", b"ssubscribe") for one in self._come()):
                if (left := until - self._world.monotonic()) <= 0:
                    msg = f"Redis at {self.ear.server.name} does not confirm a subscription"
                    raise RedisFault(msg)
                # Rung for others, too: they look before they wait.
                file = self.when_readable()
                files = () if file is None else (file,)
                await self._world.bell.wait(min(left, self.pause()), files)
        except Fault as fault:
            self.ear.failed(fault)
            raise
        self.ear.opened()
        return True

    async def take(self) -> Sequence[tuple[str, Event]] | None:
        self.ear.check()
        try:
            come = self._come()
        except Fault as fault:
            self.ear.failed(fault)
            raise
        messages, self._messages = self._messages, []
        return self.ear.hear(messages) if come or messages else None

    def when_readable(self) -> int | None:
        return None

    def pause(self) -> float:
        return inf

    @abstractmethod
    async def prod(self) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    async def _connect(self) -> None:
        """Connect, and send the command. Raises `RedisFault`."""

    @abstractmethod
    def _read(self) -> list[Any]:
        """What has come; never waits. Raises `RedisFault` when the connection has ended."""

    def _come(self) -> list[Any]:
        """The same; messages are kept for who takes."""
        come = self._read()
        for reply in come:
            kind = _kind(reply)
            if kind in (b"message", b"smessage"):
                self._messages.append(reply[-1])
            elif kind == b"sunsubscribe":
                msg = f"Redis at {self.ear.server.name} has our channel no more: its slot has moved"
                raise RedisFault(msg, why=Why.LOST)
        return come


def _kind(reply: Any) -> Any:
    """What a reply is; with RESP3 a ping is answered in one word."""
    return reply[0] if isinstance(reply, list) else reply
