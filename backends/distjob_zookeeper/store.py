"""The blocking store: `distjob.store.Store` on ZooKeeper, in the caller's threads.

A shell: what it does is in `distjob_zookeeper.asyncstore`, on a link that blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from distjob.both import Blocking, now
from distjob_zookeeper import setup
from distjob_zookeeper.asyncstore import AsyncZookeeperStore
from distjob_zookeeper.links import Threads
from distjob_zookeeper.settings import ZookeeperSettings

if TYPE_CHECKING:
    from kazoo.client import KazooClient


def connect(settings: ZookeeperSettings, namespace: str, ttl: float) -> ZookeeperStore:
    """A store with a client of its own; see `distjob.store.Backend.connect`."""
    client, chroot = setup.client_for(settings, ttl)
    store = ZookeeperStore(client, namespace, ttl, timeout=settings.timeout, chroot=chroot)
    store.settings = settings
    return store


class ZookeeperStore(Blocking):
    """One client's `Store` on the ensemble that ``client`` is connected to.

    ``client`` may be any started `kazoo.client.KazooClient` with threads (kazoo's default handler);
    its hosts, chroot, credentials, TLS and default ACL are used. It is neither stopped nor closed,
    and may be shared. Its session timeout must be 1.5 times ``ttl`` at least. ``timeout`` is the
    seconds to wait for each answer, ``chroot`` a path below which all is kept, besides the
    client's own. Raises `ConfigError` or `BackendUnavailable`.
    """

    verbs: AsyncZookeeperStore

    def __init__(
        self,
        client: KazooClient,
        namespace: str,
        ttl: float,
        *,
        timeout: float = 2.0,
        chroot: str = "",
    ) -> None:
        self.settings: ZookeeperSettings | None = None
        """For `distjob_zookeeper.examine`; None with a client of the user's."""
        verbs = AsyncZookeeperStore(
            client, namespace, ttl, timeout=timeout, chroot=chroot, link=Threads()
        )
        now(verbs.begin())
        super().__init__(verbs)
        self._connection = verbs.connection

    def forget(self, vms: Iterable[str] | None = None) -> int:
        """Delete the empty nodes that VMs without a value have left; of ``vms``, or all.

        Safe at any time, also while jobs begin on these VMs; each client's next commit then takes
        a round trip more. Returns how many were deleted. Raises `BackendUnavailable`.
        """
        return now(self.verbs.forget(vms))
