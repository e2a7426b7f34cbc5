"""The blocking store on Redis: `RedisStore`, the `Verbs` on links that block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.both import Blocking, now
from distjob_redis.blocking import THREADS
from distjob_redis.connecting import topology_for, topology_of
from distjob_redis.settings import SHARDS, RedisSettings
from distjob_redis.topology import Topology
from distjob_redis.verbs import Verbs, opened

if TYPE_CHECKING:
    import redis


def connect(settings: RedisSettings, namespace: str, ttl: float) -> RedisStore:
    """A store with clients of its own; see `distjob.store.Backend.connect`."""
    shards = settings.cluster.shards if settings.cluster else 1
    return RedisStore(topology_for(settings, THREADS), namespace, ttl, shards=shards)


class RedisStore(Blocking):
    """One client's `Store` on the servers that ``client`` is configured for.

    ``client`` may be any blocking `redis.Redis` that does not decode responses, one made by
    `redis.sentinel.Sentinel.master_for` among them, or a `redis.RedisCluster`; its timeouts, TLS
    and credentials are used, and it is not closed. ``shards``: of a cluster, among how many hash
    slots VMs are spread; the same for all controllers. Connects at once: raises `ConfigError` or
    `BackendUnavailable`.
    """

    verbs: Verbs

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster | Topology,
        namespace: str,
        ttl: float,
        *,
        shards: int = SHARDS,
    ) -> None:
        there = topology_of(client, THREADS)
        super().__init__(now(opened(there, namespace, ttl, shards)))

    @property
    def topology(self) -> Topology:
        """The servers, and how they are reached."""
        return self.verbs.topology
