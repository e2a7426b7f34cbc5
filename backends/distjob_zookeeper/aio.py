"""The store on asyncio: `distjob.store.AsyncStore`, for the tasks of one event loop.

    client = KazooClient(hosts="zk1,zk2,zk3", timeout=15.0)
    client.start()
    store = await open_store(client, "default", 10.0)

kazoo keeps its few threads, which serve all tasks; none is made for a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob_zookeeper import setup
from distjob_zookeeper.asyncstore import AsyncZookeeperStore
from distjob_zookeeper.loop import Loop
from distjob_zookeeper.settings import ZookeeperSettings

if TYPE_CHECKING:
    from kazoo.client import KazooClient


async def connect(settings: ZookeeperSettings, namespace: str, ttl: float) -> AsyncZookeeperStore:
    """A store with a client of its own; see `distjob.store.Backend.connect_async`."""
    client, chroot = setup.client_for(settings, ttl)
    store = await open_store(client, namespace, ttl, timeout=settings.timeout, chroot=chroot)
    store.settings = settings
    return store


async def open_store(
    client: KazooClient,
    namespace: str,
    ttl: float,
    *,
    timeout: float = 2.0,
    chroot: str = "",
) -> AsyncZookeeperStore:
    """As `distjob_zookeeper.store.ZookeeperStore`, in the loop that the store is to be used in."""
    store = AsyncZookeeperStore(client, namespace, ttl, timeout=timeout, chroot=chroot, link=Loop())
    await store.begin()
    return store
