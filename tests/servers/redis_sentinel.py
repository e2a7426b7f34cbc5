"""A Redis primary, a replica and three Sentinels: the fixture `redis_sentinel`.

A primary is given up after `DOWN_AFTER` seconds, so that a failover takes three or four.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from servers.containers import composed
from servers.machine import Process, free_port
from servers.node import Group, running, wait_for
from servers.plan import Plan
from servers.redis_one import FSYNC, PERSISTENT, RedisServer, redis_plan, redis_process

DOWN_AFTER = 2.0
NOBODY = ("", 0)
FAILOVER = 2.0
"""Seconds; after twice that a failover may be tried again."""


class RedisSentinel(Group):
    """``redises``, two, of which one is primary, and ``watchers``, three, who know which."""

    name = "distjob"

    def __init__(self, redises: list[RedisServer], watchers: list[RedisServer]) -> None:
        self.redises = redises
        self.watchers = watchers
        self.nodes = [*redises, *watchers]

    @property
    def sentinels(self) -> list[tuple[str, int]]:
        """Where the Sentinels are."""
        return [(node.host, node.port) for node in self.watchers]

    def primary(self) -> RedisServer:
        """The node that most of the Sentinels take for the primary."""
        wait_for(lambda: self._voted() != NOBODY, "Sentinels that agree")
        return self._at(self._voted())

    def replica(self) -> RedisServer:
        """The node that is not the primary."""
        primary = self.primary()
        return next(node for node in self.redises if node is not primary)

    def fail_over(self) -> RedisServer:
        """Have a Sentinel make the replica the primary, and return it when all know."""
        new = self.replica()

        def ordered() -> bool:
            # Refused while the last one is not over, or the replica not in step.
            return self.watchers[0].ask("SENTINEL", "FAILOVER", self.name).startswith("+OK")

        wait_for(ordered, "a Sentinel that begins a failover")
        wait_for(lambda: self._voted(all_of_them=True) == (new.host, new.port), "the failover")
        wait_for(lambda: _role(new) == "master", f"{new.address} as primary")
        new.touched = True
        return new

    def wait_until_ready(self) -> None:
        """Return when all agree who is primary, and the replica follows it."""
        for node in self.nodes:
            node.wait_until_ready()
        wait_for(lambda: self._voted(all_of_them=True) != NOBODY, "Sentinels that agree")
        primary, replica = self.primary(), self.replica()
        if _role(replica) == "master":
            # One that died as the primary comes back as one; Sentinel would let it be for 8 s.
            replica.ask("REPLICAOF", primary.host, str(primary.port))
        wait_for(lambda: _role(primary) == "master", f"{primary.address} as primary")
        wait_for(lambda: _follows(replica, primary), f"{replica.address} as replica")
        wait_for(self._complete, "Sentinels that know each other and the replica")

    def _voted(self, *, all_of_them: bool = False) -> tuple[str, int]:
        """What most, or all, Sentinels say; `NOBODY` if there is no such."""
        votes = [_primary_by(node, self.name) for node in self.watchers]
        best = max(votes, key=votes.count)
        needed = len(votes) if all_of_them else len(votes) // 2 + 1
        return best if votes.count(best) >= needed else NOBODY

    def _at(self, address: tuple[str, int]) -> RedisServer:
        return next(node for node in self.redises if (node.host, node.port) == address)

    def _complete(self) -> bool:
        for node in self.watchers:
            with _client(node) as client:
                state = _asked(client.sentinel_master, self.name)
                replicas = _asked(client.sentinel_slaves, self.name)
            if not state or state["num-other-sentinels"] != 2 or "down" in str(state["flags"]):
                return False
            if len(replicas) != 1 or replicas[0]["flags"] != "slave":
                return False
        return True


def _client(node: RedisServer) -> redis.Redis:
    return redis.Redis(
        host=node.host, port=node.port, protocol=2, socket_timeout=1.0, decode_responses=True
    )


def _asked(call: Any, *arguments: str) -> Any:
    """Its reply, or None if the server is away or refuses for now."""
    try:
        return call(*arguments)
    except redis.RedisError:
        return None


def _primary_by(node: RedisServer, name: str) -> tuple[str, int]:
    with _client(node) as client:
        found = _asked(client.sentinel_get_master_addr_by_name, name)
    return (str(found[0]), int(found[1])) if found else NOBODY


def _role(node: RedisServer) -> str:
    with _client(node) as client:
        said = _asked(client.role)
    return str(said[0]) if said else ""


def _follows(replica: RedisServer, primary: RedisServer) -> bool:
    with _client(replica) as client:
        said = _asked(client.role)
    return (
        bool(said)
        and said[0] == "slave"
        and said[1:4]
        == [
            primary.host,
            primary.port,
            "connected",
        ]
    )


@pytest.fixture(scope="session")
def redis_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSentinel]:
    """Two and three, shared by all tests of the run; after each they are healthy again."""
    found = redis_plan()
    with ExitStack() as stack:
        if found.way == "docker":
            settings = {
                "DISTJOB_REDIS_IMAGE": found.what,
                "DISTJOB_REDIS_DOWN_AFTER_MS": f"{DOWN_AFTER * 1000:.0f}",
                "DISTJOB_REDIS_FAILOVER_MS": f"{FAILOVER * 1000:.0f}",
                **FSYNC,
            }
            up = composed("redis/sentinel.compose.yaml", settings, net="DISTJOB_REDIS_NET")
            there = stack.enter_context(up)
            redises = [
                RedisServer(there[name], 6379, there[name].address)
                for name in ("primary", "replica")
            ]
            names = [f"sentinel{i}" for i in (1, 2, 3)]
            watchers = [RedisServer(there[name], 26379, there[name].address) for name in names]
        else:
            redises, watchers = _processes(found, tmp_path_factory, stack)
        group = RedisSentinel(redises, watchers)
        group.wait_until_ready()
        yield stack.enter_context(running("redis_sentinel", group))


def _processes(
    found: Plan, folders: pytest.TempPathFactory, stack: ExitStack
) -> tuple[list[RedisServer], list[RedisServer]]:
    primary = _redis(found, folders.mktemp("primary"))
    stack.callback(primary.kill)
    replica = _redis(found, folders.mktemp("replica"), f"replicaof 127.0.0.1 {primary.port}")
    stack.callback(replica.kill)
    watchers = []
    for i in (1, 2, 3):
        folder, port = folders.mktemp(f"sentinel{i}"), free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor distjob 127.0.0.1 {primary.port} 2\n"
            f"sentinel down-after-milliseconds distjob {DOWN_AFTER * 1000:.0f}\n"
            f"sentinel failover-timeout distjob {FAILOVER * 1000:.0f}\n"
        )
        argv = (found.what, str(config), "--sentinel")
        watcher = RedisServer(Process(found.way, argv, folder), port)
        stack.callback(watcher.kill)
        watcher.machine.start()
        watchers.append(watcher)
    return [primary, replica], watchers


def _redis(found: Plan, folder: Path, *lines: str) -> RedisServer:
    """With a file for its settings, where Sentinel can write down who is primary."""
    config = folder / "redis.conf"
    config.write_text("".join(f"{line}\n" for line in ("repl-diskless-sync-delay 0", *lines)))
    return redis_process(found, folder, *PERSISTENT, config=config)
