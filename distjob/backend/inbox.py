"""What has come for the sessions of one store, and was not received yet.

Feeds put in, whoever receives takes out; nothing here waits. Events of a session that was not
opened here, or has ended, are dropped, so that a wake-up meant for an earlier session can't reach
the next one. It knows nothing of feeds.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from distjob.backend.source import EVERYBODY
from distjob.store import Event, Missed

MOST = 10_000
"""Events that wait for one session; if more come they are dropped, and `Missed` tells of it. Only
a client that has not listened for long has so many, and one read a VM serves it better."""


class Inbox:
    """Callable from any thread; its lock is held for moments, never over an await."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mail: dict[str, list[Event]] = {}
        self._missed: set[str] = set()

    def begin(self, session: str) -> None:
        """From now on there is something to come for ``session``."""
        with self._lock:
            self._mail[session] = []

    def end(self, session: str) -> None:
        """``session`` has ended: it receives nothing any more."""
        with self._lock:
            self._mail.pop(session, None)
            self._missed.discard(session)

    def sessions(self) -> Collection[str]:
        """Those that have begun and not ended."""
        with self._lock:
            return list(self._mail)

    def put(self, session: str, event: Event) -> None:
        """``event`` has come for ``session``, or for `EVERYBODY`."""
        with self._lock:
            for name in list(self._mail) if session == EVERYBODY else (session,):
                if (mail := self._mail.get(name)) is None:
                    continue
                if len(mail) >= MOST or isinstance(event, Missed):
                    self._missed.add(name)
                else:
                    mail.append(event)

    def miss(self) -> None:
        """Events of any session may have been lost."""
        self.put(EVERYBODY, Missed())

    def take(self, session: str) -> list[Event]:
        """All that has come for ``session``; it is not here any more. `Missed` comes first."""
        with self._lock:
            if not (mail := self._mail.get(session)) and session not in self._missed:
                return []
            self._mail[session] = []
            events: list[Event] = list(mail or ())
            if session in self._missed:
                self._missed.discard(session)
                events.insert(0, Missed())
            return events
