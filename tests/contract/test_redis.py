"""The Redis store, against the contract, on a real server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import redis.asyncio

from distjob.store import AsyncStore
from distjob.testing.contract import Connect, StoreContract
from distjob.testing.onloop import OnLoop
from distjob_redis import RedisSettings, backend
from distjob_redis.aio import open_store
from distjob_redis.store import RedisStore
from servers import RedisServer

TTL = 10.0


class TestRedis(StoreContract):
    @pytest.fixture
    def admin(self, redis_server: RedisServer) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(redis_server.url, protocol=2) as client:
            yield client

    @pytest.fixture
    def connect(self, redis_server: RedisServer, fresh_namespace: str) -> Iterator[Connect]:
        settings = RedisSettings(url=redis_server.url, timeout=10.0)
        with ExitStack() as closing:

            def connect() -> RedisStore:
                store = backend.connect(settings, fresh_namespace, TTL)
                assert isinstance(store, RedisStore)
                closing.callback(store.close)
                return store

            yield connect

    @pytest.fixture
    def settings(self, redis_server: RedisServer, fresh_namespace: str) -> Mapping[str, Any]:
        url = redis_server.url
        return {"namespace": fresh_namespace, "backend": "redis", "redis": {"url": url}}

    @pytest.fixture
    def restart(self, redis_server: RedisServer) -> Callable[[], None]:
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


class TestRedisWithAClientOfTheUsers(TestRedis):
    """The driver's own defaults: RESP3 or 2, its own timeouts, and commands that are re-sent."""

    @pytest.fixture
    def connect(self, redis_server: RedisServer, fresh_namespace: str) -> Iterator[Connect]:
        with redis.Redis.from_url(redis_server.url) as client, ExitStack() as closing:

            def connect() -> RedisStore:
                store = RedisStore(client, fresh_namespace, TTL)
                closing.callback(store.close)
                return store

            yield connect


class TestRedisOnAsyncio(TestRedis):
    @pytest.fixture
    def connect(self, redis_server: RedisServer, fresh_namespace: str) -> Iterator[Connect]:
        settings = RedisSettings(url=redis_server.url, timeout=10.0)
        with ExitStack() as closing:

            def connect() -> OnLoop:
                assert backend.connect_async is not None
                store = OnLoop(partial(backend.connect_async, settings, fresh_namespace, TTL))
                closing.callback(store.close)
                return store

            yield connect


class TestRedisOnAsyncioWithAClientOfTheUsers(TestRedis):
    @pytest.fixture
    def connect(self, redis_server: RedisServer, fresh_namespace: str) -> Iterator[Connect]:
        with ExitStack() as closing:

            def connect() -> OnLoop:
                client = redis.asyncio.Redis.from_url(redis_server.url)

                async def opened() -> AsyncStore:
                    return await open_store(client, fresh_namespace, TTL)

                store = UsersOnLoop(opened, client)
                closing.callback(store.close)
                return store

            yield connect


class UsersOnLoop(OnLoop):
    """A store on a client of the user's, who closes it after the store, in the same loop."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[AsyncStore]],
        client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
    ) -> None:
        self._client = client
        super().__init__(connect)

    def close(self) -> None:
        if not self._thread.loop.is_closed():
            self._thread.run(self.store.close())
            assert self._thread.run(self._ping())
            self._thread.run(self._client.aclose())
        super().close()

    async def _ping(self) -> bool:
        """The client is open yet."""
        return bool(await self._client.ping())
