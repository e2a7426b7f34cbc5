"""distjob on Redis or Valkey, 6.2 or later: ``pip install distjob-vm[redis]``.

One server, a primary behind sentinels, or a cluster. Begin with source.py.

    settings.py url.py  the keys of the ``redis`` section, and the recipe; ``redis.url``
    guarantees.py       what each of the three promises, as data
    source.py           the verbs: `distjob.backend.source.Source`
    layout.py           the keys, and how values, sessions and wake-ups are written; pure
    commit.lua          the script of a commit: compare, set, wake; settle.lua: of a settling
    feed.py             what the servers tell: wake-ups
    connecting.py       what is checked and agreed on at connect, and a rehearsal
    watch.py            clocks that were set, policies that evict, ways that others read
    faults.py           what redis-py's errors mean
    doctor.py           what an operator should know of the servers
    client/             a client that does not lie, for one server, sentinels, a cluster

A source is one server, or one slot of a cluster, with a session of its own: shards fail alone.
Held as long as the servers keep their word: one that crashes without having its writes on disk, or
a replica that takes over, may have forgotten who holds what. Versions (tokens) go on rising even
then, so that a guard at the resource still decides; across a fail-over, as long as the new
primary's clock is not behind the old one's by longer than that took.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from distjob.backend.sections import check_timeout
from distjob.store import Backend, Finding
from distjob_redis.guarantees import PROMISES
from distjob_redis.settings import ClusterSettings, RedisRecipe, RedisSettings, SentinelSettings

if TYPE_CHECKING:
    from distjob.backend.source import Source
    from distjob.backend.world import World

__all__ = ["ClusterSettings", "RedisRecipe", "RedisSettings", "SentinelSettings", "backend"]


def _source(
    settings: RedisSettings, namespace: str, ttl: float, world: World, shard: int
) -> Coroutine[Any, Any, Source]:
    from distjob_redis.connecting import connected  # redis-py is an extra

    return connected(settings, namespace, ttl, world, shard)


def _shards(settings: RedisSettings) -> int:
    return settings.cluster.shards if settings.cluster else 1


def _check(settings: RedisSettings, ttl: float) -> None:
    check_timeout(settings.timeout, ttl)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_redis.doctor import examine

    return examine(store.verbs.source.place, store.verbs.source.ttl)


backend = Backend(
    settings=RedisSettings,
    check=_check,
    source=_source,
    shards=_shards,
    extra="redis",
    promises=PROMISES,
    examine=_examine,
    urls=dict.fromkeys(("redis", "rediss", "unix"), lambda url: {"url": url}),
)
