"""The verbs on Redis, as `distjob.backend.source.Source` says, on the servers of one shard.

Each is one command, but for renewing a session, before which sentinels are asked who is the
primary. What is sent, and how answers are read, is in `distjob_redis.layout`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from distjob.backend.settling import Numbers
from distjob.backend.source import Feed
from distjob.backend.world import World
from distjob.errors import RecordError
from distjob.store import Guarantees, Reply, Settled, Versioned, Void
from distjob_redis.client.server import Command, Place, all_of, facts_of
from distjob_redis.faults import RedisFault, Why
from distjob_redis.feed import Channel, Ear
from distjob_redis.layout import COMMIT, SETTLE, Layout, Post, replied, session_value, versioned
from distjob_redis.watch import NO_EVICTION, STEP, Watch, evicting

log = logging.getLogger("distjob.redis")
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
        self.ttl = ttl
        self._ttls: dict[str, float] = {}
        self._numbers = Numbers()
        self._watch = Watch()
        self._feed: Channel | None = None
        self._others = place.feeds(world)

    async def open(self, ttl: float, owner: str) -> str:
        session = f"{self.name}.{next(self._sessions)}"
        key, value = self._layout.session(session), session_value(self._secret, owner)
        await self._looking(("SET", key, value, "PX", milliseconds(ttl)), ttl)
        self._ttls[session] = ttl
        return session

    async def renew(self, session: str) -> bool | Void:
        """Given up, and ended, if the server's clock was set: TTLs follow it."""
        await self.place.confirm()
        ttl = self._ttls.get(session, self.ttl)
        alive, stepped = await self._looking(
            ("PEXPIRE", self._layout.session(session), milliseconds(ttl)), ttl
        )
        if stepped:
            log.error("%s: the session is given up, and all jobs that it holds", stepped)
            with contextlib.suppress(RedisFault):  # else its time runs out
                await self.end(session)
        if stepped or not alive:
            self._forget(session)
        return Void(stepped) if stepped else bool(alive)

    async def _looking(self, command: Command, ttl: float) -> tuple[Any, str]:
        """The reply to ``command``; and of a step of the server's clock, if it has made one.

        In one round trip. Raises `RedisFault` if the server evicts by now.
        """
        asked = (("TIME",), ("INFO", "memory"), command)
        sent = self._world.monotonic()
        time, memory, reply = all_of(await self.place.exchange(asked, change=True))
        if policy := evicting(facts_of(memory)):
            raise RedisFault(f"Redis at {self.place.name} {policy}", NO_EVICTION)
        by = self._watch.step(time, sent, self._world.monotonic())
        text = f"the clock of Redis at {self.place.name} was set by {by:+.1f} s"
        return reply, text if abs(by) > ttl / STEP else ""

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
        left = all_of(await self.place.exchange(asked))
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
        if self._feed is None or self._feed.ear.server is not server:
            ear = Ear(server, self.place, Post(self._layout, self.name, self._secret))
            subscribe = "SSUBSCRIBE" if self._layout.publish else "SUBSCRIBE"
            command = (subscribe, self._layout.session(self.name))
            self._feed = server.channel(ear, self._world, command)
        return (*self._others, self._feed)

    async def let_go(self) -> None:
        await self.place.close()

    async def _values(self, keys: Sequence[bytes]) -> list[tuple[str, Versioned]]:
        """What stands in ``keys``, all of VMs; nothing of those that have just been removed."""
        found: list[tuple[str, Versioned]] = []
        replies = await self.place.exchange([("GET", key) for key in keys]) if keys else []
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
