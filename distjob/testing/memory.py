"""The smallest store: a dict, sessions with deadlines, mailboxes.

`MemoryServer` decides what each verb does. It takes no lock, starts no thread and asks only the
clock it was given, so that a simulated world can drive it in virtual time. `MemorySource` is one
client's way to it in real time, and the smallest model of a backend; use one server either way,
never both at once. Neither knows anything of jobs.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Self, TypeVar

from distjob import clock
from distjob.backend.opened import Blocking, OpenStore
from distjob.backend.settling import Settling
from distjob.backend.source import Feed
from distjob.backend.tasks import Tasks
from distjob.backend.threads import Threads
from distjob.backend.world import World
from distjob.store import (
    ABSENT,
    Committed,
    Ended,
    Event,
    Gone,
    Guarantees,
    Reply,
    Settled,
    Stale,
    Versioned,
    Woken,
)
from distjob.testing.changed import Changed

T = TypeVar("T")
TTL = 30.0
"""Seconds: what the stores here take for the TTL of their sessions, which may be any other."""
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
        self.changed = Changed()
        """Of the sources on it. The server itself never touches it."""
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


class MemorySource:
    """One client's `distjob.backend.source.Source` on a `MemoryServer` in the same process."""

    guarantees = Guarantees(
        reach="process", wakes="push", ends="told", durable=False, versions_survive_loss=False
    )

    def __init__(self, server: MemoryServer, world: World) -> None:
        self._server = server
        self._world = world
        self._settling = Settling()
        self._feed = MemoryFeed(server, world)

    async def open(self, ttl: float, owner: str) -> str:
        session = await self._do(lambda: self._server.open_session(ttl, owner))
        self._settling.begin(session)
        self._feed.listen(session)
        return session

    async def renew(self, session: str) -> bool:
        alive = await self._do(lambda: self._server.keep_alive(session))
        if not alive:
            self._forget(session)
        return alive

    async def end(self, session: str) -> None:
        def end() -> None:
            self._server.close_session(session)
            self._server.changed.notify_all()

        await self._do(end)
        self._forget(session)

    async def settle(self, session: str) -> None:
        self._settling.settle(session)
        await self._do(lambda: None)

    async def read(self, vm: str) -> Versioned:
        return await self._do(lambda: self._server.read(vm))

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        mark = self._settling.mark(author)

        def commit() -> Reply:
            if mark is not self._settling.mark(author):
                return Settled()
            reply = self._server.commit(vm, expected, value, author, wake)
            if wake:
                self._server.changed.notify_all()
            return reply

        return await self._do(commit)

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        return await self._do(lambda: self._server.remaining(sessions, watcher=self._feed.newest()))

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        for found in await self._do(self._server.scan):
            yield found

    async def feeds(self) -> Collection[Feed]:
        return (self._feed,)

    async def let_go(self) -> None:
        """There is nothing to let go of."""

    async def _do(self, call: Callable[[], T]) -> T:
        """What ``call`` returns, in its turn: the server's lock may be held by another thread."""

        def locked() -> T:
            with self._server.changed:
                return call()

        return await self._world.aside(locked, lane="memory")

    def _forget(self, session: str) -> None:
        self._feed.deafen(session)
        self._settling.end(session)


class MemoryFeed:
    """Takes the mail of our sessions out of the server, which rings the bell of the world."""

    vital = True

    def __init__(self, server: MemoryServer, world: World) -> None:
        self._server = server
        self._world = world
        self._sessions: list[str] = []

    def listen(self, session: str) -> None:
        """Take what comes for ``session``."""
        with self._server.changed:
            self._sessions.append(session)

    def deafen(self, session: str) -> None:
        """``session`` has ended."""
        with self._server.changed:
            if session in self._sessions:
                self._sessions.remove(session)

    def newest(self) -> str:
        """The session that hears of the ends of others; "" if there is none."""
        return self._sessions[-1] if self._sessions else ""

    async def open(self) -> bool:
        with self._server.changed:
            self._server.changed.bells.add(self._world.bell)
        return False

    async def take(self) -> Sequence[tuple[str, Event]]:
        events: list[tuple[str, Event]] = []
        with self._server.changed:
            for session in list(self._sessions):
                events += [(session, event) for event in self._server.take(session)]
                if not self._server.remaining([session])[session]:
                    self._sessions.remove(session)
                    events.append((session, Ended(session=session)))
        return events

    async def prod(self) -> None:
        """Each look is answered."""

    def when_readable(self) -> int | None:
        return None

    def pause(self) -> float:
        with self._server.changed:
            ends = self._server.remaining(self._sessions).values()
            return min((*ends, *map(self._server.quiet_for, self._sessions)), default=math.inf)

    async def close(self) -> None:
        with self._server.changed:
            self._server.changed.bells.discard(self._world.bell)


class MemoryStore(Blocking):
    """The blocking `distjob.store.Store` on a `MemoryServer`."""

    def __init__(self, server: MemoryServer) -> None:
        world = Threads()
        super().__init__(OpenStore(MemorySource(server, world), world, TTL))


class AsyncMemoryStore(OpenStore):
    """The `distjob.store.AsyncStore` on a `MemoryServer`, for the event loop that runs."""

    def __init__(self, server: MemoryServer) -> None:
        world = Tasks()
        super().__init__(MemorySource(server, world), world, TTL)

    @classmethod
    async def connect(cls, server: MemoryServer) -> Self:
        """As every store is connected, by a coroutine."""
        return cls(server)
