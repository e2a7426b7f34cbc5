"""The Redis store, against the contract, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from distjob.store import Store
from distjob.testing.contract import Connect, StoreContract
from distjob_redis import RedisRecipe, RedisSettings
from on_redis import opened_in
from servers import RedisServer


class TestRedis(StoreContract):
    @pytest.fixture
    def admin(self, redis_server: RedisServer) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(redis_server.url, protocol=2) as client:
            yield client

    @pytest.fixture
    def connect(self, redis_server: RedisServer, fresh_namespace: str) -> Iterator[Connect]:
        settings = RedisSettings(url=redis_server.url, timeout=10.0)
        with ExitStack() as closing:

            def connect() -> Store:
                store = opened_in("threads", settings, fresh_namespace)
                closing.callback(store.close)
                return store

            yield connect

    @pytest.fixture
    def settings(self, redis_server: RedisServer, fresh_namespace: str) -> Mapping[str, Any]:
        url = redis_server.url
        return {"namespace": fresh_namespace, "backend": "redis", "redis": {"url": url}}

    @pytest.fixture
    def restart(self, redis_server: RedisServer, admin: redis.Redis) -> Callable[[], None]:
        admin.config_set("appendfsync", "always")  # `durable` is claimed then; until the restart

        def restart() -> None:
            redis_server.kill()
            redis_server.start()

        return restart

    @pytest.fixture
    def lose(self, admin: redis.Redis) -> Callable[[], None]:
        def lose() -> None:
            admin.flushall()

        return lose

    @pytest.fixture
    def entries(self, admin: redis.Redis, fresh_namespace: str) -> Callable[[], int]:
        def entries() -> int:
            pattern = f"distjob:{{{fresh_namespace}}}:*"
            return sum(1 for _ in admin.scan_iter(pattern, count=1000))

        return entries

    @pytest.fixture
    def asked(self, admin: redis.Redis) -> Callable[[], int]:
        def asked() -> int:
            facts: Any = admin.info("stats")
            return int(facts["total_commands_processed"])

        return asked


class TestRedisOnAsyncio(TestRedis):
    @pytest.fixture
    def connect(self, redis_server: RedisServer, fresh_namespace: str) -> Iterator[Connect]:
        settings = RedisSettings(url=redis_server.url, timeout=10.0)
        with ExitStack() as closing:

            def connect() -> Store:
                store = opened_in("asyncio", settings, fresh_namespace)
                closing.callback(store.close)
                return store

            yield connect


class TestRedisByARecipe(TestRedis):
    """The driver's own defaults: RESP3 where it has it, and commands that it would send again."""

    @pytest.fixture
    def world(self) -> str:
        return "threads"

    @pytest.fixture
    def connect(
        self, redis_server: RedisServer, fresh_namespace: str, world: str
    ) -> Iterator[Connect]:
        def make(module: Any, options: dict[str, Any]) -> Any:
            place = {name: options[name] for name in ("host", "port", "db")}
            return module.Redis(**place, protocol=3)

        settings = RedisRecipe(url=redis_server.url, timeout=10.0, make=make)
        with ExitStack() as closing:

            def connect() -> Store:
                store = opened_in(world, settings, fresh_namespace)
                closing.callback(store.close)
                return store

            yield connect


class TestRedisOnAsyncioByARecipe(TestRedisByARecipe):
    @pytest.fixture
    def world(self) -> str:
        return "asyncio"
