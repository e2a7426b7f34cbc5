"""distjob on an etcd cluster, 3.4 or later: ``pip install distjob-vm[etcd]``.

    settings.py    the keys of the ``etcd`` section
    guarantees.py  what is promised
    store.py       `EtcdStore`, the blocking store, and its connecting
    aio.py         the store on asyncio: its connecting, `open_store`, and the links that await
    blocking.py    the links that block
    links.py       what a link is: all that waits, and nothing else
    verbs.py       the verbs of `distjob.store.AsyncStore`, on links of either kind
    greeting.py    what is checked of a cluster, and learnt of it, at connect
    layout.py      keys, and what is asked of etcd for each verb; pure
    server.py      members, fail-over, tokens: one request, one answer
    members.py     channels of our own, or of a client that the user has
    failures.py    what gRPC's and etcd's errors mean
    watches.py     what is watched, what answers mean, coming back without loss; pure
    watching.py    the one watch stream of a store: kept open, listened to, looked after
    examine.py     what an operator should know of the cluster
    rpc.proto      the messages, with etcd's numbers; rpc_pb2.py is made from it

A commit is one transaction, a session a lease with a key, a version etcd's revision. Held as long
as a majority of the members keeps its disks. A cluster that is restored from a snapshot has
forgotten what came later, and versions (tokens) fall with it, unless it is restored with
``etcdutl snapshot restore --bump-revision``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distjob.sections import check_timeout
from distjob.store import AsyncStore, Backend, Finding, Store
from distjob_etcd.guarantees import CLUSTER, SINGLE
from distjob_etcd.settings import EtcdSettings

__all__ = ["EtcdSettings", "backend"]


def _connect(settings: EtcdSettings, namespace: str, ttl: float) -> Store:
    from distjob_etcd.store import connect  # grpcio is an extra

    return connect(settings, namespace, ttl)


async def _connect_async(settings: EtcdSettings, namespace: str, ttl: float) -> AsyncStore:
    from distjob_etcd.aio import connect  # grpcio is an extra

    return await connect(settings, namespace, ttl)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_etcd.examine import examine

    return examine(store)


def _check(settings: EtcdSettings, ttl: float) -> None:
    check_timeout(settings.timeout, ttl)


backend = Backend(
    settings=EtcdSettings,
    check=_check,
    connect=_connect,
    connect_async=_connect_async,
    extra="etcd",
    promises={"single": SINGLE, "cluster": CLUSTER},
    examine=_examine,
)
