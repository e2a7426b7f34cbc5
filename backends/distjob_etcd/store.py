"""The blocking `distjob.store.Store` on etcd: the verbs on links that block."""

from __future__ import annotations

from typing import Any

from distjob.both import Blocking, now
from distjob.store import Guarantees
from distjob_etcd.blocking import BlockingLinks
from distjob_etcd.server import Server
from distjob_etcd.settings import EtcdSettings
from distjob_etcd.verbs import Verbs


def connect(settings: EtcdSettings, namespace: str, ttl: float) -> EtcdStore:
    """A store with channels of its own; see `distjob.store.Backend.connect`."""
    return EtcdStore(Server.by(settings, BlockingLinks()), namespace, ttl)


class EtcdStore(Blocking):
    """One client's `Store` on the cluster that ``client`` is connected to.

    ``client`` is a `grpc.Channel`, or a blocking client of python-etcd3 or of one of its forks: its
    channel and its token are used, and it is not closed. ``timeout`` is in seconds, for each
    answer. Connects at once: raises `ConfigError` or `BackendUnavailable`.

    Of no use in a forked child, where neither gRPC's threads nor ours go on: there every verb
    raises, and `close` does nothing. A child that connects anew works.
    """

    guarantees: Guarantees
    verbs: Verbs

    def __init__(self, client: Any, namespace: str, ttl: float, timeout: float = 2.0) -> None:
        server = (
            client if isinstance(client, Server) else Server.of(client, BlockingLinks(), timeout)
        )
        self.server = server
        """For `distjob_etcd.examine`."""
        super().__init__(now(Verbs.connect(server, namespace, ttl)))
