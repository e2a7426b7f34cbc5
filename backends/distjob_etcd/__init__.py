"""distjob on an etcd cluster, 3.4 or later: ``pip install distjob-vm[etcd]``.

    settings.py    the keys of the ``etcd`` section; the recipe of a program with its own channels
    guarantees.py  what is promised
    source.py      the verbs, and connecting: `distjob.backend.source.Source`
    feed.py        the one watch stream of a store
    layout.py      keys, and what is asked of etcd for sessions; pure
    commit.py      what is asked of etcd for a commit and a settling; pure
    full.py        what became of a commit that was refused for want of space
    watches.py     what is watched, what answers mean, coming back without loss; pure
    faults.py      what gRPC's and etcd's errors mean
    client/        members, fail-over, tokens: one request, one answer
    doctor.py      what an operator should know of the cluster
    rpc.proto      the messages, with etcd's numbers; rpc_pb2.py is made from it

A commit is one transaction, a session a lease with a key, a version etcd's revision. Held as long
as a majority of the members keeps its disks. A cluster that is restored from a snapshot has
forgotten what came later, and versions (tokens) fall with it, unless it is restored with
``etcdutl snapshot restore --bump-revision``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distjob.backend.sections import Mistake, check_timeout, host_and_port, url_parts
from distjob.backend.source import Source
from distjob.backend.world import World
from distjob.store import Backend, Finding
from distjob_etcd.guarantees import CLUSTER, SINGLE
from distjob_etcd.settings import EtcdRecipe, EtcdSettings

__all__ = ["EtcdRecipe", "EtcdSettings", "backend"]


async def _source(
    settings: EtcdSettings,
    namespace: str,
    ttl: float,
    world: World,
    shard: int,  # noqa: ARG001  there is one
) -> Source:
    from distjob_etcd.source import connected  # grpcio is an extra

    return await connected(settings, namespace, ttl, world)


def _check(settings: EtcdSettings, ttl: float) -> None:
    check_timeout(settings.timeout, ttl)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_etcd.doctor import examine

    return examine(store.verbs.source)


def _section(url: str) -> Mapping[str, Any]:
    right = "etcd://host1,host2,host3, with :port where it is not 2379"
    parts = url_parts(url, right)
    if not parts.hosts or parts.path not in ("", "/"):
        raise Mistake("", f"must be {right}")
    members = [host_and_port(host, 2379, "") for host in parts.hosts]
    names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in members]
    return {"endpoints": names, **parts.login}


backend = Backend(
    settings=EtcdSettings,
    check=_check,
    source=_source,
    extra="etcd",
    promises={"single": SINGLE, "cluster": CLUSTER},
    examine=_examine,
    urls={"etcd": _section},
)
