"""What arrives by itself: wake-ups, ends of sessions, and the state of the connection.

Each session of ours has one watch on its node. When it fires, the node is read and watched again
in one request; a version that jumped tells of wake-ups that were merged. A lost connection takes
all watches with it: the next `receive` sets them anew and reports that something may be missed.
kazoo calls from threads of its own, where nothing here blocks. Knows nothing of commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import EventType, WatchedEvent

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Ended, Event
from distjob_zookeeper.connection import Connection
from distjob_zookeeper.failures import FAILURES
from distjob_zookeeper.layout import decoded
from distjob_zookeeper.links import Changes, Link
from distjob_zookeeper.requests import Batch, Steps
from distjob_zookeeper.seen import Memory, Seen
from distjob_zookeeper.sessions import Session, Watchdog
from distjob_zookeeper.verbs import get


class Post:
    """Fills the sessions' mailboxes, and lets one caller wait for what is in them."""

    def __init__(
        self, connection: Connection, watchdog: Watchdog, changed: Changes, link: Link
    ) -> None:
        self.memory: Memory | None = None
        """Where what wake-ups tell of nodes is kept."""
        self._connection = connection
        self._watchdog = watchdog
        self._changed = changed
        self._interrupted = False
        self._closed = False
        self._link = link
        self._receiving = link.lock()

    # -- from kazoo's threads -------------------------------------------------------------------

    def watcher(self, session: Session) -> Any:
        """What kazoo is to call when the node of ``session`` changes; it keeps but one of each."""
        if session.watcher is not None:
            return session.watcher

        def fired(event: WatchedEvent) -> None:
            if event.type == EventType.CHANGED:
                generation = self._connection.generation
                result = self._connection.client.get_async(session.path, watch=fired)
                result.rawlink(lambda done: read(done, generation))
            elif event.type == EventType.DELETED:
                self._deleted(session)

        def read(done: Any, generation: int) -> None:
            try:
                answer = done.get_nowait()
            except NoNodeError:
                self._deleted(session)
            except FAILURES:
                with self._changed:  # not watched any more: its receiver finds that out
                    session.armed = -1
                    self._changed.tell()
            else:
                self.arrived(session, answer, generation)

        session.watcher = fired
        return fired

    def ended(self, event: WatchedEvent) -> None:
        """For kazoo to call about a session that `remaining` was asked for."""
        if event.type == EventType.DELETED:
            told = Ended(session=decoded(event.path.rpartition("/")[2]))
            with self._changed:
                for session in self._watchdog.sessions.values():
                    session.tell(told)
                self._changed.tell()

    def arrived(self, session: Session, answer: Any, generation: int) -> None:
        """``session``'s node was read, and is watched since, in that generation."""
        data, stat = answer
        with self._changed:
            session.armed = generation
            found = session.arrived(data or b"", stat.version, stat.mzxid)
            self._changed.tell()
        if found is not None and self.memory is not None:
            version = ABSENT if found.removed else stat.mzxid
            self.memory.put(found.vm, Seen(version, found.node, found.epoch))

    def _deleted(self, session: Session) -> None:
        with self._changed:
            session.deleted = True
            session.end()
            self._changed.tell()

    # -- from a caller's ------------------------------------------------------------------------

    async def receive(self, session: Session | None, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`; None: a session that has ended, or is not ours.

        What is taken from the mailbox is returned without an await, after which it could be lost.
        """
        until = monotonic() + timeout
        async with self._receiving:
            while True:
                with self._changed:
                    self._check()
                    seen = self._changed.count
                    left = until - monotonic()
                    armed = session is None or session.ended or self._armed(session)
                    if armed:
                        events = session.take() if session is not None else []
                        if events or self._interrupted or left <= 0:
                            self._interrupted = False
                            return events
                if armed or session is None:
                    await self._link.changed(self._changed, seen, left)
                else:
                    await self._rearm(session)

    def interrupt(self) -> None:
        with self._changed:
            self._interrupted = True
            self._changed.tell()

    def close(self) -> None:
        """Whoever receives raises. With the lock held."""
        self._closed = True
        self._changed.tell()

    def _check(self) -> None:
        self._connection.check()
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)

    def _armed(self, session: Session) -> bool:
        return session.armed == self._connection.generation

    async def _rearm(self, session: Session) -> None:
        generation = self._connection.generation
        with self._changed:  # of the ends of others, at least; also if the answer is lost
            session.missed()
        answer = await self._connection.run(_look(session, self.watcher(session)))
        if answer is None:
            self._deleted(session)
        else:
            self.arrived(session, answer, generation)


def _look(session: Session, watch: Any) -> Steps[Any]:
    (answer,) = yield Batch((get(session.path, watch),))
    return None if isinstance(answer, NoNodeError) else answer
