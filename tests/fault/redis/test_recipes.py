"""Clients that a program makes itself, by `RedisRecipe`: IAM, TLS of its own; what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from redis.credentials import CredentialProvider

import distjob.aio
from distjob import Job
from distjob.config import Settings
from distjob.errors import BackendUnavailable, ConfigError
from distjob.store import ABSENT, Committed, Missed, Store, Woken
from distjob_redis import ClusterSettings, RedisRecipe, SentinelSettings
from on_redis import SECRET, TTL, Connect, assert_secret, commit_waking, failed, opened_in
from proxy import Proxy
from servers import RedisCluster, RedisSentinel, RedisServer

if TYPE_CHECKING:
    import redis


class Recipe:
    """Makes clients, and remembers of what and whereto."""

    def __init__(self, **more: Any) -> None:
        self.made: list[tuple[str, str]] = []
        self._more = more

    def __call__(self, module: Any, options: dict[str, Any]) -> Any:
        self.made.append((module.__name__, f"{options['host']}:{options['port']}"))
        return module.Redis(**options | self._more)


class Tokens(CredentialProvider):
    """As a cloud's: a user, and a password that is had anew for each connection."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0

    def get_credentials(self) -> tuple[str, str]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return "distjob", SECRET


def test_clients_are_made_by_the_recipe(
    connect: Connect, redis_server: RedisServer, world: str
) -> None:
    recipe = Recipe()
    store = connect(kind=RedisRecipe, make=recipe)
    version = commit_waking(store, store.open_session(TTL, "me"))
    assert version
    module = "redis.asyncio" if world == "asyncio" else "redis"
    assert recipe.made == [(module, redis_server.address)]


def test_of_sentinels_and_a_primary(
    redis_sentinel: RedisSentinel, fresh_namespace: str, world: str
) -> None:
    recipe = Recipe()
    hosts = tuple(f"{host}:{port}" for host, port in redis_sentinel.sentinels)
    section = RedisRecipe(
        sentinel=SentinelSettings(hosts=hosts, name=redis_sentinel.name), make=recipe
    )
    exercise(opened_in(world, section, fresh_namespace))
    assert {place for _, place in recipe.made} == {*hosts, redis_sentinel.primary().address}


def test_of_the_nodes_of_a_cluster(
    redis_cluster: RedisCluster, fresh_namespace: str, world: str
) -> None:
    recipe = Recipe()
    hosts = tuple(node.address for node in redis_cluster.primaries())
    section = RedisRecipe(cluster=ClusterSettings(hosts=hosts[:1]), make=recipe)
    exercise(opened_in(world, section, fresh_namespace))
    assert {place for _, place in recipe.made} == set(hosts)


def exercise(store: Store) -> None:
    me = store.open_session(TTL, "me")
    reply = store.commit("vm", ABSENT, b"x", me, (me,))
    assert isinstance(reply, Committed)
    assert list(store.receive(me, 5.0)) == [Woken("vm", reply.version, b"x")]
    assert store.keep_alive(me)
    store.close()


def test_credentials_of_a_provider(
    connect: Connect, user: str, proxy: Proxy, admin: redis.Redis
) -> None:
    """Each connection has its own; that they can't be had is an error that says so."""
    assert user
    tokens = Tokens()
    store = connect(
        f"redis://{proxy.address}/0", kind=RedisRecipe, make=Recipe(credential_provider=tokens)
    )
    me = store.open_session(TTL, "me")
    users = {one["user"] for one in admin.client_list() if one["name"] != "x"}
    assert "distjob" in users
    asked = tokens.asked
    assert asked >= 2  # commands, and messages
    tokens.error = RuntimeError("token service: 503")
    proxy.cut()
    error = failed(lambda: store.read("vm"))
    assert "RuntimeError: token service: 503" in str(error)
    assert_secret(error)
    failed(lambda: store.receive(me, 5.0))
    tokens.error = None
    commit_waking(store, me)
    assert Missed() in store.receive(me, 5.0)
    assert tokens.asked > asked


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _module, _options: None, "a builtins.NoneType"),
        (lambda module, options: module.Redis(**options).connection_pool, "ConnectionPool"),
    ],
)
def test_a_recipe_that_makes_something_else(
    connect: Connect, make: Callable[..., Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"RedisRecipe\.make returned .*{said}"):
        connect(kind=RedisRecipe, make=make)


def test_a_recipe_that_makes_clients_of_the_other_world(connect: Connect, world: str) -> None:
    import redis
    import redis.asyncio

    other = redis if world == "asyncio" else redis.asyncio
    with pytest.raises(ConfigError, match=r"not a client of the module"):
        connect(kind=RedisRecipe, make=lambda _, options: other.Redis(**options | {"retry": None}))


def test_one_connection_too_few(connect: Connect) -> None:
    """One is for commands, one for messages."""
    with pytest.raises(BackendUnavailable):
        connect(kind=RedisRecipe, make=Recipe(max_connections=1))
    store = connect(kind=RedisRecipe, make=Recipe(max_connections=2))
    commit_waking(store, me(store))


def me(store: Store) -> str:
    return store.open_session(TTL, "me")


def test_a_client_that_decodes_is_as_good(connect: Connect) -> None:
    """Its commands are not used, nor how they read replies."""
    store = connect(kind=RedisRecipe, make=Recipe(decode_responses=True))
    session = me(store)
    version = commit_waking(store, session, b"\xff")
    assert list(store.receive(session, 5.0)) == [Woken("vm", version, b"\xff")]
    assert store.read("vm").value == b"\xff"


def test_as_settings_of_a_client(redis_server: RedisServer, fresh_namespace: str) -> None:
    recipe = Recipe()
    section = RedisRecipe(url=redis_server.url, make=recipe)
    settings = Settings(backend="redis", namespace=fresh_namespace, section=section)
    with distjob.connect(settings) as jobs:
        jobs.begin("vm", Job.MODIFY).end()

    async def on_asyncio() -> None:
        async with distjob.aio.connect(settings) as jobs, jobs.begin("vm", Job.MODIFY):
            pass

    asyncio.run(on_asyncio())
    assert {module for module, _ in recipe.made} == {"redis", "redis.asyncio"}
