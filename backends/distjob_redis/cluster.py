"""A Redis Cluster: which node has a slot, and how a command gets there.

redis-py's own cluster client sends a command again after a lost reply. So this one asks the nodes
for the map of slots itself, sends each command once, and follows redirections only, which say that
nothing was done. A node that does not answer makes the map doubtful: it is asked for anew, of the
other nodes, before the next command. Knows no layout of keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from redis.crc import key_slot
from redis.exceptions import RedisError

from distjob.errors import BackendUnavailable, ConfigError, DistjobError
from distjob_redis.answers import Asked, Lost, Moved, ScriptUnknown, Unfit
from distjob_redis.clients import sibling
from distjob_redis.server import Server
from distjob_redis.topology import Kind, Place

if TYPE_CHECKING:
    import redis

T = TypeVar("T")
Address = tuple[str, int]
REDIRECTIONS = 5
"""So often one command may be sent on; two are usual while a slot moves."""


class Cluster:
    """`Topology` of a cluster. Callable from any thread."""

    kind: Kind = "cluster"

    def __init__(
        self,
        seeds: Sequence[Address],
        model: redis.Redis,
        *,
        remap: Callable[[str, int], Address] = lambda host, port: (host, port),
        owned: bool = True,
    ) -> None:
        self._seeds = tuple(seeds)
        self._model = model
        self._owned = owned
        """Whether the model is ours to close."""
        self._remap = remap
        self._greet = model.connection_pool.connection_kwargs.get("redis_connect_func")
        self._known: dict[Address, Server] = {}
        self._owners: dict[int, Server] = {}
        self._suspects: set[Server] = set()
        self._doubtful = True
        self._asked = 0
        self._lock = threading.Lock()
        self.name = "cluster of " + ", ".join(f"{host}:{port}" for host, port in seeds)

    def place(self, prefix: bytes) -> Place:
        return Slot(self, key_slot(prefix))

    def servers(self) -> Sequence[Server]:
        """The primaries that have a slot."""
        if self._doubtful:
            self._refresh(self._asked)
        return tuple(dict.fromkeys(self._owners.values()))

    def confirm(self) -> None:
        """A node that was replaced says so itself, or stops answering."""

    def watchers(self) -> Sequence[tuple[Server, bytes]]:
        return ()

    def owner(self, slot: int) -> Server:
        """The node that has ``slot``. Raises `BackendUnavailable`."""
        if self._doubtful or slot not in self._owners:
            self._refresh(self._asked)
        try:
            return self._owners[slot]
        except KeyError:
            msg = f"Redis {self.name}: no node has slot {slot}; see redis-cli --cluster check"
            raise BackendUnavailable(msg) from None

    def doubt(self, server: Server) -> None:
        """``server`` did not answer: ask who has its slots before the next command."""
        self._suspects.add(server)
        self._doubtful = True

    def moved(self, slot: int, server: Server, to: Moved) -> None:
        """``server`` says that ``slot`` is another's: ask that one for the map."""
        there = self.at(server, to)
        self._refresh(self._asked, first=there)
        if self._owners.get(slot) is server:  # the new owner has not heard of it yet
            self._owners[slot] = there

    def at(self, server: Server, to: Moved) -> Server:
        """The server that a redirection by ``server`` names."""
        host = to.host or server.client.connection_pool.connection_kwargs["host"]
        return self._server(self._remap(host, to.port))

    def ask_each(
        self, asked: Sequence[tuple[Place, tuple[Any, ...]]], *, change: bool = False
    ) -> list[Any]:
        """See `distjob_redis.topology.Topology.ask_each`: one round trip for each node."""
        nodes: dict[Server, list[int]] = {}
        for number, (place, _) in enumerate(asked):
            nodes.setdefault(place.server(), []).append(number)
        replies: dict[int, Any] = {}
        for server, numbers in nodes.items():
            try:
                told = server.ask_each([asked[number][1] for number in numbers], change=change)
            except Lost:
                self.doubt(server)
                raise
            replies |= zip(numbers, told, strict=True)
        for number, reply in replies.items():
            place, command = asked[number]
            if isinstance(reply, Moved):  # and Asked: the place knows how to follow
                replies[number] = place.ask(*command, change=change)
            elif isinstance(reply, DistjobError):
                if isinstance(reply, Lost):
                    self.doubt(place.server())
                raise reply
        return [replies[number] for number in range(len(asked))]

    def close(self) -> None:
        for server in tuple(self._known.values()):
            server.close()
            server.client.close()
        if self._owned:
            self._model.close()

    def _server(self, at: Address) -> Server:
        if at not in self._known:
            client = sibling(self._model, *at, on_connect=self._greet)
            self._known.setdefault(at, Server(client))
        return self._known[at]

    def _refresh(self, seen: int, first: Server | None = None) -> None:
        """Ask for the map of slots, unless another thread has since ``seen``."""
        with self._lock:
            if self._asked != seen:
                return
            usual = [*dict.fromkeys(self._owners.values()), *map(self._server, self._seeds)]
            order = dict.fromkeys([first, *usual] if first else usual)
            errors: list[DistjobError] = []
            for server in sorted(order, key=lambda one: one in self._suspects):
                try:
                    self._learn(server)
                except BackendUnavailable as error:
                    self._suspects.add(server)
                    errors.append(error)
                else:
                    self._suspects.discard(server)
                    self._doubtful = False
                    self._asked += 1
                    return
            raise next((error for error in errors if isinstance(error, Unfit)), errors[0])

    def _learn(self, server: Server) -> None:
        """Take over the map as ``server`` has it."""
        own = server.client.connection_pool.connection_kwargs["host"]
        owners: dict[int, Server] = {}
        for begin, end, primary, *_ in server.ask("CLUSTER", "SLOTS"):
            told = primary[0].decode() if primary[0] else ""
            at = self._remap(own if told in ("", "?") else told, int(primary[1]))
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

    @property
    def name(self) -> str:
        """The node that has it, for messages."""
        return self._cluster.owner(self._slot).name

    def server(self) -> Server:
        """See `distjob_redis.topology.Place.server`."""
        return self._cluster.owner(self._slot)

    def doubt(self, server: Server) -> None:
        """See `distjob_redis.topology.Place.doubt`."""
        self._cluster.doubt(server)

    def ask(self, *command: Any, change: bool = False) -> Any:
        """See `Server.ask`."""

        def call(server: Server, *, asking: bool) -> Any:
            return _ask(server, command, change=change, asking=asking)

        return self._sent_on(call)

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Server.ask_all`."""
        return self._cluster.ask_each([(self, command) for command in commands])

    def run(self, script: str, digest: str, *arguments: Any) -> Any:
        """See `Server.run`."""

        def call(server: Server, *, asking: bool) -> Any:
            try:
                return _ask(server, ("EVALSHA", digest, *arguments), change=True, asking=asking)
            except ScriptUnknown:
                return _ask(server, ("EVAL", script, *arguments), change=True, asking=asking)

        return self._sent_on(call)

    def _sent_on(self, call: Callable[..., T]) -> T:
        """Make ``call`` on the node that has the slot, and where that one redirects it to."""
        asked: Server | None = None
        for _ in range(REDIRECTIONS):
            server = asked or self.server()
            try:
                return call(server, asking=asked is not None)
            except Asked as to:
                asked = self._cluster.at(server, to)
            except Moved as to:
                asked = None
                self._cluster.moved(self._slot, server, to)
            except Lost:
                self._cluster.doubt(server)
                raise
        msg = f"Redis {self._cluster.name}: slot {self._slot} is sent from node to node"
        raise BackendUnavailable(msg)


def _ask(server: Server, command: tuple[Any, ...], *, change: bool, asking: bool) -> Any:
    if not asking:
        return server.ask(*command, change=change)
    reply = server.ask_each((("ASKING",), command), change=change)[1]
    if isinstance(reply, DistjobError):
        raise reply
    return reply


def of_client(client: redis.RedisCluster) -> Cluster:
    """The cluster that a client of the user's is configured for; it is asked for its nodes."""
    told: Any = client
    if told.read_from_replicas or told.load_balancing_strategy:
        msg = "the RedisCluster client reads from replicas, which are behind: make it without"
        raise ConfigError(msg)
    try:
        nodes = [(node.host, int(node.port)) for node in told.get_nodes()]
        manager = told.nodes_manager
        model = manager.create_redis_node(*nodes[0], **manager.connection_kwargs)
    except (RedisError, OSError, IndexError) as error:
        msg = f"the RedisCluster client knows no node: {error}"
        raise BackendUnavailable(msg) from error
    model.connection_pool.connection_kwargs["redis_connect_func"] = told.user_on_connect_func
    return Cluster(nodes, model, remap=manager.remap_host_port, owned=True)
