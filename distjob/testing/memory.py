"""The smallest store: a dict, sessions with deadlines, mailboxes.

`MemoryServer` decides what each verb does. It takes no lock, starts no thread and asks only the
clock it was given, so that a simulated world can drive it in virtual time. `MemoryStore` is one
client's thread-safe `Store` on it, in real time; use one server either way, never both at once.
Neither knows anything of jobs.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import (
    ABSENT,
    Committed,
    Ended,
    Event,
    Gone,
    Guarantees,
    Reply,
    Stale,
    Versioned,
    Woken,
)

_NOTHING = Versioned(version=ABSENT, value=None)


class _Session:
    """Until when a session lives, what it was sent, and whose end it wants to hear of."""

    def __init__(self, ttl: float, owner: str, deadline: float) -> None:
        self.ttl = ttl
        self.owner = owner
        self.deadline = deadline
        self.mail: list[Event] = []
        self.watched: set[str] = set()


class MemoryServer:
    """The state that all clients share; its methods are the verbs of `distjob.store.Store`."""

    def __init__(self, clock: Callable[[], float] = clock.monotonic) -> None:
        self.changed = threading.Condition()
        """Held by each `MemoryStore` around each verb. The server itself never touches it."""
        self._clock = clock
        self._version = ABSENT
        self._values: dict[str, Versioned] = {}
        self._sessions: dict[str, _Session] = {}
        self._opened = 0

    def open_session(self, ttl: float, owner: str) -> str:
        """Begin a session; ids are counted, so that a simulated history reads well."""
        self._opened += 1
        session = f"session-{self._opened}"
        self._sessions[session] = _Session(ttl, owner, self._clock() + ttl)
        return session

    def keep_alive(self, session: str) -> bool:
        """Renew ``session`` for its full TTL; False if it has ended."""
        if (found := self._alive(session)) is None:
            return False
        found.deadline = self._clock() + found.ttl
        return True

    def close_session(self, session: str) -> None:
        """End ``session`` now."""
        self._sessions.pop(session, None)

    def read(self, vm: str) -> Versioned:
        """The current value of ``vm``."""
        return self._values.get(vm, _NOTHING)

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """Compare and set, and wake; see `distjob.store.Store.commit`."""
        if self._alive(author) is None:
            return Gone(sessions=frozenset({author}))
        current = self.read(vm)
        if current.version != expected:
            return Stale(version=current.version, value=current.value)
        mailboxes = {session: self._alive(session) for session in wake}
        if gone := frozenset(session for session, found in mailboxes.items() if found is None):
            return Gone(sessions=gone)
        self._version += 1
        if value is None:
            self._values.pop(vm, None)
        else:
            self._values[vm] = Versioned(version=self._version, value=value)
        for found in mailboxes.values():
            if found is not None:
                found.mail.append(Woken(vm=vm, version=self._version, value=value))
        return Committed(version=self._version)

    def remaining(self, sessions: Collection[str], watcher: str = "") -> dict[str, float]:
        """Seconds until each of ``sessions`` ends; ``watcher`` will be sent their `Ended`."""
        now = self._clock()
        left = {
            session: found.deadline - now if (found := self._alive(session)) else 0.0
            for session in sessions
        }
        if (watching := self._alive(watcher)) is not None:
            watching.watched.update(session for session, seconds in left.items() if seconds > 0)
        return left

    def take(self, session: str) -> list[Event]:
        """Empty the mailbox of ``session``; nothing if that has ended."""
        if (found := self._alive(session)) is None:
            return []
        ended = {watched for watched in found.watched if self._alive(watched) is None}
        found.watched -= ended
        events = [*found.mail, *(Ended(session=watched) for watched in sorted(ended))]
        found.mail.clear()
        return events

    def quiet_for(self, session: str) -> float:
        """Seconds in which `take` gives nothing unless a verb is called; infinite if for ever."""
        found = self._alive(session)
        watched = found.watched if found else ()
        return min(self.remaining(watched).values(), default=math.inf)

    def scan(self) -> list[tuple[str, Versioned]]:
        """All VMs that have a value."""
        return list(self._values.items())

    def _alive(self, session: str) -> _Session | None:
        found = self._sessions.get(session)
        if found is not None and found.deadline <= self._clock():
            del self._sessions[session]  # a clock that is set back must not revive it
            return None
        return found


class MemoryStore:
    """One client's `Store` on a `MemoryServer` in the same process."""

    guarantees = Guarantees(
        reach="process", wakes="push", ends="told", durable=False, versions_survive_loss=False
    )

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self._session = ""
        self._interrupted = False
        self._closed = False

    def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`."""
        with self._changed():
            self._session = self._server.open_session(ttl, owner)
            return self._session

    def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`."""
        with self._changed():
            return self._server.keep_alive(session)

    def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        with self._changed() as changed:
            self._server.close_session(session)
            changed.notify_all()

    def settle(self, session: str) -> None:
        """See `distjob.store.Store.settle`. A commit is made at once, or not at all."""
        del session
        with self._changed():
            pass

    def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        with self._changed():
            return self._server.read(vm)

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`."""
        with self._changed() as changed:
            reply = self._server.commit(vm, expected, value, author, wake)
            if wake:
                changed.notify_all()
            return reply

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`."""
        with self._changed():
            return self._server.remaining(sessions, watcher=self._session)

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        until = clock.monotonic() + timeout
        with self._changed() as changed:
            while not (events := self._server.take(session)):
                left = until - clock.monotonic()
                if left <= 0 or self._interrupted:
                    self._interrupted = False
                    break
                changed.wait(min(left, self._server.quiet_for(session)))
                self._check_open()
            return events

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        with self._server.changed:
            self._interrupted = True
            self._server.changed.notify_all()

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`."""
        with self._changed():
            return iter(self._server.scan())

    def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way raises."""
        with self._server.changed:
            self._closed = True
            self._server.changed.notify_all()

    @contextmanager
    def _changed(self) -> Iterator[threading.Condition]:
        with self._server.changed:
            self._check_open()
            yield self._server.changed

    def _check_open(self) -> None:
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)
