"""distjob on ZooKeeper, 3.5 or later: ``pip install distjob-vm[zookeeper]``.

    settings.py    the keys of the ``zookeeper`` section
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

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from distjob.backend.sections import Mistake, check_timeout, url_parts
from distjob.errors import ConfigError
from distjob.store import AsyncStore, Backend, Finding, Store
from distjob_zookeeper.guarantees import PROMISES
from distjob_zookeeper.settings import ZookeeperSettings

if TYPE_CHECKING:
    from distjob.backend.source import Source
    from distjob.backend.world import World

__all__ = ["ZookeeperSettings", "backend", "connect", "connect_async"]


def connect(
    settings: ZookeeperSettings, namespace: str, ttl: float, *, make: Callable[..., Any]
) -> Store:
    """A blocking store by a client of the user's making, for `distjob.Client`.

    ``make`` is called with the keyword arguments of `kazoo.client.KazooClient`, as the settings
    give them, and returns such a client, not started, with what else it needs: credentials of
    another kind, a proxy, TLS of its own. It is called again when a session was lost: a new client
    each time. ``ttl``: seconds, of the sessions to come.

    Raises `BackendUnavailable`, `ConfigError`.
    """
    from distjob.backend.opened import Blocking, opened
    from distjob.backend.threads import Threads
    from distjob.backend.world import now

    source, world = _recipe(settings, ttl, make), Threads()
    return Blocking(now(opened(source(settings, namespace, ttl, world, 0), world, ttl)))


async def connect_async(
    settings: ZookeeperSettings, namespace: str, ttl: float, *, make: Callable[..., Any]
) -> AsyncStore:
    """As `connect`, for the event loop that runs, and `distjob.aio.AsyncClient`."""
    from distjob.backend.opened import opened
    from distjob.backend.tasks import Tasks

    source, world = _recipe(settings, ttl, make), Tasks()
    return await opened(source(settings, namespace, ttl, world, 0), world, ttl)


def _recipe(settings: ZookeeperSettings, ttl: float, make: Callable[..., Any]) -> Any:
    """`_source` with that recipe, for settings that go with the TTL."""
    try:
        _check(settings, ttl)
    except Mistake as mistake:
        raise ConfigError(f"zookeeper.{mistake}") from mistake
    return partial(_source, make=make)


def _source(
    settings: ZookeeperSettings,
    namespace: str,
    ttl: float,
    world: World,
    _shard: int,
    *,
    make: Callable[..., Any] | None = None,
) -> Coroutine[Any, Any, Source]:
    from distjob_zookeeper.source import connect  # kazoo is an extra

    return connect(settings, namespace, ttl, world, make)


def _check(settings: ZookeeperSettings, ttl: float) -> None:
    check_timeout(settings.timeout, ttl)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_zookeeper.doctor import examine

    return examine(store.verbs.source.settings)


def _section(url: str) -> Mapping[str, str]:
    right = "zookeeper://host1,host2,host3/chroot, with :port where it is not 2181"
    parts = url_parts(url, right)
    if not parts.hosts:
        raise Mistake("", f"must be {right}")
    return {"hosts": ",".join(parts.hosts) + parts.path.rstrip("/"), **parts.login}


backend = Backend(
    settings=ZookeeperSettings,
    check=_check,
    source=_source,
    extra="zookeeper",
    promises=PROMISES,
    examine=_examine,
    urls={"zookeeper": _section},
)
