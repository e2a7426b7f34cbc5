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

import redis.asyncio
from redis.crc import key_slot
from redis.exceptions import RedisError

from distjob.errors import BackendUnavailable, ConfigError, DistjobError
from distjob_redis.answers import Asked, Lost, Moved, ScriptUnknown, Unfit
from distjob_redis.clients import Model, model_of, model_of_nodes, sibling
from distjob_redis.links import Address, World
from distjob_redis.server import Server
from distjob_redis.topology import Kind, Place

T = TypeVar("T")
REDIRECTIONS = 5
"""So often one command may be sent on; two are usual while a slot moves."""


class Cluster:
    """`Topology` of a cluster. Callable from any thread, or task."""

    kind: Kind = "cluster"

    def __init__(
        self,
        seeds: Sequence[Address],
        model: Model,
        world: World,
        *,
        remap: Callable[[str, int], Address] = lambda host, port: (host, port),
    ) -> None:
        self.world = world
        self._seeds = tuple(seeds)
        self._model = model
        self._remap = remap
        self._known: dict[Address, Server] = {}
        self._owners: dict[int, Server] = {}
        self._suspects: set[Server] = set()
        self._doubtful = True
        self._asked = 0
        """How often the map has been learnt."""
        self._tries = 0
        self._failure: DistjobError | None = None
        """Why the last try to learn it was in vain."""
        self._closed = False
        self._lock = world.lock()
        self.name = "cluster of " + ", ".join(f"{host}:{port}" for host, port in seeds)

    def place(self, prefix: bytes) -> Place:
        return Slot(self, key_slot(prefix))

    async def servers(self) -> Sequence[Server]:
        """The primaries that have a slot."""
        if self._doubtful:
            await self._refresh(self._asked)
        return tuple(dict.fromkeys(self._owners.values()))

    async def confirm(self) -> None:
        """A node that was replaced says so itself, or stops answering."""

    def watchers(self) -> Sequence[tuple[Server, bytes]]:
        return ()

    async def owner(self, slot: int) -> Server:
        """The node that has ``slot``. Raises `BackendUnavailable`."""
        if self._doubtful or slot not in self._owners:
            await self._refresh(self._asked)
        try:
            return self._owners[slot]
        except KeyError:
            msg = f"Redis {self.name}: no node has slot {slot}; see redis-cli --cluster check"
            raise BackendUnavailable(msg) from None

    def doubt(self, server: Server) -> None:
        """``server`` did not answer: ask who has its slots before the next command."""
        self._suspects.add(server)
        self._doubtful = True

    async def moved(self, slot: int, server: Server, to: Moved) -> None:
        """``server`` says that ``slot`` is another's: ask that one for the map."""
        there = self.at(server, to)
        await self._refresh(self._asked, first=there)
        if self._owners.get(slot) is server:  # the new owner has not heard of it yet
            self._owners[slot] = there

    def at(self, server: Server, to: Moved) -> Server:
        """The server that a redirection by ``server`` names."""
        return self._server(self._remap(to.host or server.host, to.port))

    async def ask_each(
        self, asked: Sequence[tuple[Place, tuple[Any, ...]]], *, change: bool = False
    ) -> list[Any]:
        """See `distjob_redis.topology.Topology.ask_each`: one round trip for each node."""
        nodes: dict[Server, list[int]] = {}
        for number, (place, _) in enumerate(asked):
            nodes.setdefault(await place.server(), []).append(number)
        replies: dict[int, Any] = {}
        for server, numbers in nodes.items():
            try:
                commands = [asked[number][1] for number in numbers]
                told = await server.ask_each(commands, change=change)
            except Lost:
                self.doubt(server)
                raise
            replies |= zip(numbers, told, strict=True)
        for number, reply in replies.items():
            place, command = asked[number]
            if isinstance(reply, Moved):  # and Asked: the place knows how to follow
                replies[number] = await place.ask(*command, change=change)
            elif isinstance(reply, DistjobError):
                if isinstance(reply, Lost):
                    self.doubt(await place.server())
                raise reply
        return [replies[number] for number in range(len(asked))]

    async def close(self) -> None:
        self._closed = True
        async with AsyncExitStack() as closing:
            for server in self._known.values():
                closing.push_async_callback(server.close)

    def _server(self, at: Address) -> Server:
        if known := self._known.get(at):
            return known
        if self._closed:
            msg = f"Redis {self.name}: the store was closed"
            raise BackendUnavailable(msg)
        client = sibling(self._model, *at, self.world)
        return self._known.setdefault(at, self.world.server(client, owned=True))

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
            except DistjobError as error:
                self._failure = error
                raise
            finally:
                self._tries += 1

    async def _ask_around(self, first: Server | None) -> None:
        """Learn the map from the first that answers; those that did not are asked last."""
        usual = [*dict.fromkeys(self._owners.values()), *map(self._server, self._seeds)]
        order = dict.fromkeys([first, *usual] if first else usual)
        errors: list[DistjobError] = []
        for server in sorted(order, key=lambda one: one in self._suspects):
            try:
                await self._learn(server)
            except BackendUnavailable as error:
                self._suspects.add(server)
                errors.append(error)
            else:
                self._suspects.discard(server)
                self._doubtful = False
                self._asked += 1
                return
        raise next((error for error in errors if isinstance(error, Unfit)), errors[0])

    async def _learn(self, server: Server) -> None:
        """Take over the map as ``server`` has it."""
        owners: dict[int, Server] = {}
        for begin, end, primary, *_ in await server.ask("CLUSTER", "SLOTS"):
            told = primary[0].decode() if primary[0] else ""
            at = self._remap(server.host if told in ("", "?") else told, int(primary[1]))
            owners |= dict.fromkeys(range(begin, end + 1), self._server(at))
        if not owners:
            msg = f"Redis at {server.name} is in a cluster without slots: create the cluster first"
            raise Unfit(msg)
        self._owners = owners


class Slot:
    """`Place` of the keys of one slot."""

    def __init__(self, cluster: Cluster, slot: int) -> None:
        self._cluster = cluster
        self._slot = slot

    async def server(self) -> Server:
        """See `distjob_redis.topology.Place.server`."""
        return await self._cluster.owner(self._slot)

    def doubt(self, server: Server) -> None:
        """See `distjob_redis.topology.Place.doubt`."""
        self._cluster.doubt(server)

    async def ask(self, *command: Any, change: bool = False) -> Any:
        """See `Server.ask`."""

        async def call(server: Server, *, asking: bool) -> Any:
            return await _ask(server, command, change=change, asking=asking)

        return await self._sent_on(call)

    async def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Server.ask_all`."""
        return await self._cluster.ask_each([(self, command) for command in commands])

    async def run(self, script: str, digest: str, *arguments: Any) -> Any:
        """See `Server.run`."""

        async def call(server: Server, *, asking: bool) -> Any:
            try:
                known = ("EVALSHA", digest, *arguments)
                return await _ask(server, known, change=True, asking=asking)
            except ScriptUnknown:
                whole = ("EVAL", script, *arguments)
                return await _ask(server, whole, change=True, asking=asking)

        return await self._sent_on(call)

    async def _sent_on(self, call: Callable[..., Coroutine[Any, Any, T]]) -> T:
        """Make ``call`` on the node that has the slot, and where that one redirects it to."""
        asked: Server | None = None
        for _ in range(REDIRECTIONS):
            server = asked or await self.server()
            try:
                return await call(server, asking=asked is not None)
            except Asked as to:
                asked = self._cluster.at(server, to)
            except Moved as to:
                asked = None
                await self._cluster.moved(self._slot, server, to)
            except Lost:
                self._cluster.doubt(server)
                raise
        msg = f"Redis {self._cluster.name}: slot {self._slot} is sent from node to node"
        raise BackendUnavailable(msg)


async def _ask(server: Server, command: tuple[Any, ...], *, change: bool, asking: bool) -> Any:
    if not asking:
        return await server.ask(*command, change=change)
    reply = (await server.ask_each((("ASKING",), command), change=change))[1]
    if isinstance(reply, DistjobError):
        raise reply
    return reply


def of_client(client: redis.RedisCluster | redis.asyncio.RedisCluster, world: World) -> Cluster:
    """The cluster that a client of the user's is configured for."""
    told: Any = client
    if told.read_from_replicas or told.load_balancing_strategy:
        msg = "the RedisCluster client reads from replicas, which are behind: make it without"
        raise ConfigError(msg)
    manager = told.nodes_manager
    try:
        named = {
            (node.host, int(node.port)): node
            for node in (*told.get_nodes(), *manager.startup_nodes.values())
        }
        seeds = list(named)
        if isinstance(client, redis.RedisCluster):
            node = manager.create_redis_node(*seeds[0], **manager.connection_kwargs)
            model = model_of(node, world.driver)._replace(greet=told.user_on_connect_func)
        else:
            model = model_of_nodes(client, world.driver)
    except (RedisError, OSError, IndexError) as error:
        msg = f"the RedisCluster client knows no node: {error}"
        raise BackendUnavailable(msg) from error
    return Cluster(seeds, model, world, remap=manager.remap_host_port)
