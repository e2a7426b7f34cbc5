"""When a session counts as alive, how it is opened, renewed and ended: the verbs about sessions.

Of both worlds: whether awaiting blocks is the link's. Knows nothing of values but the memory of
them, which opening a session brings to the current epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_zookeeper import setup, verbs
from distjob_zookeeper.connection import Connection
from distjob_zookeeper.layout import Epoch, Layout, session_id
from distjob_zookeeper.links import Changes, Link
from distjob_zookeeper.post import Post
from distjob_zookeeper.seen import Memory
from distjob_zookeeper.sessions import Session, Watchdog


class Keeping:
    """The sessions of one client, whose TTL is ``ttl`` unless they are opened with another."""

    def __init__(
        self,
        connection: Connection,
        layout: Layout,
        ttl: float,
        name: str,
        *,
        watchdog: Watchdog,
        post: Post,
        changed: Changes,
        link: Link,
    ) -> None:
        self.memory: Memory
        self._connection = connection
        self._layout = layout
        self._ttl = ttl
        self._name = name
        self._watchdog = watchdog
        self._post = post
        self._changed = changed
        self._link = link
        self._numbers = itertools.count(1)

    def own(self, session: str) -> Session | None:
        """One that was opened here, and whose node may exist."""
        with self._changed:
            return self._watchdog.sessions.get(session)

    async def open(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`."""
        if self._connection.given_up() or setup.limits_unknown(self._connection):
            await self._link.aside(self._mend)
        if short := self._connection.too_short():
            msg = f"ZooKeeper at {self._connection.name}: {short}"
            raise BackendUnavailable(msg)
        try:
            return await self._open(ttl, owner)
        except FileNotFoundError:  # all was deleted, or lost, since we connected
            self.memory.enter(await self._link.aside(self.prepare))
            try:
                return await self._open(ttl, owner)
            except FileNotFoundError as error:
                msg = f"ZooKeeper at {self._connection.name}: {error} is deleted by somebody"
                raise BackendUnavailable(msg) from error

    def prepare(self) -> Epoch:
        """Make what nodes are missing. Blocks."""
        return setup.prepare(self._connection, self._layout, self._name)

    def _mend(self) -> None:
        self._connection.revive()
        setup.look_at_limits(self._connection)

    async def _open(self, ttl: float, owner: str) -> str:
        name = session_id(self._name, next(self._numbers), ttl)
        path = self._layout.session(name)
        generation = self._connection.generation
        session = Session(name, path, ttl, monotonic(), generation)
        watch = self._post.watcher(session)
        try:
            made, there, epoch = await self._connection.run(
                verbs.open_session(self._layout, path, owner, watch)
            )
        except BaseException as error:
            # Its node may be there, and would live as long as this process.
            if not isinstance(error, BackendUnavailable) or error.unanswered:
                with self._changed:
                    session.end()
                    self._watchdog.add(session)
            raise
        if isinstance(made, Exception) or epoch is None:
            raise FileNotFoundError(self._layout.sessions)
        self.memory.enter(epoch)
        with self._changed:
            self._watchdog.add(session)
        if isinstance(there, Exception):
            session.end()  # as short as that
        else:
            self._post.arrived(session, there, generation)
        return name

    async def renew(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`."""
        own = self.own(session)
        if own is None or not own.alive():
            return False
        sent, generation = monotonic(), self._connection.generation
        connected_at = self._connection.connected_at
        there = await self._connection.run(verbs.keep_alive(own.path))
        with self._changed:
            if not there:
                own.deleted = True
                own.end()
                self._changed.tell()
            if not own.alive():
                return False
            known_since = own.touch(sent, generation, connected_at)
            spare = self._connection.granted - own.ttl
            if sent - known_since > spare >= 0 and own.ttl <= self._ttl:
                msg = (
                    f"ZooKeeper at {self._connection.name}: nothing was sent for "
                    f"{sent - known_since:.1f} s, so that the leader may not know yet that this "
                    "session lives: it has to be renewed once more"
                )
                raise BackendUnavailable(msg)
            own.deadline = max(own.deadline, sent + own.ttl)
            return True

    async def close(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        own = self.own(session)
        if own is not None:
            with self._changed:
                own.end()
                own.missed(False)  # noqa: FBT003
                self._changed.tell()  # if this fails, the watchdog goes on
        await self._connection.run(verbs.delete(self._layout.session(session)))
        with self._changed:
            if own is not None:
                own.deleted = True
                self._watchdog.sessions.pop(session, None)

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`; it is the whole TTL as long as a session lives."""
        own = {name: found for name in sessions if (found := self.own(name)) is not None}
        over = [name for name, found in own.items() if not found.alive()]
        asked = list(dict.fromkeys(name for name in sessions if name not in over))
        if not asked:
            return dict.fromkeys(over, 0.0)
        watch = self._post.ended if self._watchdog.sessions else None
        steps = verbs.remaining(self._layout, asked, watch, self._ttl)
        return {**dict.fromkeys(over, 0.0), **await self._connection.run(steps)}

    def told(self, lost: bool) -> None:
        """The connection has changed. In kazoo's thread."""
        with self._changed:
            if lost:
                self._watchdog.lost()
            elif not self._connection.client.connected:
                self._watchdog.suspended()
            self._changed.tell()
