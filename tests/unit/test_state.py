"""What a client remembers of records, when replies overtake each other."""

import threading

from distjob import clock
from distjob.protocol.parts import IDLE, View, Wish
from distjob.protocol.state import ClientState
from distjob.rules.jobs import Job
from distjob.rules.record import JobRecord
from distjob.rules.ticket import Owner


def test_a_reply_that_was_overtaken_does_not_bring_an_old_view_back():
    me = ClientState(
        Owner("ctl", "host", 1),
        ttl=10.0,
        wait=30.0,
        max_queued=0,
        pushed=True,
        clock=clock,
        signal=threading.Event,
    )
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
    assert not me.out_at
