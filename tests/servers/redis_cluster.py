"""A Redis Cluster, three primaries with a replica each: the fixture `redis_cluster`.

A node is given up after `NODE_TIMEOUT` seconds, so that a failover takes three or four.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from distjob import clock
from servers.containers import composed
from servers.node import Group, running, wait_for
from servers.plan import Plan, lacking
from servers.redis_one import FSYNC, PERSISTENT, RedisServer, redis_plan, redis_process

NODE_TIMEOUT = 2.0
GIVEN_UP = 7.0
"""Seconds; after five a replica gives up an orderly failover, as where its primary is busy."""


@dataclass(frozen=True)
class Member:
    """A line of CLUSTER NODES."""

    id: str
    address: str
    flags: frozenset[str]
    primary_id: str
    connected: bool
    slots: tuple[str, ...]

    @property
    def leads(self) -> bool:
        """Whether it is a primary, and well."""
        return "master" in self.flags and not self.flags & {"fail", "fail?"}


class RedisCluster(Group):
    """Six nodes, each a `RedisServer`."""

    def __init__(self, nodes: list[RedisServer]) -> None:
        self.nodes: list[RedisServer] = nodes

    @property
    def startup(self) -> list[tuple[str, int]]:
        """Where the nodes are."""
        return [(node.host, node.port) for node in self.nodes]

    def primaries(self) -> list[RedisServer]:
        """The nodes that have slots and are well, by the view of one that answers."""
        return [self._at(one.address) for one in self._view() if one.leads and one.slots]

    def owner(self, slot: int) -> RedisServer:
        """The primary that has ``slot``; waits while there is none."""
        found: list[str] = []

        def look() -> bool:
            view = [one for one in self._view() if one.leads]
            found[:] = [one.address for one in view if any(_holds(s, slot) for s in one.slots)]
            return bool(found)

        wait_for(look, f"a primary of slot {slot}")
        return self._at(found[0])

    def replica_of(self, primary: RedisServer) -> RedisServer:
        """A replica of ``primary``."""
        view = self._view()
        wanted = next(one.id for one in view if one.address == primary.address)
        found = (one for one in view if one.primary_id == wanted and "fail" not in one.flags)
        return self._at(next(found).address)

    def fail_over(self, primary: RedisServer | None = None) -> RedisServer:
        """Have ``primary``, default the first, and its replica change places, in good order.

        Returns the new primary when every node knows.
        """
        old = primary or self.primaries()[0]
        new = self.replica_of(old)
        due = 0.0

        def changed() -> bool:
            nonlocal due
            if clock.monotonic() >= due and not self._sees(new, new, old):
                new.cli("cluster", "failover")
                due = clock.monotonic() + GIVEN_UP
            return all(self._sees(node, new, old) for node in self.nodes)

        wait_for(changed, f"{new.address} in the place of {old.address}")
        new.touched = True
        return new

    def wait_until_ready(self) -> None:
        """Return when all nodes are up, see each other, and each primary has a replica in step."""
        for node in self.nodes:
            node.wait_until_ready()
        wait_for(lambda: all(map(self._content, self.nodes)), "a healthy Redis Cluster")

    def _content(self, node: RedisServer) -> bool:
        view = members(node)
        well = all(one.connected and not one.flags & {"fail", "fail?", "handshake"} for one in view)
        if len(view) != len(self.nodes) or not well:
            return False
        if "cluster_state:ok" not in node.ask("CLUSTER", "INFO"):
            return False
        followed = {one.primary_id for one in view}
        if any(one.id not in followed for one in view if one.slots):
            return False
        told = node.ask("INFO", "replication")
        return "role:master" in told or "master_link_status:up" in told

    def _sees(self, node: RedisServer, new: RedisServer, old: RedisServer) -> bool:
        leads = {one.address: one.leads and bool(one.slots) for one in members(node)}
        return leads.get(new.address, False) and not leads.get(old.address, True)

    def _view(self) -> list[Member]:
        return next(view for view in map(members, self.nodes) if view)

    def _at(self, address: str) -> RedisServer:
        return next(node for node in self.nodes if node.address == address)


def members(node: RedisServer) -> list[Member]:
    """CLUSTER NODES as ``node`` tells it; empty if it does not."""
    found = []
    for line in node.ask("CLUSTER", "NODES").splitlines():
        words = line.split()
        if len(words) >= 8:
            name, address, flags, primary = words[:4]
            spans = tuple(span for span in words[8:] if not span.startswith("["))
            kinds = frozenset(flags.split(","))
            where = address.partition("@")[0]
            found.append(Member(name, where, kinds, primary, words[7] == "connected", spans))
    return found


def _holds(span: str, slot: int) -> bool:
    first, _, last = span.partition("-")
    return int(first) <= slot <= int(last or first)


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Six nodes, shared by all tests of the run; after each they are healthy again.

    Who is primary of which slots stays as the last test left it.
    """
    found = redis_plan()
    with ExitStack() as stack:
        if found.way == "docker":
            settings = {
                "DISTJOB_REDIS_IMAGE": found.what,
                "DISTJOB_REDIS_NODE_TIMEOUT_MS": f"{NODE_TIMEOUT * 1000:.0f}",
                **FSYNC,
            }
            up = composed("redis/cluster.compose.yaml", settings, net="DISTJOB_REDIS_NET")
            there = stack.enter_context(up)
            machines = [there[f"node{i}"] for i in range(1, 7)]
            cluster = RedisCluster([RedisServer(one, 6379, one.address) for one in machines])
        else:
            cluster = RedisCluster(_processes(found, tmp_path_factory, stack))
        cluster.wait_until_ready()
        yield stack.enter_context(running("redis_cluster", cluster))


def _processes(found: Plan, folders: pytest.TempPathFactory, stack: ExitStack) -> list[RedisServer]:
    flags = [
        *PERSISTENT,
        *("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"),
        *("--cluster-node-timeout", f"{NODE_TIMEOUT * 1000:.0f}"),
        *("--repl-diskless-sync-delay", "0"),
    ]
    nodes = []
    for i in range(1, 7):
        node = redis_process(found, folders.mktemp(f"node{i}"), *flags)
        stack.callback(node.kill)
        nodes.append(node)
    for node in nodes:
        node.wait_until_ready()
    _join(nodes)
    return nodes


def _join(nodes: list[RedisServer]) -> None:
    """What redis-cli --cluster create does; the Python packages have no redis-cli."""
    size = 16384 // 3
    for i, node in enumerate(nodes[:3]):
        last = 16383 if i == 2 else (i + 1) * size - 1
        node.ask("CLUSTER", "ADDSLOTSRANGE", str(i * size), str(last))
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(i + 1))
    for node in nodes[1:]:
        nodes[0].ask("CLUSTER", "MEET", node.host, str(node.port))
    wait_for(lambda: all(len(members(node)) == 6 for node in nodes), "nodes that know each other")
    for primary, replica in zip(nodes[:3], nodes[3:], strict=True):
        known = next(one.id for one in members(replica) if one.address == primary.address)
        reply = replica.ask("CLUSTER", "REPLICATE", known)
        if not reply.startswith("+OK"):
            lacking(f"no Redis Cluster: {reply}")
