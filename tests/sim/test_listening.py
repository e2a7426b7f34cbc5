"""Listening, in virtual time: feeds that are cut, hang, die without a word, resume or forget.

Whatever happens, an event that was sent is received, or `Missed` is, after it was sent. Cancelled
receivers lose nothing, an interruption ends a wait, and nobody spins.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from distjob.backend.inbox import Inbox
from distjob.backend.life import Life
from distjob.backend.listening import Listening
from distjob.backend.source import Fault
from distjob.store import Event, Missed, Woken
from distjob.testing.sim.steps import Cancelled, SimWorld, Steps

QUIET = 1.0
SPAN = 60.0


class Clockwork:
    """A scheduler."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._entries = 0

    def after(self, seconds: float, do: Callable[..., None], *args: Any) -> None:
        self._entries += 1
        heapq.heappush(self._queue, (self.now + seconds, self._entries, do, args))

    def jitter(self) -> float:
        return self.rng.random() * 0.001

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.steps += 1
            self.now, _, do, args = heapq.heappop(self._queue)
            do(*args)
        self.now = until


class Server:
    """Sends events to whoever is subscribed; keeps the last few for those who resume."""

    def __init__(self, clockwork: Clockwork) -> None:
        self.clockwork = clockwork
        self.subscribed: set[SimFeed] = set()
        self.sent: list[Event] = []
        self.away_until = 0.0

    def send(self) -> None:
        self.sent.append(event := Woken("vm", len(self.sent) + 1, None))
        for feed in self.subscribed:
            feed.arrive(event)

    @property
    def away(self) -> bool:
        return self.clockwork.now < self.away_until


class SimFeed:
    """One subscription; ``resumes`` says whether nothing is lost over a reconnection."""

    def __init__(self, world: SimWorld, server: Server, *, vital: bool, resumes: bool) -> None:
        self.vital = vital
        self.resumes = resumes
        self.opened = 0
        self._world = world
        self._server = server
        self._come: list[tuple[str, Event]] = []
        self._words = 0
        self._seen = 0
        self._dead = False
        self._cut = False

    async def open(self) -> bool:
        rng = self._server.clockwork.rng
        await self._world.sleep(rng.choice((0.001, 0.01, 0.3)))
        if self._server.away:
            raise Fault("nobody answers")
        self.opened += 1
        self._dead = self._cut = False
        if not self.resumes:
            self._come.clear()
        else:
            self._come += [("s", event) for event in self._server.sent[self._seen :]]
            self._seen = len(self._server.sent)
        self._server.subscribed.add(self)
        return not self.resumes

    async def take(self) -> Sequence[tuple[str, Event]] | None:
        if not self._come and self._cut:
            raise Fault("cut")
        if not self._come and not self._words:
            return None
        self._words = 0
        come, self._come = self._come, []
        return come

    async def prod(self) -> None:
        if not self._dead and not self._server.away:
            self._words += 1
            self._world.bell.ring()

    def when_readable(self) -> int | None:
        return None

    def pause(self) -> float:
        return float("inf")

    async def close(self) -> None:
        self._server.subscribed.discard(self)

    def arrive(self, event: Event) -> None:
        if not self._dead:
            self._seen = len(self._server.sent)
            if self.vital:
                self._come.append(("s", event))
            else:
                self._words += 1
            self._world.bell.ring()

    def cut(self) -> None:
        self._cut = self in self._server.subscribed
        self._server.subscribed.discard(self)
        self._world.bell.ring()

    def die(self) -> None:
        """Nothing comes any more, and nobody says so."""
        self._dead = True


class SimSource:
    """Where to listen: one vital feed, at one of two servers, and perhaps another feed."""

    def __init__(self, world: SimWorld, clockwork: Clockwork) -> None:
        rng = clockwork.rng
        self.server = Server(clockwork)
        resumes = rng.random() < 0.3
        self.vital = [
            SimFeed(world, self.server, vital=True, resumes=resumes)
            for _ in range(1 if resumes else 2)
        ]
        self.other = SimFeed(world, Server(clockwork), vital=False, resumes=False)
        self.with_other = rng.random() < 0.5
        self._world = world

    async def feeds(self) -> Collection[SimFeed]:
        await self._world.sleep(0.001)
        rng = self.server.clockwork.rng
        if rng.random() < 0.1:
            raise Fault("nobody knows where to listen")
        return [rng.choice(self.vital), *([self.other] if self.with_other else [])]


class Play:
    """One world, with a client that receives, is cancelled and interrupted at will."""

    def __init__(self, seed: int, listening: type[Listening] = Listening) -> None:
        self.clockwork = clockwork = Clockwork(seed)
        self.world = SimWorld(clockwork, lambda: clockwork.now)
        self.source = SimSource(self.world, clockwork)
        self.inbox = Inbox()
        self.listening = listening(
            self.source,
            self.world,
            self.inbox,
            Life(self.world),
            QUIET,  # type: ignore[arg-type]
        )
        self.inbox.begin("s")
        self.got: list[tuple[float, Event]] = []
        self.told: list[float] = []
        self.faulty = True
        self.receiving: Steps | None = None
        self.interrupted_at = 0.0

    async def receive(self) -> None:
        while True:
            asked = self.clockwork.now
            try:
                for event in await self.listening.hear("s", self.clockwork.rng.choice((0.0, 5.0))):
                    self.got.append((self.clockwork.now, event))
            except Fault:
                self.told.append(self.clockwork.now)
                await self.world.sleep(0.1)
            if self.clockwork.now == asked:
                await self.world.sleep(0.01)

    def start(self) -> None:
        def then(_: object, error: BaseException | None) -> None:
            assert isinstance(error, Cancelled), error
            self.start()

        self.receiving = Steps(self.clockwork, self.receive(), then)

    def mischief(self) -> None:
        """Something now and then."""
        rng, source = self.clockwork.rng, self.source
        if self.faulty:
            match rng.randrange(8):
                case 0:
                    rng.choice([*source.vital, source.other]).cut()
                case 1:
                    rng.choice([*source.vital, source.other]).die()
                case 2:
                    source.server.away_until = self.clockwork.now + rng.random() * 5
                    for feed in source.vital:
                        feed.cut()
                case 3 if self.receiving:
                    self.receiving.cancel()
                case 4:
                    self.listening.interrupt()
            self.clockwork.after(rng.random() * 2, self.mischief)

    def traffic(self) -> None:
        self.source.server.send()
        if self.faulty:
            self.clockwork.after(self.clockwork.rng.random() * 0.5, self.traffic)

    def run(self) -> None:
        self.start()
        self.traffic()
        self.mischief()
        self.clockwork.run(SPAN)
        self.faulty = False
        self.clockwork.run(SPAN + 20.0)
        if self.receiving:
            self.receiving.drop()

    def lost(self) -> list[int]:
        """Events of which nobody was told."""
        received = {event.version for _, event in self.got if isinstance(event, Woken)}
        last = max(
            (number for number, (_, event) in enumerate(self.got) if isinstance(event, Missed)),
            default=-1,
        )
        after = [event.version for _, event in self.got[last:] if isinstance(event, Woken)]
        heard = min(after, default=len(self.source.server.sent) + 1) if last >= 0 else 0
        return [
            event.version
            for event in self.source.server.sent
            if isinstance(event, Woken)
            and event.version not in received
            and (last < 0 or event.version > heard)
        ]


@pytest.mark.parametrize("seed", range(100))
def test_what_was_sent_is_received_or_told_to_be_missed(seed: int) -> None:
    play = Play(seed)
    play.run()
    assert not play.lost()
    assert play.got, "nothing was received in all that time"
    assert play.clockwork.steps < 40_000, "somebody spins"


def test_worlds_meet_what_they_are_for() -> None:
    plays = [Play(seed) for seed in range(40)]
    for play in plays:
        play.run()
    assert any(play.told for play in plays)
    assert any(isinstance(event, Missed) for play in plays for _, event in play.got)
    assert any(feed.opened > 3 for play in plays for feed in play.source.vital)


class Silent(Listening):
    """Never asks whether a silent feed lives."""

    async def _look_after(self, ear: Any) -> None: ...


class Hasty(Listening):
    """Does not say that something may be missed."""

    async def _open(self, ear: Any) -> None:
        await super()._open(ear)
        self._inbox.take("s")


@pytest.mark.parametrize("broken", [Silent, Hasty])
def test_a_mistake_is_found(broken: type[Listening]) -> None:
    for seed in range(100):
        play = Play(seed, broken)
        play.run()
        if play.lost():
            return
    pytest.fail("no world has shown it")
