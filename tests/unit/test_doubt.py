"""What a change does about a commit of which nobody knows: it settles, reads, and knows."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from distjob import clock
from distjob.errors import BackendUnavailable, OutcomeUnknown
from distjob.protocol.begin import begin
from distjob.protocol.change import Changed, SessionEnded, change
from distjob.protocol.closing import close
from distjob.protocol.effects import CloseSession, Commit, Effect, KeepAlive, Op, Read, Settle, Wait
from distjob.protocol.held import end
from distjob.protocol.parts import HeldJob, Session, Wish
from distjob.protocol.state import ClientState
from distjob.rules.codec import encode
from distjob.rules.jobs import Job
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.ticket import Owner
from distjob.store import Committed, Gone, Settled, Stale, Versioned

UNANSWERED = BackendUnavailable("no answer", unanswered=True)
REFUSED = BackendUnavailable("connection refused")
WISH = Wish("x", job=Job.MODIFY)


class Cancelled(BaseException):
    pass


@pytest.fixture
def me() -> ClientState:
    return ClientState(
        Owner("ctl", "host", 1),
        ttl=10.0,
        wait=30.0,
        max_queued=0,
        pushed=True,
        clock=clock,
        signal=threading.Event,
    )


@pytest.fixture
def session(me: ClientState) -> Session:
    return me.opened("mine", clock.monotonic())


class Asking:
    """An operation, and a store that answers by hand."""

    def __init__(self, op: Op[Any]) -> None:
        self.op = op
        self.result: Any = None
        self.asked: Effect[Any] = next(op)

    def answer(self, reply: Any) -> Effect[Any] | None:
        """What it asks next; None: it has returned."""
        try:
            if isinstance(reply, BaseException):
                self.asked = self.op.throw(reply)
            else:
                self.asked = self.op.send(reply)
        except StopIteration as stop:
            self.result = stop.value
            return None
        return self.asked


def asks(me: ClientState, session: Session, patience: float = 5.0) -> tuple[Asking, JobRecord]:
    """A change that asks for a job, and the record that its commit makes."""
    ticket = me.ticket(session, WISH)

    def edit(record: JobRecord) -> tuple[JobRecord, Verdict]:
        verdict, new = record.request(ticket, wall=0.0)
        return new, verdict

    until = clock.monotonic() + patience
    return Asking(change(me, session, "vm", edit, until=until)), edit(JobRecord())[0]


def test_nothing_is_settled_where_all_is_answered(me: ClientState, session: Session) -> None:
    asking = Asking(begin(me, "vm", WISH, 5.0))
    assert isinstance(asking.asked, Commit)
    assert asking.answer(Committed(1)) is None
    ending = Asking(end(me, asking.result))
    assert isinstance(ending.asked, Commit)
    assert ending.answer(Committed(2)) is None
    assert not session.doubts


def test_a_lost_reply_is_settled_then_read_and_what_was_made_is_found(
    me: ClientState, session: Session
) -> None:
    asking, made = asks(me, session)
    assert asking.answer(UNANSWERED) == Settle("mine")
    assert session.doubts
    assert asking.answer(None) == Read("vm")
    assert not session.doubts
    assert asking.answer(Versioned(7, encode(made))) is None
    changed: Changed[Verdict] = asking.result
    assert (changed.found, changed.made) == (Verdict.GRANTED, False)
    assert changed.unheard == (Verdict.GRANTED,)


def test_what_was_not_made_is_sent_again(me: ClientState, session: Session) -> None:
    asking, _ = asks(me, session)
    asking.answer(UNANSWERED)
    asking.answer(None)
    assert isinstance(asking.answer(Versioned(0, None)), Commit)
    assert asking.answer(Committed(9)) is None
    assert asking.result.made
    assert asking.result.unheard == ()


def test_settling_is_tried_again_and_nothing_else_before(me: ClientState, session: Session) -> None:
    asking, _ = asks(me, session)
    assert asking.answer(UNANSWERED) == Settle("mine")
    for failure in (UNANSWERED, REFUSED, UNANSWERED):
        assert isinstance(asking.answer(failure), Wait)
        assert asking.answer(None) == Settle("mine")
    assert asking.answer(None) == Read("vm")
    assert isinstance(asking.answer(REFUSED), Wait)
    assert asking.answer(None) == Read("vm")  # settled it is; what it has come to is still asked
    assert isinstance(asking.answer(Versioned(0, None)), Commit)


def test_a_doubt_that_stays_is_said(me: ClientState, session: Session) -> None:
    asking, _ = asks(me, session, patience=0.0)
    assert asking.answer(UNANSWERED) == Settle("mine")
    with pytest.raises(OutcomeUnknown):
        asking.answer(REFUSED)
    assert session.doubts


def test_after_a_settling_without_a_look_the_outcome_is_unknown(
    me: ClientState, session: Session
) -> None:
    asking, _ = asks(me, session, patience=0.0)
    asking.answer(UNANSWERED)
    asking.answer(None)
    with pytest.raises(OutcomeUnknown):
        asking.answer(REFUSED)


def test_what_a_settling_overtook_is_sent_again(me: ClientState, session: Session) -> None:
    asking, _ = asks(me, session)
    first = asking.asked
    assert asking.answer(Settled()) == first
    assert asking.answer(Committed(1)) is None


@pytest.mark.parametrize("cut", [Cancelled(), GeneratorExit()], ids=["cancelled", "dropped"])
def test_whoever_withdraws_a_commit_under_way_settles_first(
    me: ClientState, session: Session, cut: BaseException
) -> None:
    asking, made = asks(me, session)
    with pytest.raises(type(cut)):
        asking.answer(cut)
    ticket = made.sync.ticket.id if made.sync else ""
    drop = Asking(
        change(
            me, session, "vm", lambda r: (r.drop(ticket, wall=0.0), None),
            until=clock.monotonic() + 5,
        )
    )  # fmt: skip
    assert drop.asked == Settle("mine")
    assert drop.answer(None) == Read("vm")
    taken = drop.answer(Versioned(7, encode(made)))
    assert isinstance(taken, Commit)
    assert taken.value is None


def test_a_begin_that_is_cancelled_while_it_waits_for_its_turn_settles_nothing(
    me: ClientState, session: Session
) -> None:
    """Nothing was sent: there is no doubt."""
    before, _ = asks(me, session)
    asking = Asking(begin(me, "vm", WISH, 5.0))
    assert isinstance(asking.asked, Wait)
    asking.answer(Cancelled())
    assert not session.doubts
    assert isinstance(before.asked, Commit)


def test_a_settling_ends_only_the_doubts_that_were_there(me: ClientState, session: Session) -> None:
    asking, _ = asks(me, session)
    asking.answer(UNANSWERED)
    session.doubt("other")  # while the settling is under way
    asking.answer(None)
    assert list(session.doubts) == ["other"]


def test_a_session_that_ended_says_what_may_have_been_made(
    me: ClientState, session: Session
) -> None:
    asking, _ = asks(me, session)
    asking.answer(UNANSWERED)
    asking.answer(None)
    asking.answer(Versioned(8, None))
    with pytest.raises(SessionEnded) as caught:
        asking.answer(Gone(frozenset({"mine"})))
    assert caught.value.unheard == (Verdict.GRANTED,)


def test_close_settles_what_is_in_doubt(me: ClientState, session: Session) -> None:
    session.doubt("vm")
    closing = Asking(close(me))
    assert closing.asked == Settle("mine")
    assert closing.answer(None) == Read("vm")
    assert closing.answer(Versioned(0, None)) == CloseSession("mine")


def held_one(me: ClientState) -> HeldJob:
    asking = Asking(begin(me, "vm", WISH, 5.0))
    asking.answer(Committed(1))
    held: HeldJob = asking.result
    return held


def test_an_end_whose_reply_was_lost_has_ended_it(me: ClientState, session: Session) -> None:
    ending = Asking(end(me, held_one(me)))
    ending.answer(UNANSWERED)
    ending.answer(None)
    assert ending.answer(Versioned(5, None)) == KeepAlive(session.id)
    assert ending.answer(True) is None  # noqa: FBT003  it lives


def test_a_stale_end_has_nothing_to_settle(me: ClientState, session: Session) -> None:
    held = held_one(me)
    value = encode(me.views["vm"].record)
    ending = Asking(end(me, held))
    assert isinstance(ending.answer(Stale(4, value)), Commit)
    assert ending.answer(Committed(5)) is None
    assert not session.doubts
