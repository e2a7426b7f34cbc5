"""The rules of an async job's life: owners, those who adopt, orphans, force, and who is woken."""

import itertools
import threading

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distjob import clock
from distjob.protocol.begin import begin
from distjob.protocol.effects import Read
from distjob.protocol.hands import work
from distjob.protocol.parts import Wish
from distjob.protocol.state import ClientState
from distjob.rules.async_job import adopt, amend, detach, request_abort
from distjob.rules.codec import decode, encode
from distjob.rules.jobs import DEFAULT_MASK, AsyncJob, Job, OnOwnerLoss, mask_of
from distjob.rules.line import bereft, woken
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.ticket import AbortRequest, Left, Owner, Progress, Ticket
from distjob.store import Committed, Versioned, Woken

OWNER = Owner("ctl", "host", 7)
ABORT = AbortRequest(OWNER, 5.0, "maintenance")
ORPHAN = OnOwnerLoss.ORPHAN
count = itertools.count(1)


def ticket(job=Job.ASYNC, session="s1", **facts):
    number = next(count)
    if job in (Job.ASYNC, Job.ASYNC_NESTED):
        facts.setdefault("kind", AsyncJob.BACKUP)
    return Ticket(
        id=f"t{number}", session=session, owner=OWNER, api="api", asked=number, job=job, **facts
    )


def step_of(long, session="s1"):
    return ticket(Job.ASYNC_NESTED, session, parent=long.id)


def asking(record, *wanted):
    for one in wanted:
        record = record.request(one, wall=1.0)[1]
    return record


def running(policy=OnOwnerLoss.RELEASE, session="s1"):
    long = ticket(session=session, on_owner_loss=policy)
    return long, asking(JobRecord(), long).at(7)


def left(how=Left.DETACHED):
    long, record = running(ORPHAN)
    record = amend(record, long.id, wall=1.0, phase="copy", mask=mask_of([Job.MODIFY]))
    if how is Left.DETACHED:
        return long, detach(record, long.id, wall=1.0)
    return long, record.evict({"s1"}, wall=1.0)


def test_the_owner_sets_mask_phase_and_progress():
    long, record = running()
    progress = Progress(1.0, 4.0, "GiB")
    new = amend(record, long.id, wall=1.0, phase="copy", progress=progress)
    assert (new.async_.phase, new.async_.progress, new.async_.mask) == (
        "copy",
        progress,
        DEFAULT_MASK,
    )
    assert new.async_.token == 7
    assert amend(new, long.id, wall=2.0, phase="copy") is new
    assert amend(new, long.id, wall=2.0) is new
    assert amend(new, "t0", wall=2.0, phase="done") is None


@pytest.mark.parametrize("how", Left)
def test_who_has_left_a_job_changes_nothing_of_it(how):
    long, record = left(how)
    assert amend(record, long.id, wall=1.0, phase="done") is None
    assert record.end(long.id, wall=1.0) is record
    assert record.drop(long.id, wall=1.0) is record
    assert record.holder_of(long.id) is None


@pytest.mark.parametrize("how", Left)
def test_a_job_that_was_left_keeps_slot_and_mask_and_is_nobodys(how):
    _, record = left(how)
    assert record.async_.owner_gone is how
    assert record.async_.phase == "copy"
    assert list(record.owners()) == []
    assert record.sessions() == set()
    assert not record.names("s1")
    assert record.count() == 1
    assert not record.idle
    assert record.request(ticket(Job.SUSPEND, "s2"), wall=1.0, wait=False)[0] is Verdict.BUSY
    assert record.request(ticket(session="s2"), wall=1.0, wait=False)[0] is Verdict.BUSY
    assert record.request(ticket(Job.MODIFY, "s2"), wall=1.0)[0] is Verdict.GRANTED
    assert record.evict({"s1"}, wall=1.0) is record


def test_detaching_twice_is_detaching_once_and_nothing_after_the_session_s_end():
    long, record = left()
    assert detach(record, long.id, wall=2.0) is record
    assert detach(record, "t0", wall=2.0) is None
    assert detach(JobRecord(), long.id, wall=2.0) is None
    orphaned, record = left(Left.ORPHANED)
    assert detach(record, orphaned.id, wall=2.0) is None


def test_steps_that_wait_go_when_the_job_is_left_and_one_under_way_stays():
    long, record = running(ORPHAN)
    under_way, waits, other = step_of(long), step_of(long), ticket(Job.DESTROY, "s2")
    record = detach(asking(record, under_way, waits, other).at(4), long.id, wall=2.0)
    assert record.sync.ticket == under_way
    assert record.queue == (other,)
    assert record.end(under_way.id, wall=3.0).sync.ticket == other
    assert record.evict({"s1"}, wall=3.0).sync.ticket == other  # the step's session has ended


def test_the_policy_says_what_the_end_of_the_session_means():
    long, record = running(OnOwnerLoss.RELEASE)
    assert record.evict({"s1"}, wall=2.0).idle
    long, record = running(ORPHAN)
    waits = ticket(session="s2")
    record = asking(record, step_of(long), step_of(long), waits).evict({"s1"}, wall=2.0)
    assert record.async_.owner_gone is Left.ORPHANED
    assert record.async_.ticket == long
    assert record.sync is None
    assert record.queue == (waits,)


@pytest.mark.parametrize("how", Left)
def test_who_adopts_finds_all_as_it_was_and_has_a_new_token(how):
    _, record = left(how)
    record = request_abort(record, ABORT).at(9)
    heir = ticket(session="s2")
    verdict, new = adopt(record, heir)
    new = new.at(12)
    assert verdict is Verdict.GRANTED
    assert new.async_.ticket.id == heir.id
    assert new.async_.ticket.on_owner_loss is ORPHAN
    was, now = record.async_, new.async_
    assert (now.token, was.token, now.owner_gone) == (12, 7, None)
    assert (now.since, now.mask, now.phase, now.abort) == (
        was.since,
        was.mask,
        was.phase,
        was.abort,
    )
    assert adopt(new, heir) == (Verdict.GRANTED, new)
    assert new.request(step_of(heir, "s2"), wall=1.0)[0] is Verdict.GRANTED


def test_only_one_adopts_and_only_what_was_left():
    long, record = left()
    assert new_owner(record).request(step_of(long), wall=1.0)[0] is Verdict.NOT_OWNER
    assert adopt(new_owner(record), ticket(session="s3"))[0] is Verdict.NOT_OWNER
    other = ticket(session="s2", kind=AsyncJob.SAVE)
    assert adopt(record, other) == (Verdict.WRONG_JOB, record)
    assert adopt(JobRecord(), other) == (Verdict.WRONG_JOB, JobRecord())


def new_owner(record):
    return adopt(record, ticket(session="s2"))[1]


def test_the_first_request_to_abort_stands():
    _, record = running()
    asked = request_abort(record, ABORT)
    assert asked.async_.abort == ABORT
    assert request_abort(asked, AbortRequest(OWNER, 6.0, "again")) is asked
    assert request_abort(JobRecord(), ABORT) is None
    assert request_abort(left()[1], ABORT).async_.abort == ABORT


@pytest.mark.parametrize("how", [None, *Left])
def test_force_takes_a_job_and_all_its_steps(how):
    long, record = running(ORPHAN)
    if how:
        long, record = left(how)
    heir = long
    if how:
        heir = ticket(session="s2")
        record = adopt(record, heir)[1]
    under_way, waits = step_of(heir, heir.session), step_of(heir, heir.session)
    other = ticket(Job.SUSPEND, "s3")
    record = asking(record, under_way, waits, other)
    new = record.remove([heir.id], wall=2.0)
    assert new.async_ is None
    assert new.sync.ticket == other
    assert not new.queue
    assert record.remove(["t0"], wall=2.0) is record


def test_force_takes_what_was_left_and_who_waits():
    long, record = left()
    one, two = ticket(session="s2"), ticket(session="s3")
    record = asking(record, one, two)
    assert record.remove([long.id], wall=2.0).async_.ticket == one
    assert record.remove([one.id], wall=2.0).queue == (two,)


def test_the_owner_is_woken_for_a_request_to_abort_and_nobody_else():
    long, record = running()
    assert woken(record, request_abort(record, ABORT), "s9") == {"s1"}
    asked = request_abort(record, ABORT)
    assert woken(asked, amend(asked, long.id, wall=1.0, phase="x"), "s9") == set()
    _, orphan = left()
    assert woken(orphan, request_abort(orphan, ABORT), "s9") == set()


def test_whoever_loses_something_by_force_is_woken_but_not_the_author():
    long, record = running()
    step, waits = step_of(long), ticket(Job.SUSPEND, "s2")
    record = asking(record, step, waits)
    assert woken(record, record.remove([long.id], wall=1.0), "s9") == {"s1", "s2"}
    assert bereft(record, record.remove([waits.id], wall=1.0), "s9") == {"s2"}
    assert bereft(record, record.remove([long.id], wall=1.0), "s1") == set()
    _, orphan = left()
    assert woken(orphan, orphan.remove([orphan.async_.ticket.id], wall=1.0), "s9") == set()


def test_nobody_is_bereft_by_what_lets_one_in():
    long, record = running()
    waits = ticket(Job.SUSPEND, "s2")
    record = asking(record, waits)
    assert bereft(record, record.end(long.id, wall=1.0), "s1") == set()
    assert woken(record, record.end(long.id, wall=1.0), "s1") == {"s2"}


@pytest.mark.parametrize("taken", [True, False])
def test_what_overtakes_the_reply_to_begin_is_looked_for(taken):
    """A wake-up comes by another connection: it may be there before the job is."""
    me = ClientState(
        OWNER, ttl=9.0, wait=1.0, max_queued=0, pushed=True, clock=clock, signal=threading.Event
    )
    me.opened("s1", clock.monotonic())
    op = begin(me, "vm", Wish("api", job=Job.ASYNC, kind=AsyncJob.BACKUP), 1.0)
    granted = decode("vm", 5, next(op).value)
    asked = request_abort(granted, ABORT)
    me.hear(Woken(vm="vm", version=6, value=None if taken else encode(asked)))
    with pytest.raises(StopIteration) as done:
        op.send(Committed(version=5))
    held = done.value.value
    assert held.abort is None
    hands = work(me)
    assert next(hands) == Read("vm")
    found = Versioned(0, None) if taken else Versioned(6, encode(asked))
    hands.send(found)
    assert (held.taken, held.abort) == (taken, None if taken else ABORT)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["begin", "sync", "step", "end", "evict", "detach", "adopt", "abort", "phase", "force"]
        ),
        st.sampled_from(["s1", "s2", "s3"]),
        st.sampled_from(list(OnOwnerLoss)),
        st.integers(0, 5),
    ),
    max_size=40,
)


def apply(record, kind, session, policy, pick):
    tickets = [*{h.ticket.id: h.ticket for _, h in record.holders()}.values(), *record.queue]
    one = tickets[pick % len(tickets)].id if tickets else "t0"
    long = record.async_.ticket if record.async_ else None
    match kind:
        case "begin":
            return asking(record, ticket(session=session, on_owner_loss=policy))
        case "sync":
            return asking(record, ticket(Job.QUERY if pick % 2 else Job.SUSPEND, session))
        case "step":
            return asking(record, step_of(long, long.session)) if long else record
        case "end":
            return record.drop(one, wall=1.0)
        case "evict":
            return record.evict({session}, wall=1.0)
        case "detach":
            return detach(record, one, wall=1.0) or record
        case "adopt":
            return adopt(record, ticket(session=session))[1]
        case "abort":
            return request_abort(record, ABORT) or record
        case "phase":
            return amend(record, one, wall=1.0, phase=f"p{pick}") or record
        case _:
            return record.remove([one], wall=1.0)


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_whatever_happens_a_job_has_one_owner_or_none(steps):
    record, version, last = JobRecord(), 0, 0
    for kind, session, policy, pick in steps:
        before, version = record, version + 1
        record = apply(record, kind, session, policy, pick).at(version)
        was, now = before.async_, record.async_
        assert not any(record.admits(one) for one in record.queue)
        if now is None:
            assert not any(one.nested for one in record.queue)
            assert not (
                was and was.owner_gone and kind != "force"
            )  # only force frees what was left
            continue
        assert now.token >= last
        last = now.token
        assert all(
            one.parent == now.ticket.id and not now.owner_gone for one in record.queue if one.parent
        )
        if was and was.ticket.id == now.ticket.id:
            same = {"owner_gone", "abort", "phase"}
            facts = [msgspec.structs.asdict(holder) for holder in (was, now)]
            assert [(k, v) for k, v in facts[0].items() if k not in same] == [
                (k, v) for k, v in facts[1].items() if k not in same
            ]
            assert now.phase == was.phase or kind == "phase"
            assert (was.owner_gone, now.owner_gone) in {
                (None, None),
                (None, Left.DETACHED),
                (None, Left.ORPHANED),
                (was.owner_gone, was.owner_gone),
            }
        elif was and kind == "adopt":
            assert was.owner_gone
            assert (now.phase, now.mask, now.abort) == (was.phase, was.mask, was.abort)
            assert now.token == version
