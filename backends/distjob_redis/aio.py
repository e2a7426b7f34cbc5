"""The store on asyncio: `open_store` with a client of the user's, `connect` with our own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool

from distjob.store import AsyncStore
from distjob_redis.connecting import topology_for, topology_of
from distjob_redis.hearing import TaskBell, TaskTurn
from distjob_redis.links import Driver, Then, World
from distjob_redis.pipeline import AsyncServer
from distjob_redis.settings import SHARDS, RedisSettings
from distjob_redis.verbs import opened


async def connect(settings: RedisSettings, namespace: str, ttl: float) -> AsyncStore:
    """A store with clients of its own; see `distjob.store.Backend.connect_async`."""
    shards = settings.cluster.shards if settings.cluster else 1
    return await opened(topology_for(settings, TASKS), namespace, ttl, shards)


async def open_store(
    client: redis.asyncio.Redis | redis.asyncio.RedisCluster,
    namespace: str,
    ttl: float,
    *,
    shards: int = SHARDS,
) -> AsyncStore:
    """One client's store on the servers that ``client`` is configured for, in this event loop.

    ``client`` may be any that does not decode responses, one made by
    `redis.asyncio.sentinel.Sentinel.master_for` among them; its timeouts, TLS and credentials are
    used, and it is not closed. Of its pool one connection to each server is taken for commands, one
    for messages. ``shards``: of a cluster, among how many hash slots VMs are spread; the same for
    all controllers. Raises `ConfigError` or `BackendUnavailable`.
    """
    return await opened(topology_of(client, TASKS), namespace, ttl, shards)


def _greeting(greet: Callable[[Any], Any] | None, then: Then) -> Callable[[Any], Any]:
    """See `World.greeting`."""

    async def on_connect(connection: Any) -> None:
        told = greet(connection) if greet else connection.on_connect()
        if inspect.isawaitable(told):
            await told

        async def ask(*command: Any) -> Any:
            await connection.send_command(*command)
            return await connection.read_response()

        await then((connection.host, connection.port), ask)

    return on_connect


TASKS = World(
    driver=Driver(
        client=redis.asyncio.Redis,
        cluster=redis.asyncio.RedisCluster,
        sentinel_pool=SentinelConnectionPool,
        pool=redis.asyncio.ConnectionPool,
        connection=redis.asyncio.Connection,
        tls_connection=SSLConnection,
        unix_connection=redis.asyncio.UnixDomainSocketConnection,
        retry=Retry,
    ),
    server=AsyncServer,
    greeting=_greeting,
    lock=asyncio.Lock,
    turn=TaskTurn,
    bell=TaskBell,
)
