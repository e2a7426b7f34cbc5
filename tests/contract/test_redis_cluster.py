"""The Redis store, against the contract, on a cluster: one shard, the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from distjob.store import Store
from distjob.testing.contract import Connect, StoreContract
from distjob_redis import RedisSettings
from distjob_redis.client.cluster import Slot
from distjob_redis.settings import ClusterSettings
from on_redis import opened_in, source_of
from servers import RedisCluster, wait_for

KINDS = (
    "get",
    "set",
    "mget",
    "pttl",
    "pexpire",
    "evalsha",
    "eval",
    "scan",
    "exists",
    "cluster|slots",
)


class TestRedisCluster(StoreContract):
    @pytest.fixture
    def client(self, redis_cluster: RedisCluster) -> Iterator[redis.RedisCluster]:
        node = redis_cluster.nodes[0]
        with redis.RedisCluster(host=node.host, port=node.port) as client:
            yield client

    @pytest.fixture
    def hosts(self, redis_cluster: RedisCluster) -> list[str]:
        return [f"{node.host}:{node.port}" for node in redis_cluster.nodes]

    @pytest.fixture
    def connect(self, hosts: list[str], fresh_namespace: str) -> Iterator[Connect]:
        settings = RedisSettings(cluster=ClusterSettings(hosts=tuple(hosts)), timeout=5.0)
        with ExitStack() as closing:

            def connect() -> Store:
                store = opened_in("threads", settings, fresh_namespace)
                closing.callback(store.close)
                return store

            yield connect

    @pytest.fixture
    def settings(self, hosts: list[str], fresh_namespace: str) -> Mapping[str, Any]:
        section = {"cluster": {"hosts": hosts}}
        return {"namespace": fresh_namespace, "backend": "redis", "redis": section}

    @pytest.fixture
    def restart(self, redis_cluster: RedisCluster) -> Callable[[], None]:
        for node in redis_cluster.nodes:  # `durable` is claimed then; until the restart
            node.ask("CONFIG", "SET", "appendfsync", "always")

        def restart() -> None:
            for node in redis_cluster.nodes:
                node.kill()
            for node in redis_cluster.nodes:
                node.start()
            redis_cluster.heal()

        return restart

    @pytest.fixture
    def lose(self, client: redis.RedisCluster) -> Callable[[], None]:
        def lose() -> None:
            client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)

        return lose

    @pytest.fixture
    def fail_over(self, redis_cluster: RedisCluster, connect: Connect) -> Callable[[], None]:
        def fail_over() -> None:
            place = source_of(connect()).place
            assert isinstance(place, Slot)
            old = redis_cluster.owner(place.slot)
            old.kill()

            def others() -> bool:
                primaries = redis_cluster.primaries()
                return old not in primaries and len(primaries) == 3

            wait_for(others, "another primary")

        return fail_over

    @pytest.fixture
    def entries(self, client: redis.RedisCluster, fresh_namespace: str) -> Callable[[], int]:
        pattern = f"distjob:{{{fresh_namespace}*"

        def entries() -> int:
            return sum(1 for _ in client.scan_iter(pattern, count=1000))

        return entries

    @pytest.fixture
    def asked(self, redis_cluster: RedisCluster) -> Callable[[], int]:
        def asked() -> int:
            calls = 0
            for node in redis_cluster.nodes:
                with redis.Redis(host=node.host, port=node.port) as client:
                    stats: Any = client.info("commandstats")
                calls += sum(stats.get(f"cmdstat_{kind}", {"calls": 0})["calls"] for kind in KINDS)
            return calls

        return asked


class TestRedisClusterWithOneShard(TestRedisCluster):
    """All of the namespace in one slot: its versions rise over all VMs."""

    @pytest.fixture
    def connect(self, hosts: list[str], fresh_namespace: str) -> Iterator[Connect]:
        cluster = ClusterSettings(hosts=tuple(hosts), shards=1)
        with ExitStack() as closing:

            def connect() -> Store:
                settings = RedisSettings(cluster=cluster, timeout=5.0)
                store = opened_in("threads", settings, fresh_namespace)
                closing.callback(store.close)
                return store

            yield connect

    @pytest.fixture
    def settings(self, hosts: list[str], fresh_namespace: str) -> Mapping[str, Any]:
        section = {"cluster": {"hosts": hosts, "shards": 1}}
        return {"namespace": fresh_namespace, "backend": "redis", "redis": section}


class TestRedisClusterOnAsyncio(TestRedisCluster):
    @pytest.fixture
    def connect(self, hosts: list[str], fresh_namespace: str) -> Iterator[Connect]:
        settings = RedisSettings(cluster=ClusterSettings(hosts=tuple(hosts)), timeout=5.0)
        with ExitStack() as closing:

            def connect() -> Store:
                store = opened_in("asyncio", settings, fresh_namespace)
                closing.callback(store.close)
                return store

            yield connect
