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

import redis

from distjob.errors import BackendUnavailable, ConfigError
from distjob_redis.answers import Lost, Unfit
from distjob_redis.clients import Model, model_of, sibling
from distjob_redis.links import Address, Ask, World
from distjob_redis.server import Server
from distjob_redis.topology import Kind, Place, each_of

T = TypeVar("T")


class NotPrimary(redis.ConnectionError):
    """A connection was made to a server that is not, or not surely, the primary."""


class Sentinels:
    """Asks sentinels for the address of the primary that they call ``name``."""

    def __init__(self, servers: Sequence[Server], name: str) -> None:
        self.servers = tuple(servers)
        self.name = name
        self._order = list(self.servers)
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """For messages."""
        return ", ".join(server.name for server in self.servers)

    async def state(self, server: Server) -> Mapping[str, str]:
        """What one of them knows of the primary. Raises `BackendUnavailable`."""
        told = await server.ask("SENTINEL", "MASTER", self.name)
        pairs = told.items() if isinstance(told, dict) else zip(*[iter(told)] * 2, strict=True)
        return {_text(name): _text(fact) for name, fact in pairs}

    async def primary(self) -> Address:
        """The address that the most knowing of most sentinels name.

        Raises `BackendUnavailable` if too few answer.
        """
        enough = len(self.servers) // 2 + 1
        found: list[tuple[int, Address]] = []
        failures: list[BackendUnavailable] = []
        for server in list(self._order):
            try:
                state = await self.state(server)
                seen = int(state["config-epoch"]), (state["ip"], int(state["port"]))
                found.append(seen)
            except BackendUnavailable as error:
                failures.append(error)
                with self._lock:
                    self._order.remove(server)  # to be asked last
                    self._order.append(server)
            if len(found) == enough:
                return max(found)[1]
        if not found:  # perhaps they can't be used at all
            for failure in failures:
                if isinstance(failure, Unfit):
                    raise failure
        msg = (
            f"{len(found)} of {len(self.servers)} sentinels name a primary {self.name!r}, {enough}"
            f" are needed ({'; '.join(map(str, failures))})"
        )
        raise Lost(f"Redis Sentinel: {msg}")


class Primary:
    """`Topology` and `Place` of a primary behind sentinels. Callable from any thread, or task."""

    kind: Kind = "sentinel"

    def __init__(self, sentinels: Sentinels, model: Model, world: World) -> None:
        self.world = world
        self.sentinels = sentinels
        self._model = model
        """How servers are connected to."""
        self._known: dict[Address, Server] = {}
        self._server: Server | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        server = self._server
        return f"{self.sentinels.name} ({server.name if server else self.sentinels.where})"

    def place(self, prefix: bytes) -> Place:  # noqa: ARG002  it has them all
        return self

    async def servers(self) -> Sequence[Server]:
        return (await self.server(),)

    async def server(self) -> Server:
        """See `distjob_redis.topology.Place.server`."""
        return self._server or await self._find()

    def doubt(self, server: Server) -> None:
        """See `distjob_redis.topology.Place.doubt`."""
        if self._server is server:
            self._server = None

    async def confirm(self) -> None:
        """Ask the sentinels. Raises `BackendUnavailable` if too few of them answer."""
        await self._find()

    def watchers(self) -> Sequence[tuple[Server, bytes]]:
        """All sentinels. A primary that was replaced while it works is not told for seconds."""
        return [(server, b"+switch-master") for server in self.sentinels.servers]

    async def ask(self, *command: Any, change: bool = False) -> Any:
        """See `Server.ask`."""
        return await self._with(lambda server: server.ask(*command, change=change))

    async def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Server.ask_all`."""
        return await self._with(lambda server: server.ask_all(commands))

    async def run(self, script: str, digest: str, *arguments: Any) -> Any:
        """See `Server.run`."""
        return await self._with(lambda server: server.run(script, digest, *arguments))

    async def ask_each(
        self, asked: Sequence[tuple[Place, tuple[Any, ...]]], *, change: bool = False
    ) -> list[Any]:
        """See `distjob_redis.topology.Topology.ask_each`."""
        commands = [command for _, command in asked]
        return await self._with(lambda server: each_of(server, commands, change=change))

    async def close(self) -> None:
        self._closed = True
        async with AsyncExitStack() as closing:
            for server in (*self.sentinels.servers, *self._known.values()):
                closing.push_async_callback(server.close)

    async def _with(self, call: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        server = self._server or await self._find()
        try:
            return await call(server)
        except Lost:
            self.doubt(server)
            raise

    async def _find(self) -> Server:
        at = await self.sentinels.primary()
        with self._lock:
            if at not in self._known:
                if self._closed:
                    msg = f"Redis Sentinel: {self.sentinels.name}: the store was closed"
                    raise BackendUnavailable(msg)
                client = sibling(self._model, *at, self.world, self._look_at)
                self._known[at] = self.world.server(client, owned=True)
            old, server = self._server, self._known[at]
            self._server = server
        if old is not None and old is not server:
            await old.let_go()
        return server

    async def _look_at(self, at: Address, ask: Ask) -> None:
        """Make sure of a server that was connected to: it may be back as what it is no more."""
        try:
            now = await self.sentinels.primary()
        except BackendUnavailable as error:
            raise NotPrimary(str(error)) from error
        if now != at:
            msg = f"the sentinels name {now[0]}:{now[1]} as the primary by now"
            raise NotPrimary(msg)
        told = await ask("INFO", "replication")
        if "role:master" not in _text(told):
            msg = "the sentinels name it as the primary, but it is a replica (yet, or again)"
            raise NotPrimary(msg)


def of_client(client: Any, world: World) -> Primary:
    """The primary that a client made by `redis.sentinel.Sentinel.master_for` leads to."""
    pool: Any = client.connection_pool
    if not pool.is_master:
        msg = "the client was made by slave_for: replicas are behind, use master_for"
        raise ConfigError(msg)
    servers = [world.server(one) for one in pool.sentinel_manager.sentinels]
    return Primary(Sentinels(servers, pool.service_name), model_of(client, world.driver), world)


def _text(told: Any) -> str:
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)
