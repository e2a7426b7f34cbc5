"""The whole life of an async job, on every store: what its owner and others see of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from distjob import (
    AsyncJob,
    BadRequest,
    Job,
    JobTimeout,
    LeaseLost,
    NotOwner,
    Slot,
    WrongJob,
)
from distjob.rules.ticket import Left, Progress
from distjob.testing.replay import PATIENCE
from keeping import keep
from until import until

OUT = AsyncJob.MIGRATION_OUT


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_phase_and_progress_are_seen_by_all(clients):
    a, b = clients("a"), clients("b")
    job = a.begin_async("vm", OUT)
    assert (job.phase, job.progress, job.abort_requested) == ("", None, None)
    job.set_phase("perform")
    job.set_progress(1, 8, "GiB")
    seen = b.status("vm").long
    assert (seen.phase, seen.progress, seen.left) == ("perform", Progress(1.0, 8.0, "GiB"), None)
    for done in range(2, 8):  # more often than is written: the last is, in the background
        job.set_progress(done, 8, "GiB")
    assert job.progress.done == 7
    until(lambda: b.status("vm").long.progress.done == 7)
    job.set_progress(8, 8, "GiB")
    job.set_phase("finish")  # takes with it what was not written yet
    assert b.status("vm").long.progress.done == 8
    with pytest.raises(JobTimeout, match="phase finish"):
        b.begin("vm", Job.MODIFY, wait=0.0)
    job.end()
    for call in (lambda: job.set_phase("x"), lambda: job.set_progress(1)):
        with pytest.raises(NotOwner, match="ended already"):
            call()


def test_an_abort_reaches_the_owner_at_once(clients, pool):
    a, b = clients("a"), clients("b", ttl=60)
    with pytest.raises(WrongJob, match="no async job runs"):
        b.abort("vm")
    job = a.begin_async("vm", OUT, api="migrate")
    heard, told = pool.submit(job.wait_abort), threading.Event()
    job.on_abort(lambda request: told.set())
    asked = b.abort("vm", reason="maintenance")
    assert (asked.job, asked.controller, asked.token) == ("async migration out", "a", job.token)
    request = heard.result(3.0)  # a third of the TTL: nobody had to renew for it
    assert (request.by.controller, request.reason) == ("b", "maintenance")
    assert told.wait(PATIENCE)
    assert job.abort_requested == request == b.status("vm").long.abort
    b.abort("vm", reason="another one")  # the first stands
    assert b.status("vm").long.abort == request
    late = threading.Event()
    job.on_abort(lambda request: late.set())
    assert late.is_set()
    job.end()
    assert a.list() == []


def test_nobody_asks_for_an_abort(clients, pool):
    a = clients("a")
    job = a.begin_async("vm", OUT)
    assert job.wait_abort(0.05) is None
    waiting = pool.submit(job.wait_abort)
    job.end()
    with pytest.raises(NotOwner):
        waiting.result(PATIENCE)


def test_detach_and_adopt(clients, pool):
    a, b = clients("a"), clients("b")
    job = a.begin_async("vm", OUT)
    job.allow(Job.QUERY, Job.SUSPEND)
    job.set_phase("prepare")
    with pytest.raises(NotOwner, match="its owner lives"):
        b.adopt("vm", OUT)
    with pytest.raises(NotOwner, match="its owner lives"):
        b.discard("vm")
    job.detach()
    assert job.ended
    assert not job.lost
    [left] = b.orphans()
    assert (left.long.left, left.long.alive, left.long.phase) == (Left.DETACHED, False, "prepare")
    with pytest.raises(JobTimeout, match="detached: nobody owns it"):
        b.begin("vm", Job.MODIFY, wait=0.0)
    b.begin("vm", Job.SUSPEND).end()  # its mask is in force
    for call in (job.end, job.nested, job.allow, job.detach):
        with pytest.raises(NotOwner):
            call()
    with pytest.raises(WrongJob, match="no async backup to adopt"):
        b.adopt("vm", AsyncJob.BACKUP)
    calls = [pool.submit(client.adopt, "vm", OUT) for client in (a, b, a, b)]
    assert sum(call.exception(PATIENCE) is None for call in calls) == 1
    assert all(isinstance(call.exception(), NotOwner | None) for call in calls)
    [heir] = [call.result() for call in calls if not call.exception()]
    assert heir.token > job.token
    assert heir.phase == "prepare"
    with heir.nested() as step:
        assert step.token > heir.token
    assert not a.orphans()
    heir.end()
    assert a.list() == []


def test_the_owner_closes(clients):
    a, b = clients("a"), clients("b")
    keep(a.begin_async("freed", OUT)).set_phase("perform")
    job = a.begin_async("kept", AsyncJob.BACKUP, on_owner_loss="orphan")
    job.set_phase("copy")
    step = job.nested()
    a.close()
    assert step.lost
    assert b.status("freed").idle
    [orphan] = b.orphans()
    assert (orphan.vm, orphan.long.phase, orphan.long.left) == ("kept", "copy", Left.ORPHANED)
    assert [holder.slot for holder in orphan.holders] == [Slot.ASYNC]
    b.abort("kept", reason="not any more")
    assert b.try_begin("kept", Job.MODIFY) is None
    with b.adopt("kept", "backup") as heir:
        assert heir.abort_requested.reason == "not any more"
        assert heir.phase == "copy"
        assert heir.token > job.token
        heir.detach()
    assert b.discard("kept").phase == "copy"
    assert b.list() == []
    with pytest.raises(WrongJob, match="nothing to discard"):
        b.discard("kept")


def test_the_owner_dies(clients, open_store):
    a = clients("a")
    dead, ttl = open_store(), max(0.3, a.guarantees.shortest_ttl)
    from distjob.rules.async_job import confirm
    from distjob.rules.codec import encode
    from distjob.rules.jobs import Job as Type
    from distjob.rules.jobs import OnOwnerLoss
    from distjob.rules.record import JobRecord
    from distjob.rules.ticket import Owner, Ticket

    session = dead.open_session(ttl, "dead")
    for vm, policy in (("kept", OnOwnerLoss.ORPHAN), ("freed", OnOwnerLoss.RELEASE)):
        ticket = Ticket(
            id=f"{session}.{vm}",
            session=session,
            owner=Owner("dead", "elsewhere", 1),
            api="x",
            asked=0.0,
            job=Type.ASYNC,
            kind=OUT,
            on_owner_loss=policy,
        )
        _, record = JobRecord().request(ticket, wall=0.0)
        dead.commit(vm, 0, encode(confirm(record, ticket.id)), session, ())
    if a.guarantees.ends == "told":
        dead.close_session(session)
    until(lambda: not a.status("kept").long.alive)
    with pytest.raises(WrongJob):
        a.adopt("freed", OUT)
    assert [vm.vm for vm in a.orphans()] == ["kept"]
    with pytest.raises(JobTimeout, match="orphaned: nobody owns it"):
        a.begin("kept", Job.MODIFY, wait=0.05)
    heir = a.adopt("kept", OUT)
    heir.end()
    assert a.list() == []
    dead.close()


def test_an_operator_breaks_a_job(clients, pool):
    a, b = clients("a"), clients("b", ttl=60)
    lost = threading.Event()
    held = a.begin("vm", Job.MODIFY)
    held.on_lost(lost.set)
    next_one = pool.submit(b.begin, "vm", Job.QUERY)
    until(lambda: b.status("vm").waiters)
    [broken] = b.evict("vm", [holder.ticket for holder in b.status("vm").holders])
    assert (broken.job, broken.token, broken.controller) == ("modify", held.token, "a")
    lease = next_one.result(PATIENCE)
    assert lease.token > held.token
    assert lost.wait(PATIENCE)
    for call in (held.check, held.end):
        with pytest.raises(LeaseLost, match="taken away by force"):
            call()
    lease.check()
    lease.end()
    assert b.evict("vm", [broken.ticket]) == []
    assert b.list() == []


def test_a_mask_given_at_begin_is_in_force_from_the_grant(clients, pool):
    a, b = clients("a"), clients("b")
    lease = a.begin("vm", Job.MODIFY)
    waiting = pool.submit(b.begin_async, "vm", OUT, mask=["suspend"], on_owner_loss="orphan")
    until(lambda: a.status("vm").waiters)
    suspends = pool.submit(a.begin, "vm", Job.SUSPEND)
    queries = pool.submit(a.begin, "vm", Job.QUERY)
    until(lambda: len(a.status("vm").waiters) == 3)
    lease.end()
    suspends.result(PATIENCE).end()
    assert a.status("vm").mask == (Job.DESTROY, Job.SUSPEND)
    waiting.result(PATIENCE).end()
    queries.result(PATIENCE).end()
    with pytest.raises(BadRequest, match="a mask is several jobs"):
        a.begin_async("vm", OUT, mask="suspend")
    assert a.list() == []


def test_with_an_async_job_go_its_steps(clients, pool):
    a, b = clients("a"), clients("b")
    job = a.begin_async("vm", OUT, on_owner_loss="orphan")
    step = job.nested()
    waiting = pool.submit(job.nested)
    until(lambda: b.status("vm").waiters)
    assert len(b.evict("vm", [b.status("vm").long.ticket])) == 3
    assert b.status("vm").idle
    with pytest.raises((NotOwner, LeaseLost)):
        waiting.result(PATIENCE)
    until(lambda: job.lost and step.lost)
    for call in (job.end, step.end, job.nested, lambda: job.set_phase("x"), job.wait_abort):
        with pytest.raises(LeaseLost):
            call()
    assert b.list() == []


def test_what_can_not_be(clients):
    a = clients("a")
    job = a.begin_async("vm", OUT)
    wrong = (
        lambda: a.begin_async("other", OUT, on_owner_loss="keep"),
        lambda: job.set_phase("two\nlines"),
        lambda: job.set_progress(-1),
        lambda: job.set_progress(float("nan")),
        lambda: job.set_progress(1, "many"),
        lambda: job.allow("async"),
        lambda: a.adopt("vm", "query"),
        lambda: a.abort("vm", reason="\0"),
        lambda: a.evict("vm", []),
        lambda: a.evict("vm", "ticket"),
        lambda: job.wait_abort(-1),
    )
    for call in wrong:
        with pytest.raises(BadRequest):
            call()
    assert len(a.list()) == 1
    job.end()
