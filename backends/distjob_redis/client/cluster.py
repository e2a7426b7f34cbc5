"""A Redis Cluster: which node has a slot, and how a command gets there.

redis-py's own cluster client sends a command again after a lost reply. So this one asks the nodes
for the map of slots itself, sends each command once, and follows redirections only, which say that
nothing was done. A node that does not answer makes the map doubtful: it is asked for anew, of the
other nodes, before the next command. Knows no layout of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from redis.crc import key_slot

from distjob_redis.client.making import Maker
from distjob_redis.client.server import Command, Line, Place, Server
from distjob_redis.faults import Address, RedisFault, Why
from distjob_redis.settings import ClusterSettings, address

T = TypeVar("T")
REDIRECTIONS = 5
"""So often one command may be sent on; two are usual while a slot moves."""


class Cluster:
    """The nodes, and the map of slots. Callable from any thread, or task."""

    def __init__(self, maker: Maker, settings: ClusterSettings) -> None:
        self._maker = maker
        self._seeds = tuple(address(host, 6379) for host in settings.hosts)
        self._known: dict[Address, Server] = {}
        self._owners: dict[int, Server] = {}
        self._suspects: set[Server] = set()
        self._doubtful = True
        self._asked = 0
        """How often the map has been learnt."""
        self._tries = 0
        self._failure: RedisFault | None = None
        """Why the last try to learn it was in vain."""
        self._closed = False
        self._lock = maker.world.lock()
        self.name = "cluster of " + ", ".join(f"{host}:{port}" for host, port in self._seeds)

    async def servers(self) -> Sequence[Server]:
        """The primaries that have a slot."""
        if self._doubtful:
            await self._refresh(self._asked)
        return tuple(dict.fromkeys(self._owners.values()))

    async def owner(self, slot: int) -> Server:
        """The node that has ``slot``. Raises `RedisFault`."""
        if self._doubtful or slot not in self._owners:
            await self._refresh(self._asked)
        if (found := self._owners.get(slot)) is None:
            msg = f"Redis {self.name}: no node has slot {slot}"
            raise RedisFault(msg, "see redis-cli --cluster check")
        return found

    def known_owner(self, slot: int) -> Server | None:
        """The same, as far as is known."""
        return self._owners.get(slot)

    def doubt(self, server: Server) -> None:
        """``server`` did not answer: ask who has its slots before the next command."""
        self._suspects.add(server)
        self._doubtful = True

    async def moved(self, slot: int, server: Server, to: Address) -> None:
        """``server`` says that ``slot`` is another's: ask that one for the map."""
        there = self.at(server, to)
        await self._refresh(self._asked, first=there)
        if self._owners.get(slot) is server:  # the new owner has not heard of it yet
            self._owners[slot] = there
            self._maker.world.bell.ring()

    def at(self, server: Server, to: Address) -> Server:
        """The server that a redirection by ``server`` names."""
        return self._server((to[0] or server.host, to[1]))

    async def close(self) -> None:
        """Let go of all connections."""
        self._closed = True
        async with AsyncExitStack() as closing:
            for server in self._known.values():
                closing.push_async_callback(server.close)

    def _server(self, at: Address) -> Server:
        if known := self._known.get(at):
            return known
        if self._closed:
            raise RedisFault(f"Redis {self.name}: the store was closed")
        return self._known.setdefault(at, self._maker.data(at))

    async def _refresh(self, seen: int, first: Server | None = None) -> None:
        """Ask for the map of slots, unless another has since ``seen``.

        Those who wait meanwhile share what comes of it, or a crowd would try one by one.
        """
        tries = self._tries
        async with self._lock:
            if self._asked != seen:
                return
            if self._tries != tries and self._failure is not None:
                raise self._failure.with_traceback(None)
            self._failure = None
            try:
                await self._ask_around(first)
            except RedisFault as fault:
                self._failure = fault
                raise
            finally:
                self._tries += 1

    async def _ask_around(self, first: Server | None) -> None:
        """Learn the map from the first that answers; those that did not are asked last."""
        usual = [*dict.fromkeys(self._owners.values()), *map(self._server, self._seeds)]
        order = dict.fromkeys([first, *usual] if first else usual)
        failures: list[RedisFault] = []
        for server in sorted(order, key=lambda one: one in self._suspects):
            try:
                await self._learn(server)
            except RedisFault as fault:
                self._suspects.add(server)
                failures.append(fault)
            else:
                self._suspects.discard(server)
                self._doubtful = False
                self._asked += 1
                return
        raise next((fault for fault in failures if fault.unfit), failures[0])

    async def _learn(self, server: Server) -> None:
        """Take over the map as ``server`` has it."""
        owners: dict[int, Server] = {}
        for begin, end, primary, *_ in await server.ask("CLUSTER", "SLOTS"):
            told = primary[0].decode() if primary[0] else ""
            at = server.host if told in ("", "?") else told, int(primary[1])
            owners |= dict.fromkeys(range(begin, end + 1), self._server(at))
        if not owners:
            msg = f"Redis at {server.name} is in a cluster without slots"
            raise RedisFault(msg, "create the cluster first", unfit=True)
        changed = owners != self._owners
        self._owners = owners
        if changed:
            self._maker.world.bell.ring()  # who listens at the wrong node is to look


class Slot(Place):
    """All keys are in one slot."""

    kind = "cluster"

    def __init__(self, cluster: Cluster, prefix: bytes) -> None:
        """``prefix`` of all keys, which holds what decides of the slot."""
        self.cluster = cluster
        self.name = cluster.name
        self.slot = key_slot(prefix)

    async def ask_each(self, commands: Sequence[Command], *, change: bool = False) -> list[Any]:
        replies = await super().ask_each(commands, change=change)
        for number, reply in enumerate(replies):
            if isinstance(reply, RedisFault) and reply.why in (Why.MOVED, Why.ASK):
                try:
                    replies[number] = await self.ask(*commands[number], change=change)
                except RedisFault as fault:
                    replies[number] = fault
        return replies

    async def server(self) -> Server:
        return await self.cluster.owner(self.slot)

    def holds(self, server: Server) -> bool:
        return self.cluster.known_owner(self.slot) is server

    def doubt(self, server: Server) -> None:
        self.cluster.doubt(server)

    async def servers(self) -> Sequence[Server]:
        return await self.cluster.servers()

    async def close(self) -> None:
        await self.cluster.close()

    async def _on(self, call: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        """On the node that has the slot, or where that one redirects it to."""
        asked: Server | None = None
        for _ in range(REDIRECTIONS):
            server = asked or await self.server()
            try:
                return await call(server)
            except RedisFault as fault:
                if fault.why is Why.ASK:
                    asked = _Asking(self.cluster.at(server, fault.to))
                elif fault.why is Why.MOVED:
                    asked = None
                    await self.cluster.moved(self.slot, server, fault.to)
                else:
                    if fault.why is Why.LOST:
                        self.doubt(server)
                    raise
        raise RedisFault(f"Redis {self.name}: slot {self.slot} is sent from node to node")


class _Asking(Server):
    """A server to which a slot is on its way: each command says that we know."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.client)
        self._server = server

    async def exchange(self, commands: Sequence[Command], *, change: bool) -> list[Any]:
        announced = [one for command in commands for one in (("ASKING",), command)]
        return (await self._server.exchange(announced, change=change))[1::2]

    def line(self, ring: Callable[[], None]) -> Line:
        return self._server.line(ring)

    async def let_go(self) -> None:
        await self._server.let_go()

    async def close(self) -> None:
        await self._server.close()
