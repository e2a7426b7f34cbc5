"""The verbs of `distjob.store.AsyncStore` on ZooKeeper, of both worlds; see `layout`.

Puts together what the other files decide: requests and answers (verbs), the connection, sessions
(keeping), wake-ups (post). Whether awaiting blocks is the link's: see `distjob.both`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from distjob.errors import BackendUnavailable
from distjob.store import Event, Gone, Guarantees, Reply, Versioned
from distjob_zookeeper import idle, setup, verbs
from distjob_zookeeper.commit import Commit
from distjob_zookeeper.connection import Connection
from distjob_zookeeper.guarantees import MARGIN
from distjob_zookeeper.keeping import Keeping
from distjob_zookeeper.layout import Layout, decoded, unpacked
from distjob_zookeeper.links import Changes, Link
from distjob_zookeeper.post import Post
from distjob_zookeeper.seen import Memory
from distjob_zookeeper.sessions import Watchdog
from distjob_zookeeper.settings import ZookeeperSettings

if TYPE_CHECKING:
    from kazoo.client import KazooClient


class AsyncZookeeperStore:
    """One client's `AsyncStore` on the ensemble that ``client`` is connected to, once it `begin`s.

    See `distjob_zookeeper.store.ZookeeperStore` for what is passed; ``link`` is the world's.
    """

    def __init__(
        self,
        client: KazooClient,
        namespace: str,
        ttl: float,
        *,
        timeout: float,
        chroot: str,
        link: Link,
    ) -> None:
        self.settings: ZookeeperSettings | None = None
        """Those it was connected by; None with a client of the user's."""
        self.guarantees: Guarantees
        self._memory: Memory
        self._ttl = ttl
        self._layout = Layout(namespace, chroot)
        self._closed = False
        self._pid = os.getpid()
        self._link = link
        self._changed = Changes()
        self._watchdog = Watchdog(self._changed, self._delete)
        self.connection = Connection(client, timeout, self._told, needed=ttl * MARGIN, link=link)
        self._post = Post(self.connection, self._watchdog, self._changed, link)
        self._keeping = Keeping(
            self.connection,
            self._layout,
            ttl,
            secrets.token_hex(16),
            watchdog=self._watchdog,
            post=self._post,
            changed=self._changed,
            link=link,
        )

    async def begin(self) -> None:
        """Have the client connected, and what is needed made. Once, before all else.

        Raises `ConfigError` or `BackendUnavailable`, and has let go of the client then.
        """
        await self._link.aside(self._begin, self._give_up)

    def _begin(self) -> None:
        try:
            setup.begin(self.connection, self._ttl)
            self._memory = Memory(self._keeping.prepare())
        except BaseException:
            self._give_up()
            raise
        self._keeping.memory = self._post.memory = self._memory
        self.guarantees = setup.guarantees(self.connection, self._ttl)

    def _give_up(self) -> None:
        self.connection.close(end=self.connection.client.connected)

    # -- sessions ------------------------------------------------------------------------------

    async def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`.

        A ``ttl`` above the one given at connect holds only while the connection does.
        """
        self._check()
        return await self._keeping.open(ttl, owner)

    async def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`. Only a session of this store can be renewed."""
        self._check()
        return await self._keeping.renew(session)

    async def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        self._check()
        await self._keeping.close(session)

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`."""
        self._check()
        return await self._keeping.remaining(sessions)

    # -- values --------------------------------------------------------------------------------

    async def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        self._check()
        return await self.connection.run(verbs.read(self._layout, self._memory, vm))

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`."""
        self._check()
        if (own := self._keeping.own(author)) is not None and not own.alive():
            return Gone(sessions=frozenset({author}))
        commit = Commit(
            self._layout,
            self._memory,
            vm=vm,
            expected=expected,
            value=value,
            author=author,
            wake=wake,
        )
        return await self.connection.run(commit.steps())

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`."""
        self._check()
        async for node, data, stat in idle.nodes(self.connection, self._layout):
            vm = decoded(node)
            if (value := unpacked(data, vm)) is not None:
                yield vm, Versioned(version=stat.mzxid, value=value)

    async def forget(self, vms: Iterable[str] | None = None) -> int:
        """Delete the empty nodes that VMs without a value have left; of ``vms``, or all.

        Safe at any time, also while jobs begin on these VMs; each client's next commit then takes
        a round trip more. Returns how many were deleted. Raises `BackendUnavailable`.
        """
        self._check()
        return await idle.forget(self.connection, self._layout, vms)

    # -- receiving -----------------------------------------------------------------------------

    async def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        self._check()
        return await self._post.receive(self._keeping.own(session), timeout)

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        if os.getpid() == self._pid:
            self._post.interrupt()

    async def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way raises.

        With a client of our own the servers end what sessions are left; with the user's, this
        process does, each when it was not renewed for its TTL.
        """
        if self._closed:
            return
        self._closed = True
        if os.getpid() != self._pid:
            return
        ours = self.connection.sockets is not None
        with self._changed:
            left = bool(self._watchdog.sessions)
            if ours:
                self._watchdog.stop()
            lingering = self._watchdog.finish(self._let_go) and not ours
            self._post.close()

        def let_go() -> None:
            self.connection.close(end=not left)

        if ours:
            await self._link.aside(let_go, let_go)
        elif not lingering:
            let_go()

    def _let_go(self) -> None:  # in the watchdog's thread
        if self._closed and self.connection.sockets is None:
            self.connection.close(end=False)

    # -- inside --------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)
        self.connection.check_process()

    def _delete(self, path: str) -> None:  # in the watchdog's thread
        self.connection.run_here(verbs.delete(path))

    def _told(self, lost: bool) -> None:  # in kazoo's thread
        self._keeping.told(lost)
