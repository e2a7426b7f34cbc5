"""distjob on ZooKeeper, 3.5 or later: ``pip install distjob-vm[zookeeper]``.

    settings.py    the keys of the ``zookeeper`` section; the recipe of a program's own clients
    guarantees.py  what is promised, by topology, as data, and what the servers must grant for it
    source.py      the verbs: values and commits; begin here
    sessions.py    sessions of ours: opened, renewed, settled, ended
    witness.py     sessions of others: how long they live yet, and their end if they are dead
    layout.py      the nodes, and how values, versions and wake-ups are written
    beats.py       since when a session was not renewed, so that it may be ended
    feed.py        what the servers tell: wake-ups, ends of sessions, beats
    connecting.py  what all controllers agree on, and a rehearsal
    faults.py      what errors mean
    doctor.py      what an operator should know of the servers
    client/        a kazoo client that does not lie

Held as long as a majority of the servers keeps its disks: what was acknowledged is never lost.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from distjob.backend.sections import Mistake, check_timeout, url_parts
from distjob.store import Backend, Finding
from distjob_zookeeper.guarantees import PROMISES
from distjob_zookeeper.settings import ZookeeperRecipe, ZookeeperSettings

if TYPE_CHECKING:
    from distjob.backend.source import Source
    from distjob.backend.world import World

__all__ = ["ZookeeperRecipe", "ZookeeperSettings", "backend"]


def _source(
    settings: ZookeeperSettings, namespace: str, ttl: float, world: World, _shard: int
) -> Coroutine[Any, Any, Source]:
    from distjob_zookeeper.source import connected  # kazoo is an extra

    return connected(settings, namespace, ttl, world)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_zookeeper.doctor import examine

    return examine(store.verbs.source)


def _section(url: str) -> Mapping[str, str]:
    right = "zookeeper://host1,host2,host3/chroot, with :port where it is not 2181"
    parts = url_parts(url, right)
    if not parts.hosts:
        raise Mistake("", f"must be {right}")
    return {"hosts": ",".join(parts.hosts) + parts.path.rstrip("/"), **parts.login}


backend = Backend(
    settings=ZookeeperSettings,
    check=lambda settings, ttl: check_timeout(settings.timeout, ttl),
    source=_source,
    extra="zookeeper",
    promises=PROMISES,
    examine=_examine,
    urls={"zookeeper": _section},
)
