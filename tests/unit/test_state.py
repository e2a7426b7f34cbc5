"""What a client remembers of records, when replies overtake each other."""

import threading

from distjob import clock
from distjob.protocol.hearing import hear
from distjob.protocol.parts import IDLE, View, Wish
from distjob.protocol.state import REMEMBERED, ClientState
from distjob.rules.jobs import Job
from distjob.rules.record import JobRecord
from distjob.rules.ticket import Owner
from distjob.store import Missed


def state():
    return ClientState(
        Owner("ctl", "host", 1),
        ttl=10.0,
        wait=30.0,
        max_queued=0,
        pushed=True,
        clock=clock,
        signal=threading.Event,
    )


def test_who_may_have_missed_something_asks_whether_those_it_watches_live():
    """That one of them has ended may be what was missed; nobody says it a second time."""
    me = state()
    waiter = me.enroll("vm", "ticket")
    hear(me, Missed())
    assert waiter.doubts
    assert waiter.missed
    assert waiter.signal.is_set()


def test_a_reply_that_was_overtaken_does_not_bring_an_old_view_back():
    me = state()
    session = me.opened("s1", clock.monotonic())
    ticket = me.ticket(session, Wish("x", job=Job.MODIFY))
    record = JobRecord().request(ticket, wall=0.0)[1]
    me.enroll("vm", "another of this client")
    me.saw("vm", View(5, record.at(5)))
    assert me.views["vm"].version == 5
    me.saw("vm", IDLE, 7)
    me.saw("vm", View(6, record.at(5)))  # the reply to the commit before
    assert not me.views
    me.saw("vm", View(8, record.at(8)))
    assert me.views["vm"].version == 8
    me.saw("vm", IDLE, 9)
    me.dismiss("vm", "another of this client")
    for number in range(2 * REMEMBERED):
        me.saw(f"vm{number}", IDLE, 9)
    assert len(me.out_at) == REMEMBERED
