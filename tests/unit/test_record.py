"""The rules one by one, and what must hold after any sequence of them."""

import dataclasses
import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distjob.rules.async_job import amend, detach
from distjob.rules.codec import encode
from distjob.rules.jobs import DEFAULT_MASK, PLAIN_JOBS, AgentJob, AsyncJob, Job, Slot, mask_of
from distjob.rules.line import SHORT, stirred, watched, woken
from distjob.rules.record import LONGEST_LINE, JobRecord, Verdict
from distjob.rules.ticket import Owner, Ticket
from distjob.rules.words import full_text
from distjob.testing.sim.judges.plain import Plain

OWNER = Owner("ctl", "host", 7)
count = itertools.count(1)


def ticket(job=None, session="s1", **facts):
    number = next(count)
    return Ticket(
        id=f"t{number}", session=session, owner=OWNER, api="api", asked=number, job=job, **facts
    )


def asking(record, wanted, **options):
    return record.request(wanted, wall=100.0, **options)


def granted(record, *wanted):
    for one in wanted:
        verdict, record = asking(record, one)
        assert verdict is Verdict.GRANTED
    return record


def waiting(record, *wanted):
    for one in wanted:
        verdict, record = asking(record, one)
        assert verdict is Verdict.WAITING
    return record


def test_one_sync_job_at_a_time():
    first, second = ticket(Job.QUERY), ticket(Job.QUERY)
    record = waiting(granted(JobRecord(), first), second)
    record = record.end(first.id, wall=101.0)
    assert record.sync.ticket == second
    assert record.sync.since == 101.0
    assert record.end(second.id, wall=102.0).idle


def test_sync_and_agent_slots_are_apart_and_one_request_may_take_both():
    agent = ticket(agent=AgentJob.QUERY)
    record = granted(JobRecord(), agent, ticket(Job.MODIFY))
    both = ticket(Job.MODIFY, agent=AgentJob.MODIFY)
    record = waiting(record, both)
    record = record.end(agent.id, wall=0.0)
    assert record.waits(both.id)
    record = record.end(record.sync.ticket.id, wall=0.0)
    assert (record.sync.ticket, record.agent.ticket) == (both, both)
    assert record.count() == 1
    assert record.end(both.id, wall=0.0).idle


def test_an_async_job_masks_and_does_not_take_the_sync_slot():
    long = ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    record = granted(JobRecord(), long)
    assert record.sync is None
    for job in PLAIN_JOBS:
        verdict, _ = asking(record, ticket(job), wait=False)
        assert (verdict is Verdict.GRANTED) == (job in DEFAULT_MASK)
    assert asking(record, ticket(Job.ASYNC, kind=AsyncJob.DUMP), wait=False)[0] is Verdict.BUSY
    granted(record, ticket(agent=AgentJob.MODIFY))


def test_a_request_for_the_async_slot_needs_the_sync_slot_free():
    sync, long = ticket(Job.QUERY), ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    record = waiting(granted(JobRecord(), sync), long)
    assert record.end(sync.id, wall=0.0).async_.ticket == long


def test_an_end_lets_in_an_async_request_and_the_older_job_that_it_admits():
    """Trace 2113 of libvirt: both start, as the async request does not take the slot."""
    sync, abort = ticket(Job.DESTROY), ticket(Job.ABORT)
    long = ticket(Job.ASYNC, kind=AsyncJob.MIGRATION_OUT)
    record = waiting(granted(JobRecord(), sync), abort, long).end(sync.id, wall=0.0)
    assert (record.sync.ticket, record.async_.ticket) == (abort, long)


def test_an_async_request_does_not_start_beside_a_job_over_an_older_one_that_it_shuts_out():
    """Else whatever heads the line would take a later migration past an older modification."""
    sync, abort = ticket(Job.DESTROY), ticket(Job.ABORT)
    long = ticket(Job.ASYNC, kind=AsyncJob.MIGRATION_OUT)
    modify, query, guest = (
        ticket(Job.MODIFY),
        ticket(Job.QUERY),
        ticket(agent=AgentJob.MODIFY),
    )
    busy = granted(JobRecord(), sync, ticket(agent=AgentJob.QUERY))
    record = waiting(busy, abort, modify, long).end(sync.id, wall=0.0)
    assert record.sync.ticket == abort
    assert [one.id for one in record.queue] == [modify.id, long.id]
    record = record.end(abort.id, wall=0.0)
    assert (record.sync.ticket, record.async_) == (modify, None)
    assert record.end(modify.id, wall=0.0).async_.ticket == long

    for older in ([query], [guest], [query, guest]):  # they need not wait longer for it
        record = waiting(busy, abort, *older, long).end(sync.id, wall=0.0)
        assert (record.sync.ticket, record.async_.ticket) == (abort, long)
    record = waiting(busy, abort, long, modify).end(sync.id, wall=0.0)  # it is younger
    assert (record.sync.ticket, record.async_.ticket) == (abort, long)


def test_an_async_request_does_not_pass_an_older_job_that_it_would_keep_out():
    sync, modify = ticket(Job.DESTROY), ticket(Job.MODIFY)
    long = ticket(Job.ASYNC, kind=AsyncJob.MIGRATION_OUT)
    record = waiting(granted(JobRecord(), sync), modify, long).end(sync.id, wall=0.0)
    assert record.sync.ticket == modify
    assert record.waits(long.id)


def test_a_new_mask_admits_waiters_at_once_and_the_oldest_first():
    long = ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    suspend, modify, later = ticket(Job.SUSPEND), ticket(Job.MODIFY), ticket(Job.MODIFY)
    record = waiting(granted(JobRecord(), long), suspend, modify, later)
    record = amend(record, long.id, mask=mask_of([Job.MODIFY]), wall=0.0)
    assert record.sync.ticket == modify
    assert [t.id for t in record.queue] == [suspend.id, later.id]
    assert record.async_.mask == (Job.DESTROY, Job.MODIFY)
    assert amend(record, modify.id, mask=DEFAULT_MASK, wall=0.0) is None


@pytest.mark.parametrize("job", [Job.ASYNC, Job.ASYNC_NESTED])
def test_request_only_types_are_in_no_mask(job):
    with pytest.raises(ValueError, match="never masked in"):
        mask_of([job])


def test_a_step_is_for_the_owner_and_names_the_type():
    long = ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    record = granted(JobRecord(), long)

    def step(**facts):
        return ticket(Job.ASYNC_NESTED, **{"kind": AsyncJob.SAVE, "parent": long.id, **facts})

    assert asking(record, step(session="s2"))[0] is Verdict.NOT_OWNER
    assert asking(record, step(parent="t0"))[0] is Verdict.NOT_OWNER
    assert asking(JobRecord(), step())[0] is Verdict.NOT_OWNER
    assert asking(record, step(kind=AsyncJob.DUMP))[0] is Verdict.WRONG_JOB
    granted(record, step())


def test_a_step_that_another_death_lets_in_goes_when_the_same_commit_ends_its_job():
    """It would begin when its job is over, and nobody but it would know."""
    long = ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    dead, step = (
        ticket(Job.QUERY, "dead"),
        ticket(Job.ASYNC_NESTED, kind=AsyncJob.SAVE, parent=long.id),
    )
    modify = ticket(Job.MODIFY, "s3")
    record = waiting(granted(JobRecord(), long, dead), step, modify).at(7)
    evicted = record.evict(["dead"], wall=0.0)
    assert evicted.sync.ticket == step
    ended = evicted.end(long.id, wall=0.0)
    assert (ended.sync.ticket, ended.async_, ended.queue) == (modify, None, ())
    left = detach(evicted, long.id, wall=0.0)
    assert (left.sync, [one.id for one in left.queue]) == (None, [modify.id])
    committed = evicted.at(8)
    assert committed.end(long.id, wall=0.0).sync.ticket == step, "it is under way"
    assert detach(committed, long.id, wall=0.0).sync.ticket == step


def test_a_line_is_at_most_so_long():
    record = granted(JobRecord(), ticket(Job.MODIFY))
    line = tuple(ticket(Job.MODIFY) for _ in range(LONGEST_LINE - 1))
    record = waiting(msgspec.structs.replace(record, queue=line), ticket(Job.MODIFY))
    for one in (ticket(Job.DESTROY), ticket(Job.ASYNC, kind=AsyncJob.SAVE)):
        assert asking(record, one) == (Verdict.FULL, record)
        assert Plain(encode(record.at(3))).full(msgspec.to_builtins(one), 0)
    assert asking(record, ticket(agent=AgentJob.QUERY))[0] is Verdict.GRANTED
    assert asking(record, ticket(Job.MODIFY), wait=False)[0] is Verdict.BUSY
    text = full_text("vm", record, ticket(Job.DESTROY), 0, 0.0)
    assert (
        f"{LONGEST_LINE + 1} jobs are held or waited for, more than {LONGEST_LINE} can't wait"
        in text
    )


def test_steps_that_wait_go_with_their_async_job_and_one_under_way_stays():
    long = ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    steps = [ticket(Job.ASYNC_NESTED, kind=AsyncJob.SAVE, parent=long.id) for _ in range(2)]
    modify = ticket(Job.MODIFY)
    record = waiting(granted(JobRecord(), long, steps[0]), steps[1], modify).at(4)
    record = record.end(long.id, wall=0.0)
    assert record.sync.ticket == steps[0]
    assert record.queue == (modify,)
    assert record.end(steps[0].id, wall=0.0).sync.ticket == modify


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        ({"job": Job.QUERY}, True),
        ({"job": Job.DESTROY}, False),
        ({"job": Job.ASYNC, "kind": AsyncJob.SAVE}, False),
        ({"agent": AgentJob.QUERY}, True),
        ({"job": Job.QUERY, "agent": AgentJob.QUERY}, True),
    ],
)
@pytest.mark.parametrize("wait", [True, False])
def test_max_queued_counts_holders_and_waiters(wanted, refused, wait):
    record = waiting(granted(JobRecord(), ticket(Job.MODIFY)), ticket(Job.MODIFY))
    same_verdict, same = asking(record, ticket(**wanted), max_queued=2, wait=wait)
    assert (same_verdict is Verdict.FULL) == refused
    if refused:
        assert same is record
    assert asking(record, ticket(**wanted), max_queued=3, wait=wait)[0] is not Verdict.FULL


def test_a_step_is_not_exempt_from_max_queued():
    long = ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    step = ticket(Job.ASYNC_NESTED, kind=AsyncJob.SAVE, parent=long.id)
    assert asking(granted(JobRecord(), long), step, max_queued=1)[0] is Verdict.FULL


def test_asking_twice_is_asking_once():
    one, two = ticket(Job.QUERY), ticket(Job.QUERY)
    record = waiting(granted(JobRecord(), one), two)
    assert asking(record, one) == (Verdict.GRANTED, record)
    assert asking(record, two, max_queued=1) == (Verdict.WAITING, record)


def test_what_is_not_there_changes_nothing():
    record = waiting(granted(JobRecord(), ticket(Job.QUERY)), ticket(Job.QUERY))
    assert record.end("t0", wall=0.0) is record
    assert record.withdraw("t0", wall=0.0) is record
    assert record.drop("t0", wall=0.0) is record
    assert record.evict({"s9"}, wall=0.0) is record
    assert record.end(record.queue[0].id, wall=0.0) is record


def test_eviction_voids_all_of_a_session_and_lets_in_the_next():
    long = ticket(Job.ASYNC, "dead", kind=AsyncJob.SAVE)
    record = granted(JobRecord(), long, ticket(agent=AgentJob.QUERY, session="dead"))
    record = waiting(record, ticket(Job.MODIFY, "dead"), ticket(Job.MODIFY, "alive"))
    record = record.evict({"dead"}, wall=0.0)
    assert record.sessions() == {"alive"}
    assert record.sync.ticket.session == "alive"
    assert not record.queue


def test_tokens_are_the_version_of_the_grant():
    record = granted(JobRecord(), ticket(Job.QUERY)).at(41)
    record = granted(record, ticket(agent=AgentJob.QUERY)).at(42)
    assert (record.sync.token, record.agent.token) == (41, 42)


def test_blockers_are_those_libvirt_names():
    long = ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    query, agent = ticket(Job.QUERY), ticket(agent=AgentJob.QUERY)
    record = granted(JobRecord(), long, query, agent)
    both = ticket(Job.QUERY, agent=AgentJob.MODIFY)
    assert [slot for slot, _ in record.blockers(ticket(Job.MODIFY))] == [Slot.ASYNC]
    assert [slot for slot, _ in record.blockers(both)] == [Slot.SYNC, Slot.AGENT]


def test_the_first_in_line_watches_holders_and_the_others_the_one_before():
    holder, one, two = (ticket(Job.QUERY, session) for session in ("s1", "s2", "s3"))
    record = waiting(granted(JobRecord(), holder), one, two)
    assert watched(record, one.id) == {"s1"}
    assert watched(record, two.id) == {"s2"}
    after = record.end(holder.id, wall=0.0)
    assert watched(after, two.id) == {"s2"}  # as before: the one before it holds now
    assert [t.id for t in stirred(record, after)] == [one.id]
    agent = asking(record, ticket(agent=AgentJob.QUERY, session="s5"))[1]
    assert [t.id for t in stirred(record, agent)] == [one.id]
    assert [t.id for t in stirred(record, record.withdraw(one.id, wall=0.0))] == [two.id]
    third = ticket(Job.QUERY, "s4")
    assert list(stirred(record, waiting(record, third))) == []


def test_a_commit_wakes_whom_it_concerns():
    holder, one, two = (ticket(Job.QUERY, session) for session in ("s1", "s2", "s3"))
    held = granted(JobRecord(), holder)
    assert woken(JobRecord(), held, "s1") == set()
    first = waiting(held, one)
    assert woken(held, first, "s2") == {"s1"}  # the holder is told who has got in line
    both = waiting(first, two)
    assert woken(first, both, "s3") == {"s1"}
    assert woken(both, both.end(holder.id, wall=0.0), "s1") == {"s2"}
    assert woken(both, both.withdraw(one.id, wall=0.0), "s2") == {"s3"}
    assert woken(held, held.end(holder.id, wall=0.0), "s1") == set()


def test_holders_are_not_told_of_each_newcomer_to_a_long_line():
    record = granted(JobRecord(), ticket(Job.QUERY, "s1"))
    for number in range(2 * SHORT):
        longer = waiting(record, ticket(Job.QUERY, f"w{number}"))
        assert woken(record, longer, f"w{number}") == ({"s1"} if number < SHORT else set())
        record = longer


def test_a_client_wakes_itself_for_its_steps_that_are_void():
    long = ticket(Job.ASYNC, kind=AsyncJob.SAVE)
    record = granted(JobRecord(), long, ticket(Job.QUERY, "s2"))
    step = ticket(Job.ASYNC_NESTED, kind=AsyncJob.SAVE, parent=long.id)
    record = waiting(record, step)
    assert woken(record, record.end(long.id, wall=0.0), "s1") == {"s1"}
    assert woken(record, record.evict({"s1"}, wall=0.0), "s2") == {"s1"}  # unless it has ended


@dataclasses.dataclass
class Step:
    """One drawn step of a history."""

    kind: str
    session: str
    pick: int
    job: Job | None
    agent: AgentJob | None
    limit: int


STEPS = st.builds(
    Step,
    kind=st.sampled_from(["request"] * 4 + ["end", "end", "withdraw", "evict", "mask"]),
    session=st.sampled_from(["s1", "s2", "s3"]),
    pick=st.integers(0, 9),
    job=st.sampled_from([None, *Job]),
    agent=st.sampled_from([None, None, *AgentJob]),
    limit=st.sampled_from([0, 0, 0, 3]),
)


def apply(record, step):
    tickets = [*{h.ticket.id: h.ticket for _, h in record.holders()}.values(), *record.queue]
    one = tickets[step.pick % len(tickets)].id if tickets else "t0"
    match step.kind:
        case "request":
            if step.job is None and step.agent is None:
                return record
            facts = {"agent": step.agent}
            if step.job in (Job.ASYNC, Job.ASYNC_NESTED):
                facts = {"kind": list(AsyncJob)[step.pick % 2]}
                if step.job is Job.ASYNC_NESTED and record.async_:
                    facts["parent"] = record.async_.ticket.id
            return asking(record, ticket(step.job, step.session, **facts), max_queued=step.limit)[1]
        case "end":
            return record.end(one, wall=1.0)
        case "withdraw":
            return record.withdraw(one, wall=1.0)
        case "evict":
            return record.evict({step.session}, wall=1.0)
        case _:
            mask = mask_of(PLAIN_JOBS[step.pick % 7 :][:2])
            return amend(record, one, mask=mask, wall=1.0) or record


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_nobody_who_could_start_is_left_waiting(steps):
    record, version, last = JobRecord(), 0, dict.fromkeys(Slot, 0)
    for step in steps:
        before, version = record, version + 1
        record = apply(record, step).at(version)
        ids = [t.id for t in record.queue]
        assert not any(record.admits(t) for t in record.queue)
        assert len(set(ids)) == len(ids)
        assert not any(record.holder_of(one) for one in ids)
        for slot, holder in record.holders():
            assert holder.token >= last[slot]
            last[slot] = holder.token
        if before.async_ and record.async_ and record.sync not in (None, before.sync):
            job = record.sync.ticket.job
            assert job is Job.ASYNC_NESTED or job in record.async_.mask
        if record.sync and record.sync.ticket.nested and not record.async_:
            assert before.sync == record.sync
