"""What the tests of Redis's bad days have in common: a proxy before it, and stores of either world.

A test that asks for `connect` is run in threads and on asyncio, where each call is a task.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from distjob.store import Store
from distjob_redis import RedisSettings
from on_redis import SECRET, TTL, URL_SECRET, WORLDS, Connect, opened_in
from proxy import Proxy
from servers import DEPLOY, RedisServer


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        yield client


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """Leads to the tests' own server."""
    with Proxy((redis_server.host, redis_server.port)) as proxy:
        yield proxy


@pytest.fixture
def connect(redis_server: RedisServer, fresh_namespace: str, world: str) -> Iterator[Connect]:
    """Opens a store on the tests' own server, or by another URL."""
    with contextlib.ExitStack() as closing:

        def connect(
            url: str = redis_server.url,
            ttl: float = TTL,
            timeout: float = 5.0,
            kind: type[RedisSettings] = RedisSettings,
            **more: Any,
        ) -> Store:
            section = kind(url=url, timeout=timeout, **more)
            store = opened_in(world, section, fresh_namespace, ttl)
            closing.callback(store.close)
            return store

        yield connect


@pytest.fixture
def through(proxy: Proxy, connect: Connect) -> Store:
    """A store behind the proxy."""
    return connect(f"redis://{proxy.address}/0")


@pytest.fixture
def configured(admin: redis.Redis) -> Iterator[Callable[..., None]]:
    """Change the server's configuration, for one test."""
    before: dict[str, str] = {}

    def configured(**settings: str | int) -> None:
        for name, value in settings.items():
            key = name.replace("_", "-")
            before.setdefault(key, str(admin.config_get(key)[key]))
            admin.config_set(key, value)

    yield configured
    for key, value in reversed(before.items()):
        admin.config_set(key, value)


@pytest.fixture
def user(admin: redis.Redis) -> Iterator[str]:
    """An ACL user with just what deploy/redis/users.acl grants; as the URL's beginning."""
    acl: Callable[..., object] = admin.execute_command
    words = (DEPLOY / "users.acl").read_text(encoding="utf-8").split()
    rules = [word for word in words[2:] if not word.startswith(">")]
    acl("ACL", "SETUSER", "distjob", "reset", "on", f">{SECRET}", *rules)
    yield f"distjob:{URL_SECRET}@"
    acl("ACL", "DELUSER", "distjob")
