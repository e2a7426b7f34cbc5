"""The Redis store, against the contract, on a primary with replicas and sentinels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from redis.sentinel import Sentinel

from distjob.store import Store
from distjob.testing.contract import Connect, StoreContract
from distjob_redis import RedisSettings
from distjob_redis.settings import SentinelSettings
from on_redis import TTL, opened_in
from servers import RedisSentinel, wait_for

if TYPE_CHECKING:
    import redis


class TestRedisSentinel(StoreContract):
    @pytest.fixture
    def client(self, redis_sentinel: RedisSentinel) -> Iterator[redis.Redis]:
        with (
            Sentinel(redis_sentinel.sentinels, socket_timeout=2.0) as sentinel,
            sentinel.master_for(redis_sentinel.name) as client,
        ):
            yield client

    @pytest.fixture
    def section(self, redis_sentinel: RedisSentinel) -> dict[str, Any]:
        hosts = [f"{host}:{port}" for host, port in redis_sentinel.sentinels]
        return {"timeout": 5.0, "sentinel": {"hosts": hosts, "name": redis_sentinel.name}}

    @pytest.fixture
    def chosen(self, section: dict[str, Any]) -> RedisSettings:
        sentinel = SentinelSettings(
            hosts=tuple(section["sentinel"]["hosts"]), name=section["sentinel"]["name"]
        )
        return RedisSettings(sentinel=sentinel, timeout=section["timeout"])

    @pytest.fixture
    def connect(self, chosen: RedisSettings, fresh_namespace: str) -> Iterator[Connect]:
        with ExitStack() as closing:

            def connect() -> Store:
                store = opened_in("threads", chosen, fresh_namespace)
                closing.callback(store.close)
                return store

            yield connect

    @pytest.fixture
    def settings(self, section: dict[str, Any], fresh_namespace: str) -> Mapping[str, Any]:
        common = {"namespace": fresh_namespace, "session": {"ttl": TTL}}
        return {**common, "backend": "redis", "redis": section}

    @pytest.fixture
    def restart(self, redis_sentinel: RedisSentinel) -> Callable[[], None]:
        for node in redis_sentinel.redises:  # `durable` is claimed then; until the restart
            node.ask("CONFIG", "SET", "appendfsync", "always")

        def restart() -> None:
            for node in redis_sentinel.redises:
                node.kill()
            for node in redis_sentinel.redises:
                node.start()
            redis_sentinel.heal()

        return restart

    @pytest.fixture
    def lose(self, client: redis.Redis) -> Callable[[], None]:
        def lose() -> None:
            client.flushall()

        return lose

    @pytest.fixture
    def fail_over(self, redis_sentinel: RedisSentinel) -> Callable[[], None]:
        def fail_over() -> None:
            old = redis_sentinel.primary()
            old.kill()
            wait_for(lambda: redis_sentinel.primary() is not old, "another primary")

        return fail_over

    @pytest.fixture
    def entries(self, client: redis.Redis, fresh_namespace: str) -> Callable[[], int]:
        def entries() -> int:
            pattern = f"distjob:{{{fresh_namespace}}}:*"
            return sum(1 for _ in client.scan_iter(pattern, count=1000))

        return entries

    @pytest.fixture
    def asked(self, client: redis.Redis) -> Callable[[], int]:
        """EVALSHA, GET and the like; sentinels and replicas ask the primary of their own."""

        def asked() -> int:
            return commands(client)

        return asked


class TestRedisSentinelOnAsyncio(TestRedisSentinel):
    @pytest.fixture
    def connect(self, chosen: RedisSettings, fresh_namespace: str) -> Iterator[Connect]:
        with ExitStack() as closing:

            def connect() -> Store:
                store = opened_in("asyncio", chosen, fresh_namespace)
                closing.callback(store.close)
                return store

            yield connect


def commands(client: redis.Redis) -> int:
    """How many commands of the kinds that a store sends the server has had."""
    stats: Any = client.info("commandstats")
    kinds = ("get", "set", "mget", "pttl", "pexpire", "evalsha", "eval", "scan", "exists")
    return sum(stats.get(f"cmdstat_{kind}", {"calls": 0})["calls"] for kind in kinds)
