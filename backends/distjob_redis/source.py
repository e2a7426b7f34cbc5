"""The verbs on Redis, as `distjob.backend.source.Source` says, on the servers of one shard.

Each is one command, but for renewing a session, before which sentinels are asked who is the
primary. What is sent, and how answers are read, is in `distjob_redis.layout`.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from distjob.backend.settling import Numbers
from distjob.backend.source import Feed
from distjob.backend.world import World
from distjob.errors import RecordError
from distjob.store import Guarantees, Reply, Settled, Versioned
from distjob_redis.client.server import Place, all_of
from distjob_redis.faults import RedisFault, Why
from distjob_redis.feed import RedisFeed, SentinelFeed
from distjob_redis.layout import (
    COMMIT,
    SETTLE,
    Layout,
    Post,
    replied,
    session_value,
    versioned,
)

_NO_KEY, _NO_TTL = -2, -1
_PAGE = 1000
"""Keys looked at, at a time."""


class RedisSource:
    """One client's, at the ``place`` of its shard's keys, whose connections are given up in the
    end. ``ttl``: seconds, of sessions that were opened by others."""

    def __init__(
        self, place: Place, layout: Layout, guarantees: Guarantees, world: World, ttl: float
    ) -> None:
        self.place = place
        self.guarantees = guarantees
        self.name = secrets.token_hex(16)
        """The client's: what its sessions' ids and its channel begin with."""
        self._secret = secrets.token_hex(16)
        self._layout = layout
        self._world = world
        self._sessions = itertools.count(1)
        self._ttl = ttl
        self._ttls: dict[str, float] = {}
        self._numbers = Numbers()
        self._feed: RedisFeed | None = None
        self._watchers = [SentinelFeed(server, place, world) for server in place.watchers()]

    async def open(self, ttl: float, owner: str) -> str:
        session = f"{self.name}.{next(self._sessions)}"
        key, value = self._layout.session(session), session_value(self._secret, owner)
        await self.place.ask("SET", key, value, "PX", milliseconds(ttl), change=True)
        self._ttls[session] = ttl
        return session

    async def renew(self, session: str) -> bool:
        await self.place.confirm()
        px = milliseconds(self._ttls.get(session, self._ttl))
        key = self._layout.session(session)
        if await self.place.ask("PEXPIRE", key, px, change=True):
            return True
        self._forget(session)
        return False

    async def end(self, session: str) -> None:
        await self.place.ask("DEL", self._layout.session(session), change=True)
        self._forget(session)

    async def settle(self, session: str) -> None:
        """By the session's number, see `distjob_redis.layout`: what was sent before names an older.

        One that another settling has raised already is as good.
        """
        known = self._numbers.of(session)
        number = await self.place.run(SETTLE, 1, self._layout.session(session), known)
        self._numbers.learn(session, number)

    async def read(self, vm: str) -> Versioned:
        try:
            return versioned(await self.place.ask("GET", self._layout.vm(vm)), vm)
        except RedisFault as fault:
            raise _about(vm, fault) from fault.__cause__

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        sessions = (author, *wake)
        number = self._numbers.of(author)
        given = self._layout.commit(vm, expected, value, sessions, number)
        try:
            answer = await self.place.run(COMMIT, *given)
        except RedisFault as fault:
            raise _about(vm, fault) from fault.__cause__
        reply = replied(answer, vm, sessions)
        if isinstance(reply, Settled):
            self._numbers.learn(author, answer[1])
        return reply

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        asked = [("PTTL", self._layout.session(session)) for session in sessions]
        left = all_of(await self.place.ask_each(asked))
        return dict(zip(sessions, map(_seconds_left, left), strict=True))

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        """Walks the whole database, a thousand keys at a time."""
        pattern = self._layout.vms + b"*"
        seen = set[bytes]()
        for server in await self.place.servers():  # in a cluster, a slot may be on its way
            cursor = b"0"
            while True:
                asked = ("SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE)
                cursor, keys = await server.ask(*asked)
                new = [key for key in dict.fromkeys(keys) if key not in seen]
                seen.update(new)  # Redis may give a key twice
                for found in await self._values(new):
                    yield found
                if cursor == b"0":
                    break

    async def feeds(self) -> Collection[Feed]:
        server = await self.place.server()
        if self._feed is None or self._feed.server is not server:
            post = Post(self._layout, self.name, self._secret)
            command = "SSUBSCRIBE" if self._layout.publish else "SUBSCRIBE"
            channel = self._layout.session(self.name)
            self._feed = RedisFeed(server, self.place, self._world, post, command, channel)
        return (*self._watchers, self._feed)

    async def let_go(self) -> None:
        await self.place.close()

    async def _values(self, keys: Sequence[bytes]) -> list[tuple[str, Versioned]]:
        """What stands in ``keys``, all of VMs; nothing of those that have just been removed."""
        found: list[tuple[str, Versioned]] = []
        replies = await self.place.ask_each([("GET", key) for key in keys]) if keys else []
        for key, held in zip(keys, replies, strict=True):
            vm = self._layout.vm_of(key, errors="replace")
            if isinstance(held, RedisFault):
                raise _about(vm, held) from held.__cause__
            if (value := versioned(held, vm)).value is not None:
                found.append((vm, value))
        return found

    def _forget(self, session: str) -> None:
        """``session`` has ended."""
        self._ttls.pop(session, None)
        self._numbers.learn(session, 0)


def milliseconds(seconds: float) -> int:
    """Rounded up, and at least one."""
    return max(1, math.ceil(seconds * 1000))


def _seconds_left(ttl_ms: Any) -> float:
    """PTTL's answer; in its last millisecond a session still lives, though Redis says 0."""
    if ttl_ms == _NO_KEY:
        return 0.0
    return math.inf if ttl_ms == _NO_TTL else max(1, ttl_ms) / 1000


def _about(vm: str, fault: RedisFault) -> Exception:
    """``fault``, or what it says of the data of ``vm``."""
    return RecordError(f"VM {vm!r}: {fault}") if fault.why is Why.DAMAGED else fault
