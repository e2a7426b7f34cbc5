"""What a change does when others are first: it tries again at once, and steps aside for a herd."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from distjob.protocol.change import change
from distjob.protocol.effects import Commit, Op, Read, Wait
from distjob.protocol.parts import View, Wish
from distjob.protocol.state import ClientState
from distjob.protocol.tries import HERD, LONGEST
from distjob.rules.codec import encode
from distjob.rules.jobs import AsyncJob, Job
from distjob.rules.record import JobRecord
from distjob.rules.ticket import Owner
from distjob.store import Committed, Gone, Stale, Versioned


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 0.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def me(clock: Clock) -> ClientState:
    return ClientState(
        Owner("ctl", "host", 1),
        ttl=10.0,
        wait=30.0,
        max_queued=0,
        pushed=True,
        clock=clock,
        signal=threading.Event,
    )


class Store:
    """Answers by hand: that another was first, and that so many wait."""

    def __init__(self, me: ClientState, clock: Clock, until: float) -> None:
        self.clock = clock
        self.others = me.opened("others", clock.now)
        self.me = me
        self.record = JobRecord()
        self.join()
        self.version = 1
        session = me.opened("mine", clock.now)
        ticket = me.ticket(session, Wish("x", job=Job.MODIFY))
        self.op: Op[Any] = change(
            me, session, "vm", lambda record: record.request(ticket, wall=0.0)[::-1], until=until
        )
        self.asked: Any = next(self.op)

    def join(self) -> None:
        ticket = self.me.ticket(self.others, Wish("x", job=Job.MODIFY))
        self.record = self.record.request(ticket, wall=0.0)[1]

    def refuse(self, took: float, came: int) -> None:
        assert isinstance(self.asked, Commit)
        self.clock.now += took
        for _ in range(came):
            self.join()
        self.version += 1
        self.asked = self.op.send(Stale(self.version, encode(self.record)))

    def refuse_until_it_pauses(self) -> int:
        times = 0
        while isinstance(self.asked, Commit):
            self.refuse(0.01, 1)
            times += 1
            assert times < 100
        return times


def test_the_next_try_follows_at_once(me: ClientState, clock: Clock) -> None:
    store = Store(me, clock, clock.now + 30)
    for came in (HERD, *[0] * 50):
        store.refuse(0.01, came)
        assert isinstance(store.asked, Commit)
        assert store.asked.expected == store.version
    with pytest.raises(StopIteration):
        store.op.send(Committed(99))


def test_a_pause_is_followed_by_a_look_and_the_look_by_a_try(me: ClientState, clock: Clock) -> None:
    store = Store(me, clock, clock.now + 30)
    longest = 0.0
    for _ in range(3):
        assert store.refuse_until_it_pauses() == 1 + HERD + 1
        assert 0 <= store.asked.seconds <= min(LONGEST, 0.01 * len(store.record.queue))
        longest = max(longest, store.asked.seconds)
        clock.now += store.asked.seconds
        assert isinstance(store.op.send(None), Read)
        store.version += 10
        store.asked = store.op.send(Versioned(store.version, encode(store.record)))
        assert isinstance(store.asked, Commit)
        assert store.asked.expected == store.version
    assert longest > 0


def test_no_pause_is_longer_than_a_call_may_take(me: ClientState, clock: Clock) -> None:
    store = Store(me, clock, clock.now + 0.02)
    store.refuse(0.0, 0)
    store.refuse(0.01, HERD + 1)
    assert isinstance(store.asked, Wait)
    assert store.asked.seconds <= 0.01
    clock.now += 0.01
    store.op.send(None)
    store.asked = store.op.send(Versioned(store.version, encode(store.record)))
    for _ in range(50):
        store.refuse(0.01, 1)
        assert isinstance(store.asked, Commit)


def test_a_step_is_not_let_in_by_the_commit_that_ends_its_job(
    me: ClientState, clock: Clock
) -> None:
    """The store says that who held the sync slot is dead, while the owner ends its job."""
    mine, dead = me.opened("mine", clock.now), me.opened("dead", clock.now)
    long = me.ticket(mine, Wish("x", job=Job.ASYNC, kind=AsyncJob.SAVE))
    step = Wish("x", job=Job.ASYNC_NESTED, kind=AsyncJob.SAVE, parent=long.id)
    record = JobRecord()
    for ticket in (
        long,
        me.ticket(dead, Wish("x", job=Job.QUERY)),
        me.ticket(mine, step),
        me.ticket(dead, Wish("x", job=Job.MODIFY)),
    ):
        record = record.request(ticket, wall=0.0)[1]
    me.saw("vm", View(5, record.at(5)))
    until = clock.now + 30
    op = change(me, mine, "vm", lambda r: (r.end(long.id, wall=0.0), None), until=until)
    first: Any = next(op)
    assert first.wake == {mine.id, dead.id}
    second: Any = op.send(Gone(frozenset((dead.id,))))
    assert (second.expected, second.value) == (5, None), "nobody holds or waits any more"
    assert second.wake == {mine.id}, "whose step is told"
