"""Sessions of this client: until when each lives, what it was sent, and that it ends in time.

kazoo keeps a ZooKeeper session, and with it our nodes, alive for as long as the process lives. A
session of ours must end when it was not renewed for its TTL: so each has a deadline, after which
`Watchdog` deletes its node, however often that takes. Knows nothing of kazoo.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob.store import Event, Missed, Woken
from distjob_zookeeper.layout import Wakeup, wakeup
from distjob_zookeeper.links import Changes

log = logging.getLogger("distjob.zookeeper")


class Session:
    """One session; ``sent`` is from before its node was asked for. Its store's lock guards it."""

    def __init__(self, name: str, path: str, ttl: float, sent: float, generation: int = 0) -> None:
        self.name = name
        self.path = path
        self.ttl = ttl
        self.deadline = sent + ttl
        self.ended = False
        """For good: it is not to be renewed any more, whether or not its node is deleted yet."""
        self.deleted = False
        """Its node is certainly gone."""
        self.armed = -1
        """The generation of the connection in which its node is watched."""
        self.version = 0
        """Of its node's data, as received last."""
        self.watcher: Any = None
        """What is called when its node changes, once it was asked for."""
        self._touches = deque([sent])
        self._generation = generation
        self._events: list[Event] = []
        self._missed = False

    def alive(self) -> bool:
        """Whether it may still be used; its server may know better."""
        return not self.ended and monotonic() < self.deadline

    def end(self) -> None:
        """It is over. Who receives is told once that something was missed, and looks."""
        if not self.ended:
            self.ended = True
            self._missed = True

    def touch(self, sent: float, generation: int, connected_at: float) -> float:
        """Note that the server has answered what was ``sent``; since when its leader knows of us.

        The server at hand tells the leader who was heard of with its next reply to a ping, half a
        tick later. If it dies before, the leader knows no more than the touch before that one.
        """
        if generation != self._generation:  # what was under way on the old connection may be lost
            self._touches = deque([connected_at])
            self._generation = generation
        while len(self._touches) > 1 and self._touches[1] <= sent - self.ttl / 4:
            self._touches.popleft()
        self._touches.append(sent)
        return self._touches[0]

    def arrived(self, data: bytes, version: int, zxid: int) -> Wakeup | None:
        """The node's data as it is now; returns the wake-up in it if it is a new one."""
        merged = version - self.version
        if merged <= 0 or self.ended:
            return None
        self.version = version
        found = wakeup(data)
        if merged > 1 or found is None:
            self._missed = True
        if found is not None:
            self._events.append(Woken(vm=found.vm, version=zxid, value=found.value))
        return found

    def missed(self, so: bool = True) -> None:
        """Wake-ups may have been lost, or nobody is to hear so any more."""
        self._missed = so

    def tell(self, event: Event) -> None:
        if not self.ended:
            self._events.append(event)

    def take(self) -> list[Event]:
        """All that its receiver has not had."""
        events, self._events = self._events, []
        if self.ended:
            events.clear()
        if self._missed:
            self._missed = False
            events.insert(0, Missed())
        return events


class Watchdog:
    """Deletes the nodes of sessions that are over. One thread, as long as there are any."""

    PAUSE = 0.25
    """Seconds until it tries again what the store did not answer."""

    def __init__(self, changed: Changes, delete: Callable[[str], None]) -> None:
        self.sessions: dict[str, Session] = {}
        """By id; those whose nodes may exist. Guarded by ``changed``."""
        self._changed = changed
        self._delete = delete
        self._running = False
        self._stopped = False
        self._afterwards: Callable[[], None] = lambda: None

    def add(self, session: Session) -> None:
        """Look after ``session`` from now on. With the lock held."""
        self.sessions[session.name] = session
        if not self._running and not self._stopped:
            self._running = True
            name = "distjob-zookeeper"
            threading.Thread(target=self._run, name=name, daemon=True).start()
        self._changed.tell()

    def lost(self) -> None:
        """The ZooKeeper session has ended, and all nodes with it. With the lock held."""
        for session in self.sessions.values():
            session.end()
            session.deleted = True
        self.sessions.clear()
        self._changed.tell()

    def suspended(self) -> None:
        """All watches are lost, also those that somebody is just setting. With the lock held."""
        for session in self.sessions.values():
            if not session.ended:
                session.missed()
        self._changed.tell()

    def stop(self) -> None:
        """Leave the sessions to the servers. With the lock held."""
        self._stopped = True
        self.sessions.clear()
        self._changed.tell()

    def finish(self, afterwards: Callable[[], None]) -> bool:
        """End with the last session, then call ``afterwards``; False: there is none now.

        With the lock held.
        """
        self._afterwards = afterwards
        return self._running

    def _run(self) -> None:
        while (due := self._due()) is not None:
            failed = False
            for session in due:
                failed = not self._deleted(session) or failed
            with self._changed:
                for session in due:
                    if session.deleted:
                        self.sessions.pop(session.name, None)
                if failed and not self._stopped:
                    self._changed.wait(self.PAUSE)
        self._afterwards()

    def _due(self) -> list[Session] | None:
        """Wait for sessions that are over; None when there is nothing to look after."""
        with self._changed:
            while self.sessions:
                now = monotonic()
                over = [s for s in self.sessions.values() if s.ended or s.deadline <= now]
                if over:
                    for session in over:
                        session.end()
                    self._changed.tell()
                    return over
                self._changed.wait(min(s.deadline for s in self.sessions.values()) - now)
            self._running = False
            return None

    def _deleted(self, session: Session) -> bool:
        try:
            self._delete(session.path)
        except BackendUnavailable as error:
            log.debug("session %s is not deleted yet: %s", session.name, error)
            return False
        session.deleted = True
        return True
