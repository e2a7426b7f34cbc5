"""The primary behind Redis Sentinel: found by asking most of the sentinels, and asked anew.

A primary that was replaced may not know it yet and go on answering, so a server is taken for the
primary only while most of the sentinels that were named say so: when a connection to it is made,
and before each renewal of a session. Of those that disagree the one that saw the latest fail-over
is right. What a replaced primary acknowledged last may be lost all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis.exceptions import RedisError

from distjob.errors import BackendUnavailable, ConfigError
from distjob_redis.answers import Lost, Unfit, meaning
from distjob_redis.clients import sibling
from distjob_redis.server import Server
from distjob_redis.topology import Kind, Place, each_of

T = TypeVar("T")
Address = tuple[str, int]


class NotPrimary(redis.ConnectionError):
    """A connection was made to a server that is not, or not surely, the primary."""


class Sentinels:
    """Asks sentinels for the address of the primary that they call ``name``."""

    def __init__(self, clients: Sequence[redis.Redis], name: str) -> None:
        self.clients = tuple(clients)
        self.name = name
        self._order = list(self.clients)
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """For messages."""
        return ", ".join(map(where, self.clients))

    def primary(self) -> Address:
        """The address that the most knowing of most sentinels name.

        Raises `BackendUnavailable` if too few answer.
        """
        enough = len(self.clients) // 2 + 1
        found: list[tuple[int, Address]] = []
        failures: dict[str, RedisError | OSError] = {}
        for client in list(self._order):
            try:
                state: Any = client.sentinel_master(self.name)
                seen = int(state["config-epoch"]), (str(state["ip"]), int(state["port"]))
                found.append(seen)
            except (RedisError, OSError) as error:
                failures[where(client)] = error
                with self._lock:
                    self._order.remove(client)  # to be asked last
                    self._order.append(client)
            if len(found) == enough:
                return max(found)[1]
        if not found:  # perhaps they can't be used at all
            for name, failure in failures.items():
                if isinstance(told := meaning(failure, name), Unfit):
                    raise told from failure
        msg = (
            f"{len(found)} of {len(self.clients)} sentinels name a primary {self.name!r}, {enough}"
            f" are needed ({'; '.join(f'{name}: {said}' for name, said in failures.items())})"
        )
        raise Lost(f"Redis Sentinel: {msg}")

    def close(self) -> None:
        for client in self.clients:
            client.close()


class Primary:
    """`Topology` and `Place` of a primary behind sentinels. Callable from any thread."""

    kind: Kind = "sentinel"

    def __init__(self, sentinels: Sentinels, model: redis.Redis, *, owned: bool = True) -> None:
        self.sentinels = sentinels
        self._model = model
        """How servers are connected to."""
        self._owned = owned
        """Whether the sentinels' clients are ours to close."""
        self._greet = model.connection_pool.connection_kwargs.get("redis_connect_func")
        self._known: dict[Address, Server] = {}
        self._server: Server | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        server = self._server
        return f"{self.sentinels.name} ({server.name if server else self.sentinels.where})"

    def place(self, prefix: bytes) -> Place:  # noqa: ARG002  it has them all
        return self

    def servers(self) -> Sequence[Server]:
        return (self.server(),)

    def server(self) -> Server:
        """See `distjob_redis.topology.Place.server`."""
        return self._server or self._find()

    def doubt(self, server: Server) -> None:
        """See `distjob_redis.topology.Place.doubt`."""
        if self._server is server:
            self._server = None

    def confirm(self) -> None:
        """Ask the sentinels. Raises `BackendUnavailable` if too few of them answer."""
        self._find()

    def watchers(self) -> Sequence[tuple[Server, bytes]]:
        """All sentinels. A primary that was replaced while it works is not told for seconds."""
        return [(Server(client), b"+switch-master") for client in self.sentinels.clients]

    def ask(self, *command: Any, change: bool = False) -> Any:
        """See `Server.ask`."""
        return self._with(lambda server: server.ask(*command, change=change))

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Server.ask_all`."""
        return self._with(lambda server: server.ask_all(commands))

    def run(self, script: str, digest: str, *arguments: Any) -> Any:
        """See `Server.run`."""
        return self._with(lambda server: server.run(script, digest, *arguments))

    def ask_each(
        self, asked: Sequence[tuple[Place, tuple[Any, ...]]], *, change: bool = False
    ) -> list[Any]:
        """See `distjob_redis.topology.Topology.ask_each`."""
        commands = [command for _, command in asked]
        return self._with(lambda server: each_of(server, commands, change=change))

    def close(self) -> None:
        for server in self._known.values():
            server.close()
            server.client.close()
        if self._owned:
            self._model.close()
            self.sentinels.close()

    def _with(self, call: Callable[[Server], T]) -> T:
        server = self.server()
        try:
            return call(server)
        except Lost:
            self.doubt(server)
            raise

    def _find(self) -> Server:
        at = self.sentinels.primary()
        with self._lock:
            if at not in self._known:
                self._known[at] = Server(sibling(self._model, *at, on_connect=self._connected))
            server = self._known[at]
            if self._server is not None and self._server is not server:
                # What is kept at hand must not answer should this one be primary again.
                self._server.close()
                self._server.client.connection_pool.disconnect(inuse_connections=False)
            self._server = server
            return server

    def _connected(self, connection: Any) -> None:
        """Log in, then make sure of the server: it may have come back as what it is no more."""
        if self._greet is None:
            connection.on_connect()
        else:
            self._greet(connection)
        try:
            at = self.sentinels.primary()
        except BackendUnavailable as error:
            raise NotPrimary(str(error)) from error
        if at != (connection.host, connection.port):
            msg = f"the sentinels name {at[0]}:{at[1]} as the primary by now"
            raise NotPrimary(msg)
        connection.send_command("INFO", "replication")
        told = connection.read_response()
        facts = told if isinstance(told, bytes) else str(told).encode()
        if b"role:master" not in facts:
            msg = "the sentinels name it as the primary, but it is a replica (yet, or again)"
            raise NotPrimary(msg)


def of_client(client: redis.Redis) -> Primary:
    """The primary that a client made by `redis.sentinel.Sentinel.master_for` leads to."""
    pool: Any = client.connection_pool
    if not pool.is_master:
        msg = "the client was made by slave_for: replicas are behind, use master_for"
        raise ConfigError(msg)
    sentinels = Sentinels(pool.sentinel_manager.sentinels, pool.service_name)
    return Primary(sentinels, client, owned=False)


def where(client: redis.Redis) -> str:
    """The address of a client, for messages."""
    facts = client.connection_pool.connection_kwargs
    return f"{facts.get('host')}:{facts.get('port')}"
