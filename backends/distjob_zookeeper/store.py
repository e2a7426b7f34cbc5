"""The verbs of `distjob.store.Store` on ZooKeeper, blocking; see `distjob_zookeeper.layout`.

Puts together what the other files decide: requests and answers (verbs), the connection, sessions
and their ends, wake-ups. What it adds is when a session counts as alive, and how it is opened.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob.store import Event, Gone, Guarantees, Reply, Versioned
from distjob_zookeeper import idle, setup, verbs
from distjob_zookeeper.commit import Commit
from distjob_zookeeper.connection import Connection
from distjob_zookeeper.guarantees import MARGIN
from distjob_zookeeper.layout import Layout, decoded, session_id, unpacked
from distjob_zookeeper.post import Post
from distjob_zookeeper.seen import Memory
from distjob_zookeeper.sessions import Session, Watchdog
from distjob_zookeeper.settings import ZookeeperSettings

if TYPE_CHECKING:
    from kazoo.client import KazooClient


def connect(settings: ZookeeperSettings, namespace: str, ttl: float) -> ZookeeperStore:
    """A store with a client of its own; see `distjob.store.Backend.connect`."""
    client, chroot = setup.client_for(settings, ttl)
    store = ZookeeperStore(client, namespace, ttl, timeout=settings.timeout, chroot=chroot)
    store.settings = settings
    return store


class ZookeeperStore:
    """One client's `Store` on the ensemble that ``client`` is connected to.

    ``client`` may be any started `kazoo.client.KazooClient` with threads (kazoo's default handler);
    its hosts, chroot, credentials, TLS and default ACL are used. It is neither stopped nor closed,
    and may be shared. Its session timeout must be 1.5 times ``ttl`` at least. ``timeout`` is the
    seconds to wait for each answer, ``chroot`` a path below which all is kept, besides the
    client's own. Raises `ConfigError` or `BackendUnavailable`.
    """

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
        self._layout = Layout(namespace, chroot)
        self._ttl = ttl
        self._name = secrets.token_hex(16)
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._closed = False
        self._pid = os.getpid()
        self._watchdog = Watchdog(self._changed, self._delete)
        self._connection = Connection(client, timeout, self._told, needed=ttl * MARGIN)
        self._post = Post(self._connection, self._watchdog, self._changed)
        try:
            setup.begin(self._connection, ttl)
            epoch = setup.prepare(self._connection, self._layout, self._name)
        except BaseException:
            self._connection.close(end=client.connected)
            raise
        self._memory = self._post.memory = Memory(epoch)
        self.guarantees: Guarantees = setup.guarantees(self._connection, ttl)

    # -- sessions ------------------------------------------------------------------------------

    def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`.

        A ``ttl`` above the one given at connect holds only while the connection does.
        """
        self._check()
        self._connection.revive()
        setup.look_at_limits(self._connection)
        if short := self._connection.too_short():
            msg = f"ZooKeeper at {self._connection.name}: {short}"
            raise BackendUnavailable(msg)
        try:
            return self._open(ttl, owner)
        except FileNotFoundError:  # all was deleted, or lost, since we connected
            self._memory.enter(setup.prepare(self._connection, self._layout, self._name))
            try:
                return self._open(ttl, owner)
            except FileNotFoundError as error:
                msg = f"ZooKeeper at {self._connection.name}: {error} is deleted by somebody"
                raise BackendUnavailable(msg) from error

    def _open(self, ttl: float, owner: str) -> str:
        name = session_id(self._name, next(self._numbers), ttl)
        path = self._layout.session(name)
        generation = self._connection.generation
        session = Session(name, path, ttl, monotonic(), generation)
        watch = self._post.watcher(session)
        try:
            made, there, epoch = self._connection.run(
                verbs.open_session(self._layout, path, owner, watch)
            )
        except BackendUnavailable as error:
            if error.unanswered:  # its node may be there, and would live as long as this process
                with self._changed:
                    session.end()
                    self._watchdog.add(session)
            raise
        if isinstance(made, Exception) or epoch is None:
            raise FileNotFoundError(self._layout.sessions)
        self._memory.enter(epoch)
        with self._changed:
            self._watchdog.add(session)
        if isinstance(there, Exception):
            session.end()  # as short as that
        else:
            self._post.arrived(session, there, generation)
        return name

    def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`. Only a session of this store can be renewed."""
        self._check()
        own = self._own(session)
        if own is None or not own.alive():
            return False
        sent = monotonic()
        with self._changed:
            known_since = own.touch(
                sent, self._connection.generation, self._connection.connected_at
            )
        there = self._connection.run(verbs.keep_alive(own.path))
        with self._changed:
            if not there:
                own.deleted = True
                own.end()
                self._changed.notify_all()
            if not own.alive():
                return False
            spare = self._connection.granted - own.ttl
            if sent - known_since > spare >= 0 and own.ttl <= self._ttl:
                msg = (
                    f"ZooKeeper at {self._connection.name}: nothing was sent for "
                    f"{sent - known_since:.1f} s, so that the leader may not know yet that this "
                    "session lives: it has to be renewed once more"
                )
                raise BackendUnavailable(msg)
            own.deadline = sent + own.ttl
            return True

    def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        self._check()
        own = self._own(session)
        if own is not None:
            with self._changed:
                own.end()
                own.missed(False)  # noqa: FBT003
                self._changed.notify_all()  # if this fails, the watchdog goes on
        self._delete(self._layout.session(session))
        with self._changed:
            if own is not None:
                own.deleted = True
                self._watchdog.sessions.pop(session, None)

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`; it is the whole TTL as long as a session lives."""
        self._check()
        own = {name: found for name in sessions if (found := self._own(name)) is not None}
        over = [name for name, found in own.items() if not found.alive()]
        asked = list(dict.fromkeys(name for name in sessions if name not in over))
        if not asked:
            return dict.fromkeys(over, 0.0)
        watch = self._post.ended if self._watchdog.sessions else None
        steps = verbs.remaining(self._layout, asked, watch, self._ttl)
        return {**dict.fromkeys(over, 0.0), **self._connection.run(steps)}

    # -- values --------------------------------------------------------------------------------

    def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        self._check()
        return self._connection.run(verbs.read(self._layout, self._memory, vm))

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`."""
        self._check()
        if (own := self._own(author)) is not None and not own.alive():
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
        return self._connection.run(commit.steps())

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`."""
        self._check()
        for node, data, stat in idle.nodes(self._connection, self._layout):
            vm = decoded(node)
            if (value := unpacked(data, vm)) is not None:
                yield vm, Versioned(version=stat.mzxid, value=value)

    def forget(self, vms: Iterable[str] | None = None) -> int:
        """Delete the empty nodes that VMs without a value have left; of ``vms``, or all.

        Safe at any time, also while jobs begin on these VMs; each client's next commit then takes
        a round trip more. Returns how many were deleted. Raises `BackendUnavailable`.
        """
        self._check()
        return idle.forget(self._connection, self._layout, vms)

    # -- receiving -----------------------------------------------------------------------------

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        self._check()
        return self._post.receive(self._own(session), timeout)

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        if os.getpid() == self._pid:
            self._post.interrupt()

    def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way raises.

        With a client of our own the servers end what sessions are left; with the user's, this
        process does, each when it was not renewed for its TTL.
        """
        if self._closed:
            return
        self._closed = True
        if os.getpid() != self._pid:
            return
        ours = self._connection.sockets is not None
        with self._changed:
            left = bool(self._watchdog.sessions)
            if ours:
                self._watchdog.stop()
            lingering = self._watchdog.finish(self._let_go) and not ours
            self._post.close()
        if not lingering:
            self._connection.close(end=not left)

    def _let_go(self) -> None:
        if self._closed and self._connection.sockets is None:
            self._connection.close(end=False)

    # -- inside --------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)
        self._connection.check_process()

    def _own(self, session: str) -> Session | None:
        with self._changed:
            return self._watchdog.sessions.get(session)

    def _delete(self, path: str) -> None:
        self._connection.run(verbs.delete(path))

    def _told(self, lost: bool) -> None:  # in kazoo's thread
        with self._changed:
            if lost:
                self._watchdog.lost()
            self._changed.notify_all()
