"""What the Redis store's own tests share: opening one by its section, and looking inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pytest
import redis

from distjob.backend.opened import Blocking, opened
from distjob.backend.tasks import Tasks
from distjob.backend.threads import Threads
from distjob.backend.world import now
from distjob.config import backends
from distjob.errors import BackendUnavailable
from distjob.store import AsyncStore, Committed, Store
from distjob.testing.onloop import OnLoop
from distjob_redis import RedisSettings, backend
from distjob_redis.source import RedisSource
from servers import RedisServer, wait_for

TTL = 10.0
SECRET = "s3cret-p@ss"
URL_SECRET = "s3cret-p%40ss"
WORLDS = ("threads", "asyncio")
Connect = Callable[..., Store]


def connected(section: RedisSettings, namespace: str, ttl: float = TTL) -> Blocking:
    """A blocking store, by the section that a settings file would have."""
    return cast("Blocking", backends.connect("redis", section, namespace, ttl))


async def connected_async(section: RedisSettings, namespace: str, ttl: float = TTL) -> AsyncStore:
    """The same for the event loop that runs."""
    return await backends.connect_async("redis", section, namespace, ttl)


def opened_in(world: str, section: RedisSettings, namespace: str, ttl: float = TTL) -> Store:
    """A store that blocks; or one on asyncio, in a loop of its own."""
    if world == "asyncio":
        return OnLoop(partial(connected_async, section, namespace, ttl))
    return connected(section, namespace, ttl)


def opened_shard(
    world: str, section: RedisSettings, namespace: str, shard: int, ttl: float = TTL
) -> Store:
    """The same of one shard of a cluster."""
    assert backend.source is not None
    source = backend.source

    async def on_loop() -> AsyncStore:
        tasks = Tasks()
        return await opened(source(section, namespace, ttl, tasks, shard), tasks, ttl)

    if world == "asyncio":
        return OnLoop(on_loop)
    threads = Threads()
    return Blocking(now(opened(source(section, namespace, ttl, threads, shard), threads, ttl)))


def source_of(store: Any) -> RedisSource:
    """What is behind a store, of whatever world."""
    inner = getattr(store, "verbs", None) or getattr(store, "store", store)
    source = inner.source
    assert isinstance(source, RedisSource)
    return source


def failed(verb: Callable[[], object]) -> BackendUnavailable:
    """What ``verb`` raises."""
    with pytest.raises(BackendUnavailable) as caught:
        verb()
    return caught.value


def commit_waking(store: Store, session: str, value: bytes = b"woken") -> int:
    """Write ``value`` to "vm" and wake ``session``; the new version."""
    reply = store.commit("vm", store.read("vm").version, value, session, (session,))
    assert isinstance(reply, Committed)
    return reply.version


@contextmanager
def asking(node: RedisServer) -> Iterator[redis.Redis]:
    """A client of the tests' own."""
    with redis.Redis(host=node.host, port=node.port, protocol=2) as client:
        yield client


def in_step(node: RedisServer) -> None:
    """Wait until the replica has all, so that a fail-over loses nothing."""

    def equal() -> bool:
        with asking(node) as client:
            facts: Any = client.info("replication")
        return bool(facts["slave0"]["offset"] == facts["master_repl_offset"])

    wait_for(equal, "a replica in step")


def assert_secret(error: BaseException, settings: RedisSettings | None = None) -> None:
    """The password is in no error, nor in the repr of the settings."""
    told = [repr(settings)] if settings else []
    cause: BaseException | None = error
    while cause is not None:
        told += [str(cause), repr(cause)]
        cause = cause.__cause__
    for secret in (SECRET, URL_SECRET):
        assert not [text for text in told if secret in text]
