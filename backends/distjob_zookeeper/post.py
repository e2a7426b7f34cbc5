"""What arrives by itself: wake-ups, ends of sessions, and the state of the connection.

Each session of ours has one watch on its node. When it fires, the node is read and watched again
in one request; a version that jumped tells of wake-ups that were merged. A lost connection takes
all watches with it: the next `receive` sets them anew and reports that something may be missed.
kazoo calls from threads of its own, where nothing here blocks. Knows nothing of commits.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import EventType, WatchedEvent

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Ended, Event
from distjob_zookeeper.connection import FAILURES, Batch, Connection, Steps
from distjob_zookeeper.layout import decoded
from distjob_zookeeper.seen import Memory, Seen
from distjob_zookeeper.sessions import Session, Watchdog
from distjob_zookeeper.verbs import get


class Post:
    """Fills the sessions' mailboxes, and lets one caller wait for what is in them."""

    def __init__(
        self, connection: Connection, watchdog: Watchdog, changed: threading.Condition
    ) -> None:
        self.memory: Memory | None = None
        """Where what wake-ups tell of nodes is kept."""
        self._connection = connection
        self._watchdog = watchdog
        self._changed = changed
        self._interrupted = False
        self._closed = False
        self._receiving = threading.Lock()

    # -- from kazoo's threads -------------------------------------------------------------------

    def watcher(self, session: Session) -> Any:
        """What kazoo is to call when the node of ``session`` changes."""

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
                    self._changed.notify_all()
            else:
                self.arrived(session, answer, generation)

        return fired

    def ended(self, event: WatchedEvent) -> None:
        """For kazoo to call about a session that `remaining` was asked for."""
        if event.type == EventType.DELETED:
            told = Ended(session=decoded(event.path.rpartition("/")[2]))
            with self._changed:
                for session in self._watchdog.sessions.values():
                    session.tell(told)
                self._changed.notify_all()

    def arrived(self, session: Session, answer: Any, generation: int) -> None:
        """``session``'s node was read, and is watched since, in that generation."""
        data, stat = answer
        with self._changed:
            session.armed = generation
            found = session.arrived(data or b"", stat.version, stat.mzxid)
            self._changed.notify_all()
        if found is not None and self.memory is not None:
            version = ABSENT if found.removed else stat.mzxid
            self.memory.put(found.vm, Seen(version, found.node, found.epoch))

    def _deleted(self, session: Session) -> None:
        with self._changed:
            session.deleted = True
            session.end()
            self._changed.notify_all()

    # -- from a caller's ------------------------------------------------------------------------

    def receive(self, session: Session | None, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`; None: a session that has ended, or is not ours."""
        until = monotonic() + timeout
        with self._receiving:
            while True:
                with self._changed:
                    self._check()
                    if session is None or session.ended or self._armed(session):
                        events = session.take() if session is not None else []
                        left = until - monotonic()
                        if events or self._interrupted or left <= 0:
                            self._interrupted = False
                            return events
                        self._changed.wait(left)
                        continue
                self._rearm(session)

    def interrupt(self) -> None:
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def close(self) -> None:
        """Whoever receives raises. With the lock held."""
        self._closed = True
        self._changed.notify_all()

    def _check(self) -> None:
        self._connection.check()
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)

    def _armed(self, session: Session) -> bool:
        return session.armed == self._connection.generation

    def _rearm(self, session: Session) -> None:
        generation = self._connection.generation
        answer = self._connection.run(_look(session, self.watcher(session)))
        if answer is None:
            self._deleted(session)
            return
        self.arrived(session, answer, generation)
        with self._changed:
            session.missed()  # of the ends of others, at least


def _look(session: Session, watch: Any) -> Steps[Any]:
    (answer,) = yield Batch((get(session.path, watch),))
    return None if isinstance(answer, NoNodeError) else answer
