"""Yardsticks on Redis: EVALSHA of a script that does nothing, of the commit script, and a Lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis
from redis.cluster import ClusterNode

from distjob.backend.threads import Threads
from distjob.config import Settings, backends
from distjob.store import Store
from distjob_redis import RedisSettings
from distjob_redis.client.making import Maker
from distjob_redis.layout import COMMIT
from distjob_redis.settings import address


class RedisYard:
    """See `distjob.testing.bench.yardstick.Yardstick`. Without TLS and passwords."""

    def __init__(self, settings: Settings) -> None:
        self._section: RedisSettings = settings.section
        self._namespace = settings.namespace
        self._client: Any = _client(self._section)
        self._nothing_sha = self._client.script_load("return 1")
        self._client.script_load(COMMIT.text)
        prefix = f"distjob:{{{settings.namespace}-bare}}:"
        self._keys = [prefix + "version", prefix + "vm:vm-42", prefix + "session:me"]
        self._client.set(self._keys[2], "1:0:me", ex=3600)
        self._value = b":" + b"x" * 250  # as long as one job is
        self.bare = {
            "two EVALSHA of 'return 1'": self._two_writes,
            "two EVALSHA of the commit script": self._two_commits,
        }
        lock = self._client.lock(f"{prefix}lock", timeout=30)

        def locking() -> None:
            lock.acquire()
            lock.release()

        self.lock = ("redis-py Lock", locking)

    def _two_writes(self) -> None:
        self.one_write()
        self.one_write()

    def _two_commits(self) -> None:
        version = self._client.evalsha(COMMIT.digest, 3, *self._keys, 0, self._value, 1)
        self._client.evalsha(COMMIT.digest, 3, *self._keys, version, b"", 1)

    def one_write(self) -> object:
        """One EVALSHA."""
        return self._client.evalsha(self._nothing_sha, 1, self._keys[0])

    def store(self, ttl: float) -> Store:
        """A store by the same settings."""
        return backends.connect("redis", self._section, self._namespace, ttl)

    def asked(self) -> Mapping[str, int]:
        """Commands by name, of all nodes; the look at them left out."""
        found: dict[str, int] = {}
        for stats in self._on_all("INFO", "commandstats"):
            for name, facts in stats.items():
                word = name.removeprefix("cmdstat_")
                if word not in ("info", "role", "replconf", "cluster|slots"):
                    found[word] = found.get(word, 0) + facts["calls"]
        return found

    def close(self) -> None:
        """Remove the keys of the bench."""
        for key in self._client.scan_iter(f"distjob:{{{self._namespace}*", count=1000):
            self._client.delete(key)
        self._client.close()

    def _on_all(self, *command: str) -> list[dict[str, Any]]:
        if isinstance(self._client, redis.RedisCluster):
            nodes = redis.RedisCluster.PRIMARIES
            everywhere: Any = self._client
            return list(everywhere.execute_command(*command, target_nodes=nodes).values())
        return [self._client.execute_command(*command)]


def _client(section: RedisSettings) -> Any:
    """One that is configured as distjob configures its own."""
    if section.cluster is not None:
        node: Any = ClusterNode
        nodes = [node(*address(host, 6379)) for host in section.cluster.hosts]
        return redis.RedisCluster(startup_nodes=nodes, protocol=2)
    if section.sentinel is not None:
        hosts = [address(host, 26379) for host in section.sentinel.hosts]
        sentinel: Any = redis.Sentinel
        watchers = sentinel(hosts, protocol=2)
        return watchers.master_for(section.sentinel.name, protocol=2)
    return Maker(section, Threads()).single().client
