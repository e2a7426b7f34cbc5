"""Keeping a source's feeds open: when each is opened, asked whether it lives, and given up.

    state   what is done                                       what follows
    -----   ------------------------------------------------   --------------------------------
    closed  once it is due: open it                            opened: live; a fault: closed, due
                                                               later; missed something: told so
    live    take what has come                                 silent for long: prod it, asked
    asked   take what has come                                 something came: live; silent for
                                                               as long again: cut
    cut     close it, ask the source where to listen now       closed, due at once if it had
                                                               worked, else later

Whoever receives does all this, in its own thread or task: nothing runs beside it. It decides
nothing about gaps: a feed says when it opens whether something may be missed. It knows no server,
and what the events mean as little as `inbox` does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from enum import Enum, auto

from distjob.backend.inbox import Inbox
from distjob.backend.life import Life
from distjob.backend.source import Fault, Feed, Source
from distjob.backend.world import World
from distjob.store import Event

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two tries to open a feed: short, as most faults are a server that comes back or
another that takes over; and never so long that a waiter's fallback, half a TTL, is sooner."""
SHARE = 20
"""A feed that is not vital is tried again after so many times what the last try took, so that
opening it, which keeps its caller from hearing the others, takes a twentieth of all time at most.
"""


class State(Enum):
    """How it stands with a feed; see the table above. Opening and cut are passed through."""

    CLOSED = auto()
    LIVE = auto()
    ASKED = auto()


class _Ear:
    """One feed."""

    __slots__ = ("due", "feed", "heard", "pause", "state")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.state = State.CLOSED
        self.due = 0.0
        """When it is to be opened, if it is closed."""
        self.heard = 0.0
        """When something came last, or it was asked."""
        self.pause = 0.0
        """Before the next try, if this one fails; 0: it has worked."""

    @property
    def open(self) -> bool:
        return self.state is not State.CLOSED


class Listening:
    """The feeds of ``source``, which fill ``inbox``."""

    def __init__(
        self, source: Source, world: World, inbox: Inbox, life: Life, quiet: float
    ) -> None:
        self._source = source
        self._world = world
        self._inbox = inbox
        self._life = life
        self._quiet = quiet
        """Seconds of silence after which a feed is asked, and given up if it stays silent."""
        self._turn = world.lock()
        """Had by whoever receives."""
        self._ears: list[_Ear] = []
        self._astray = True
        """Whether the source has to be asked where to listen."""
        self._interrupted = False
        self._closed = False

    async def mend(self) -> None:
        """Open what should be open, unless somebody receives, who does it. Raises `Fault`."""
        if await self._turn.take(0.0):
            try:
                await self._mend()
            finally:
                self._turn.leave()

    async def hear(self, session: str, seconds: float) -> Sequence[Event]:
        """The events of ``session``, waiting for some at most ``seconds``. Raises `Fault`.

        Returns early, perhaps with nothing, after `interrupt`. Cancelled, it loses no event.
        """
        until = self._world.monotonic() + seconds
        async with self._turn:
            try:
                return await self._hear(session, until)
            finally:
                if self._closed:
                    await self._close()

    def interrupt(self) -> None:
        """Make a `hear` that is under way, or else the next one, return at once. Any thread."""
        self._interrupted = True
        self._world.bell.ring()

    async def close(self, patience: float) -> None:
        """Close all feeds; waits at most ``patience`` for whoever receives to leave.

        Cancelled, it leaves that to whoever receives.
        """
        self._closed = True
        self.interrupt()
        left = await self._turn.take(patience)
        try:
            await self._close()
        finally:
            if left:
                self._turn.leave()

    async def _close(self) -> None:
        async with AsyncExitStack() as closing:  # all of them, whatever happens to one
            for ear in self._ears:
                closing.push_async_callback(ear.feed.close)

    async def _hear(self, session: str, until: float) -> Sequence[Event]:
        while True:
            self._life.check()
            await self._take()
            # No await between taking out and returning.
            events = self._inbox.take(session)
            if events or self._interrupted or self._world.monotonic() >= until:
                self._interrupted = False
                return events
            if await self._mend():
                continue  # what was missed meanwhile is told at once
            wait = min(until, self._next()) - self._world.monotonic()
            await self._world.bell.wait(wait, self._files())

    async def _take(self) -> None:
        """Put what has come into the inbox; ask who is silent, and cut who stays so."""
        for ear in self._ears:
            if not ear.open:
                continue
            try:
                came = await ear.feed.take()
                if came is None:
                    await self._look_after(ear)
                    continue
            except Fault:
                await self._cut(ear)
                continue
            ear.state, ear.heard, ear.pause = State.LIVE, self._world.monotonic(), 0.0
            for session, event in came:
                self._inbox.put(session, event)

    async def _look_after(self, ear: _Ear) -> None:
        now = self._world.monotonic()
        if now - ear.heard < self._quiet:
            return
        if ear.state is State.ASKED:
            msg = f"silent for {now - ear.heard + self._quiet:.1f} seconds"
            raise Fault(msg)
        await ear.feed.prod()
        ear.state, ear.heard = State.ASKED, now  # the answer has as long as the silence had

    async def _cut(self, ear: _Ear) -> None:
        """Give a feed up. One that had worked is opened anew at once."""
        ear.state = State.CLOSED
        ear.due = self._world.monotonic() + ear.pause
        ear.pause = min(max(FIRST_PAUSE, 2 * ear.pause), LONGEST_PAUSE)
        self._astray = self._astray or ear.feed.vital
        await ear.feed.close()

    async def _mend(self) -> bool:
        """Open what is due; whether anything was. Raises `Fault` if nothing vital is open then.

        While that is put off, it neither raises nor opens: the fault was told.
        """
        if self._astray and all(map(self._is_due, filter(_is_shut, self._ears))):
            await self._look_around()
        fault: Fault | None = None
        opened = False
        for ear in self._ears:
            if ear.open or not self._is_due(ear):
                continue
            try:
                await self._open(ear)
            except Fault as found:
                fault = found if ear.feed.vital else fault
            else:
                opened = True
        if fault is not None and not any(ear.open and ear.feed.vital for ear in self._ears):
            raise fault
        return opened

    async def _look_around(self) -> None:
        """Ask the source where to listen now."""
        feeds = await self._source.feeds()
        left = {id(ear.feed): ear for ear in self._ears}
        self._ears = [left.pop(id(feed)) if id(feed) in left else _Ear(feed) for feed in feeds]
        self._astray = False
        for ear in left.values():
            await ear.feed.close()

    async def _open(self, ear: _Ear) -> None:
        begun = self._world.monotonic()
        missed = True
        intact = False
        try:
            missed = await ear.feed.open()
            intact = True
        finally:
            if not intact:
                await self._cut(ear)
                if not ear.feed.vital:
                    ear.due += SHARE * (self._world.monotonic() - begun)
        ear.state, ear.heard = State.LIVE, self._world.monotonic()
        if missed and ear.feed.vital:
            self._inbox.miss()

    def _is_due(self, ear: _Ear) -> bool:
        return ear.due <= self._world.monotonic()

    def _next(self) -> float:
        """When something has to be done though nothing comes."""
        now = self._world.monotonic()
        return min(
            (
                min(ear.heard + self._quiet, now + ear.feed.pause()) if ear.open else ear.due
                for ear in self._ears
            ),
            default=now + FIRST_PAUSE,
        )

    def _files(self) -> Collection[int]:
        """What becomes readable when something comes."""
        numbers = (ear.feed.when_readable() for ear in self._ears if ear.open)
        return [number for number in numbers if number is not None]


def _is_shut(ear: _Ear) -> bool:
    """Whether wake-ups can't come by it."""
    return ear.feed.vital and not ear.open
