"""The primary behind Redis Sentinel: found by asking most of the sentinels, and asked anew.

A primary that was replaced may not know it yet and go on answering, so a server is taken for the
primary only while most of the sentinels that were named say so: when a connection to it is made,
and before each renewal of a session. Of those that disagree the one that saw the latest fail-over
is right. What a replaced primary acknowledged last may be lost all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from distjob_redis.client.making import Maker
from distjob_redis.client.server import Ask, Place, Server
from distjob_redis.faults import Address, RedisFault, Why
from distjob_redis.settings import SentinelSettings, address

T = TypeVar("T")


class Sentinels:
    """Asks sentinels for the address of the primary that they call ``name``."""

    def __init__(self, maker: Maker, settings: SentinelSettings) -> None:
        self.servers = tuple(
            maker.sentinel(address(host, 26379), settings) for host in settings.hosts
        )
        self.name = settings.name
        self._order = list(self.servers)
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """For messages."""
        return ", ".join(server.name for server in self.servers)

    async def state(self, server: Server) -> Mapping[str, str]:
        """What one of them knows of the primary. Raises `RedisFault`."""
        told = await server.ask("SENTINEL", "MASTER", self.name)
        pairs = told.items() if isinstance(told, dict) else zip(*[iter(told)] * 2, strict=True)
        return {_text(name): _text(fact) for name, fact in pairs}

    async def primary(self) -> Address:
        """The address that the most knowing of most sentinels name.

        Raises `RedisFault` if too few answer.
        """
        enough = len(self.servers) // 2 + 1
        found: list[tuple[int, Address]] = []
        failures: list[RedisFault] = []
        for server in list(self._order):
            try:
                state = await self.state(server)
                seen = int(state["config-epoch"]), (state["ip"], int(state["port"]))
                found.append(seen)
            except RedisFault as fault:
                failures.append(fault)
                with self._lock:
                    self._order.remove(server)  # to be asked last
                    self._order.append(server)
            if len(found) == enough:
                return max(found)[1]
        if not found:  # perhaps they can't be used at all
            for failure in failures:
                if failure.unfit:
                    raise failure
        msg = (
            f"Redis Sentinel: {len(found)} of {len(self.servers)} sentinels name a primary "
            f"{self.name!r}, {enough} are needed ({'; '.join(map(str, failures))})"
        )
        raise RedisFault(msg, why=Why.LOST)


class Primary(Place):
    """All keys are at the primary. Callable from any thread, or task."""

    kind = "sentinel"

    def __init__(self, maker: Maker, settings: SentinelSettings) -> None:
        self.sentinels = Sentinels(maker, settings)
        self._maker = maker
        self._known: dict[Address, Server] = {}
        self._server: Server | None = None
        """The one that was found last."""
        self._doubtful = True
        self._replaced = False
        """Whether a sentinel has told that it is another, and that was not looked at yet."""
        self._closed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:  # type: ignore[override]  # it changes
        server = self._server
        return f"{self.sentinels.name} ({server.name if server else self.sentinels.where})"

    async def server(self) -> Server:
        server = self._server
        return await self._find() if server is None or self._doubtful else server

    def holds(self, server: Server) -> bool:
        return self._server is server and not self._replaced

    def doubt(self, server: Server) -> None:
        if self._server is server:
            self._doubtful = True

    async def servers(self) -> Sequence[Server]:
        return (await self.server(),)

    async def confirm(self) -> None:
        await self._find()

    def watchers(self) -> Sequence[Server]:
        return self.sentinels.servers

    def alarm(self) -> None:
        self._doubtful = self._replaced = True

    async def close(self) -> None:
        self._closed = True
        async with AsyncExitStack() as closing:
            for server in (*self.sentinels.servers, *self._known.values()):
                closing.push_async_callback(server.close)

    async def _on(self, call: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        server = await self.server()
        try:
            return await call(server)
        except RedisFault as fault:
            if fault.why is Why.LOST:
                self.doubt(server)
            raise

    async def _find(self) -> Server:
        at = await self.sentinels.primary()
        with self._lock:
            if at not in self._known:
                if self._closed:
                    raise RedisFault(f"Redis Sentinel: {self.sentinels.name}: the store was closed")
                self._known[at] = self._maker.data(at, self._look_at)
            old, server = self._server, self._known[at]
            self._server = server
            self._doubtful = self._replaced = False
        if old is not None and old is not server:
            self._maker.world.bell.ring()  # who listens there is to listen here
            await old.let_go()
        return server

    async def _look_at(self, at: Address, ask: Ask) -> None:
        """Make sure of a server that was connected to: it may be back as what it is no more."""
        where = f"Redis at {at[0]}:{at[1]}"
        now = await self.sentinels.primary()
        if now != at:
            msg = f"{where}: the sentinels name {now[0]}:{now[1]} as the primary by now"
            raise RedisFault(msg, why=Why.LOST)
        if "role:master" not in _text(await ask("INFO", "replication")):
            msg = f"{where}: the sentinels name it as the primary, but it is a replica"
            raise RedisFault(msg, "yet, or again", why=Why.LOST)


def _text(told: Any) -> str:
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)
