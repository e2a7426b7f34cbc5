"""The primary behind Redis Sentinel: found by asking most of the sentinels, and asked anew.

A primary that was replaced may not know it yet and go on answering, so a server is taken for the
primary only while most of the sentinels that were named say so: when a connection to it is made,
and before each renewal of a session. Of those that disagree the one that saw the latest fail-over
is right. What a replaced primary acknowledged last may be lost all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from distjob.backend.source import Fault, Feed
from distjob.backend.world import World
from distjob.store import Event
from distjob_redis.client.making import Maker
from distjob_redis.client.seeking import Sought
from distjob_redis.client.server import Ask, Server, pairs
from distjob_redis.faults import Address, RedisFault, Why
from distjob_redis.feed import Ear
from distjob_redis.settings import SentinelSettings, address

log = logging.getLogger("distjob.redis")


class Primary(Sought):
    """All keys are at the server that ``settings.name`` is at the sentinels."""

    kind = "sentinel"

    def __init__(self, maker: Maker, settings: SentinelSettings) -> None:
        super().__init__(maker.world, lambda at: maker.data(at, self._look_at), {})
        hosts = (address(host, 26379) for host in settings.hosts)
        self.sentinels = tuple(maker.sentinel(host, settings) for host in hosts)
        self._title = settings.name
        self._order = list(self.sentinels)
        """Sentinels that did not answer are asked last."""
        self._replaced = False
        """A sentinel has told that it is another, and that was not looked at yet."""

    @property
    def name(self) -> str:  # type: ignore[override]  # it changes
        where = [self._found] if self._found else self.sentinels
        return f"{self._title} ({', '.join(server.name for server in where)})"

    async def state(self, sentinel: Server) -> Mapping[str, str]:
        """What one of them knows of the primary. Raises `RedisFault`."""
        told = await sentinel.ask("SENTINEL", "MASTER", self._title)
        return {_text(name): _text(fact) for name, fact in pairs(told)}

    def holds(self, server: Server) -> bool:
        return super().holds(server) and not self._replaced

    async def confirm(self) -> None:
        await self._find()

    def feeds(self, world: World) -> Sequence[Feed]:
        command = ("SUBSCRIBE", b"+switch-master")
        return [
            sentinel.channel(Alarm(sentinel, self._alarm), world, command)
            for sentinel in self.sentinels
        ]

    async def close(self) -> None:
        async with AsyncExitStack() as closing:
            for sentinel in self.sentinels:
                closing.push_async_callback(sentinel.close)
            closing.push_async_callback(super().close)

    def _alarm(self) -> None:
        self._doubtful = self._replaced = True

    async def _seek(self) -> Server:
        return self._at(await self._named())

    async def _take(self, found: Server) -> None:
        self._replaced = False
        await super()._take(found)

    async def _named(self) -> Address:
        """The address that the most knowing of most sentinels name.

        Raises `RedisFault` if too few answer.
        """
        enough = len(self.sentinels) // 2 + 1
        found: list[tuple[int, Address]] = []
        failures: list[RedisFault] = []
        for sentinel in self._order:
            try:
                state = await self.state(sentinel)
                found.append((int(state["config-epoch"]), (state["ip"], int(state["port"]))))
            except RedisFault as fault:
                failures.append(fault)
                self._order = [*(one for one in self._order if one is not sentinel), sentinel]
            if len(found) == enough:
                return max(found)[1]
        if not found:  # perhaps they can't be used at all
            for failure in failures:
                if failure.unfit:
                    raise failure
        msg = (
            f"Redis Sentinel: {len(found)} of {len(self.sentinels)} sentinels name a primary "
            f"{self._title!r}, {enough} are needed ({'; '.join(map(str, failures))})"
        )
        raise RedisFault(msg, why=Why.LOST)

    async def _look_at(self, at: Address, ask: Ask) -> None:
        """Make sure of a server that was connected to: it may be back as what it is no more."""
        where = f"Redis at {at[0]}:{at[1]}"
        now = await self._named()
        if now != at:
            msg = f"{where}: the sentinels name {now[0]}:{now[1]} as the primary by now"
            raise RedisFault(msg, why=Why.LOST)
        if "role:master" not in _text(await ask("INFO", "replication")):
            msg = f"{where}: the sentinels name it as the primary, but it is a replica"
            raise RedisFault(msg, "yet, or again", why=Why.LOST)


class Alarm(Ear):
    """One sentinel's word that another server is the primary now.

    A primary that was replaced while it works is not told so for seconds.
    """

    vital = False

    def __init__(self, sentinel: Server, ring: Callable[[], None]) -> None:
        self.server = sentinel
        self._ring = ring
        self._again = self._warned = False

    def check(self) -> None:
        """A sentinel stays one."""

    def opened(self) -> None:
        if self._again:
            self._ring()  # it may have been said meanwhile
        self._again = True

    def hear(self, messages: Sequence[bytes]) -> Sequence[tuple[str, Event]]:
        if messages:
            self._ring()
        return ()

    def failed(self, fault: Fault) -> None:
        if fault.unfit and not self._warned:
            self._warned = True
            log.warning("%s: a fail-over is noticed late", fault)


def _text(told: Any) -> str:
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)
