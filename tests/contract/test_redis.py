"""The Redis store, against the contract, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from distjob.store import Store
from distjob.testing.contract import Connect, StoreContract
from distjob_redis import RedisSettings, backend
from distjob_redis.store import RedisStore
from servers import RedisServer

TTL = 10.0


class TestRedis(StoreContract):
    @pytest.fixture
    def connect(self, redis_server: RedisServer, fresh_namespace: str) -> Iterator[Connect]:
        settings = RedisSettings(url=redis_server.url, timeout=10.0)
        stores: list[Store] = []

        def connect() -> Store:
            stores.append(backend.connect(settings, fresh_namespace, TTL))
            return stores[-1]

        yield connect
        for store in stores:
            store.close()

    @pytest.fixture
    def restart(self, redis_server: RedisServer) -> Callable[[], None]:
        def restart() -> None:
            redis_server.kill()
            redis_server.start()

        return restart

    @pytest.fixture
    def lose(self, redis_server: RedisServer) -> Callable[[], None]:
        def lose() -> None:
            with redis.Redis.from_url(redis_server.url) as client:
                client.flushall()

        return lose


class TestRedisWithAClientOfTheUsers(TestRedis):
    """The driver's own defaults: RESP3 or 2, its own timeouts, and commands that are re-sent."""

    @pytest.fixture
    def connect(self, redis_server: RedisServer, fresh_namespace: str) -> Iterator[Connect]:
        client = redis.Redis.from_url(redis_server.url)
        stores: list[Store] = []

        def connect() -> Store:
            stores.append(RedisStore(client, fresh_namespace, TTL))
            return stores[-1]

        yield connect
        for store in stores:
            store.close()
        client.close()
