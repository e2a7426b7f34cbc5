"""distjob on Redis or Valkey, 6.2 or later: ``pip install distjob-vm[redis]``.

One server, a primary behind sentinels, or a cluster.

    settings.py      the keys of the ``redis`` section; url.py: ``redis.url``, taken apart
    guarantees.py    what each of the three promises, as data
    store.py         the blocking store; aio.py: the one on asyncio
    verbs.py         the verbs of `distjob.store.AsyncStore`, and of `Store`: written once
    commit.lua       the one script: compare, set, wake
    keys.py          the keys and their layout
    sessions.py      sessions, in one shard or in several; mail.py: what they were sent
    connecting.py    what is checked and agreed on at connect
    topology.py      where keys are: one server; sentinel.py, cluster.py: the others
    server.py        one server: how it is asked; clients.py: how it is connected to
    answers.py       what redis-py's errors mean
    subscription.py  a client's channels on one server, and noticing that they were cut
    ears.py          all of them at once
    links.py         what all that stands on, which blocks or awaits:
    blocking.py        a server, a subscription's connection, and how one waits, in threads
    pipeline.py        a server on asyncio, whose tasks share round trips
    hearing.py         a subscription's connection, and how one waits, on asyncio
    wire.py            a connection on asyncio; packing.py: what is sent there
    examine.py       what ``distjob doctor`` says of the servers

Held as long as the servers keep their word: a Redis that is restarted without append-only file, or
a replica that takes over, may have forgotten writes that were acknowledged, and with them who
holds what. Versions (tokens) go on rising even then, so that a guard at the resource still
decides; across a fail-over, as long as the new primary's clock is not behind the old one's by
longer than that took.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distjob.sections import check_timeout
from distjob.store import AsyncStore, Backend, Finding, Store
from distjob_redis.guarantees import PROMISES
from distjob_redis.settings import ClusterSettings, RedisSettings, SentinelSettings

__all__ = ["ClusterSettings", "RedisSettings", "SentinelSettings", "backend"]


def _connect(settings: RedisSettings, namespace: str, ttl: float) -> Store:
    from distjob_redis.store import connect  # redis-py is an extra

    return connect(settings, namespace, ttl)


async def _connect_async(settings: RedisSettings, namespace: str, ttl: float) -> AsyncStore:
    from distjob_redis.aio import connect

    return await connect(settings, namespace, ttl)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_redis.examine import examine

    return examine(store.topology)


def _check(settings: RedisSettings, ttl: float) -> None:
    check_timeout(settings.timeout, ttl)


backend = Backend(
    settings=RedisSettings,
    check=_check,
    connect=_connect,
    connect_async=_connect_async,
    extra="redis",
    promises=PROMISES,
    examine=_examine,
    urls=dict.fromkeys(("redis", "rediss", "unix"), lambda url: {"url": url}),
)
