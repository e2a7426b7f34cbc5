"""distjob on a Redis or Valkey server, 6.2 or later: ``pip install distjob[redis]``.

    settings.py      the keys of the ``redis`` section
    store.py         the verbs of `distjob.store.Store`; keys and their layout
    commit.lua       the one script: compare, set, wake
    server.py        connections, what redis-py's errors mean, what the server must have
    subscription.py  the one channel of a client, and noticing that it was cut

Held as long as the server keeps its word: a Redis that is restarted without append-only file, or
a replica that takes over, may have forgotten writes it had acknowledged, and with them who holds
what. Versions (tokens) go on rising even then, so that a guard at the resource still decides.
"""

from __future__ import annotations

from distjob.store import Backend, Store
from distjob_redis.settings import RedisSettings

__all__ = ["RedisSettings", "backend"]


def _connect(settings: RedisSettings, namespace: str, ttl: float) -> Store:
    from distjob_redis.store import connect  # redis-py is an extra

    return connect(settings, namespace, ttl)


backend = Backend(settings=RedisSettings, connect=_connect, extra="redis")
