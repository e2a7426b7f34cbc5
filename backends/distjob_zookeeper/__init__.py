"""distjob on ZooKeeper, 3.5 or later: ``pip install distjob-vm[zookeeper]``.

    settings.py    the keys of the ``zookeeper`` section
    guarantees.py  what is promised, by topology, as data
    store.py       `ZookeeperStore`: the blocking `distjob.store.Store`, a shell
    aio.py         `open_store`: the one on asyncio, with a client of the user's or our own
    asyncstore.py  `AsyncZookeeperStore`: the verbs, of both
    links.py       how it is waited, and the link that blocks
    loop.py        the link of asyncio: kazoo's threads wake tasks
    commit.py      the commit
    verbs.py       what the other verbs ask, and make of the answers
    requests.py    what a verb is: batches of requests, in which nothing waits
    layout.py      the nodes, and how values and wake-ups are written in them
    seen.py        versions of nodes that this client knows
    keeping.py     when a session counts as alive; opening, renewing and ending it
    sessions.py    deadlines and mailboxes; the thread that ends sessions in time
    post.py        watches: wake-ups and ends of sessions
    idle.py        walking over VMs' nodes, deleting empty ones
    connection.py  driving verbs over one client of kazoo's, its life, letting go
    failures.py    what kazoo's errors mean
    handler.py     kazoo's sockets and log
    setup.py       connecting: options, limits, what must be there
    examine.py     what an operator should know of the servers
    wire.py        what kazoo does not tell

Held as long as a majority of the servers keeps its disks: what was acknowledged is never lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distjob.sections import check_timeout
from distjob.store import AsyncStore, Backend, Finding, Store
from distjob_zookeeper.guarantees import PROMISES
from distjob_zookeeper.settings import ZookeeperSettings

__all__ = ["ZookeeperSettings", "backend"]


def _connect(settings: ZookeeperSettings, namespace: str, ttl: float) -> Store:
    from distjob_zookeeper.store import connect  # kazoo is an extra

    return connect(settings, namespace, ttl)


async def _connect_async(settings: ZookeeperSettings, namespace: str, ttl: float) -> AsyncStore:
    from distjob_zookeeper.aio import connect

    return await connect(settings, namespace, ttl)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_zookeeper.examine import examine

    if store.settings is None:
        what = "the servers behind a client of yours are not examined"
        return [Finding("warning", what, "connect by settings, as distjob doctor does")]
    return examine(store.settings)


def _check(settings: ZookeeperSettings, ttl: float) -> None:
    check_timeout(settings.timeout, ttl)


backend = Backend(
    settings=ZookeeperSettings,
    check=_check,
    connect=_connect,
    connect_async=_connect_async,
    extra="zookeeper",
    promises=PROMISES,
    examine=_examine,
)
