"""The blocking client, on every store: what a controller sees of it."""

from __future__ import annotations

import json
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distjob import (
    AgentJob,
    AsyncJob,
    BadRequest,
    ClientClosed,
    Job,
    JobTimeout,
    LeaseLost,
    NotOwner,
    QueueFull,
    RecordError,
    Slot,
    clock,
)
from distjob.drive.blocking import BACKGROUND
from distjob.testing.onloop import ProxyClient
from distjob.testing.replay import PATIENCE, replay
from keeping import keep
from until import until

VECTORS = Path(__file__).parent.parent / "vectors"
ODD_NAMES = ["/", "a/b", "nul\0", "line\nbreak", "\U0001f512", " ", "x" * 255, "é" * 127, "*?[]{}"]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def waiting(client, vm):
    return [waiter.controller for waiter in client.status(vm).waiters]


@pytest.mark.timeout(400)
def test_libvirt_did_the_same(open_store, request):
    """Every trace; on the clusters, which the same code asks, every fifth, for time's sake."""
    traces = json.loads((VECTORS / "libvirt-9.0.0-traces.json").read_text())
    clustered = "-" in request.node.callspec.params["open_store"]
    assert replay(traces[:: 5 if clustered else 1], open_store.client) == []


def test_a_job_is_held_from_begin_to_end(clients):
    a, b = clients("a"), clients("b")
    with a.begin("vm", Job.MODIFY, api="attach") as lease:
        lease.check()
        assert 0 < lease.remaining <= 10
        assert (lease.vm, lease.job, lease.lost, lease.ended) == ("vm", "modify", False, False)
        assert b.try_begin("vm", Job.QUERY) is None
        [holder] = b.status("vm").holders
        assert (holder.job, holder.slot, holder.token) == ("modify", Slot.SYNC, lease.token)
        assert (holder.controller, holder.pid, holder.api) == ("a", os.getpid(), "attach")
        assert holder.alive
    assert lease.ended
    assert b.status("vm").idle
    assert b.list() == []


def test_tokens_rise_from_grant_to_grant(clients):
    a, b = clients("a"), clients("b")
    tokens = []
    for client in [a, b, a, a, b]:
        with client.begin("vm", "modify") as lease:
            tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


def test_ending_twice_is_an_error_and_changes_nothing(clients):
    a, b = clients("a"), clients("b")
    lease = a.begin("vm", Job.MODIFY)
    lease.end()
    other = keep(b.begin("vm", Job.MODIFY))
    for call in (lease.end, lease.check, lambda: lease.on_lost(lambda: None)):
        with pytest.raises(NotOwner, match=r"'vm'.*modify.*ended already"):
            call()
    other.check()
    assert len(a.status("vm").holders) == 1


def leases_of(client):
    """Of each kind, each of a VM of its own."""
    return [
        client.begin("one", Job.MODIFY),
        client.try_begin("two", Job.MODIFY),
        client.begin_agent("three", AgentJob.MODIFY),
        client.begin_async("four", AsyncJob.SAVE),
        client.begin_async("five", AsyncJob.SAVE).nested(),
    ]


def test_a_lease_that_was_ended_or_lost_runs_no_body(clients):
    a, b = clients("a"), clients("b")
    ended, entered = leases_of(a), []
    for lease in ended:
        lease.end()
        with pytest.raises(NotOwner, match=rf"'{lease.vm}'.*ended already"), lease:
            entered.append(f"{lease!r} is no job")
    [left] = a.list()  # the step's async job
    b.evict(left.vm, [holder.ticket for holder in left.holders])
    lost = leases_of(a)
    for vm in b.list():
        b.evict(vm.vm, [holder.ticket for holder in vm.holders])
    for lease in lost:
        until(lambda lease=lease: lease.lost)
        with pytest.raises(LeaseLost, match=rf"'{lease.vm}'.*taken away by force"), lease:
            entered.append(f"{lease!r} is no job")
    assert entered == []
    assert b.list() == []


def test_whoever_waits_is_let_in_at_the_end_and_in_order(clients, pool):
    holder = clients("holder")
    lease = holder.begin("vm", Job.MODIFY)
    calls = []
    for name in ("one", "two", "three"):
        calls.append(pool.submit(clients(name).begin, "vm", Job.MODIFY))
        until(lambda name=name: name in waiting(holder, "vm"))
    last = lease.token
    for call, left in zip(calls, (["two", "three"], ["three"], []), strict=True):
        lease.end()
        lease = call.result(PATIENCE)
        assert waiting(holder, "vm") == left
        assert lease.token > last
        last = lease.token
    lease.end()
    assert holder.list() == []


CASES = {
    "sync blocked by sync": ("modify", lambda c: c.begin("vm", "modify")),
    "query blocked by sync": ("modify", lambda c: c.begin("vm", "query")),
    "modify blocked by async": ("async", lambda c: c.begin("vm", "modify")),
    "async blocked by sync": ("modify", lambda c: c.begin_async("vm", "save")),
    "async blocked by async": ("async", lambda c: c.begin_async("vm", "dump")),
    "agent blocked by agent": ("agent", lambda c: c.begin_agent("vm", "modify")),
    "nested blocked by sync": ("async+query", None),
    "query allowed by async but blocked by sync": (
        "async+query",
        lambda c: c.begin("vm", "query"),
    ),
}


def test_a_timeout_says_what_libvirt_says_and_more(clients):
    holder, waiter = clients("ctl-h"), clients("ctl-w", wait=0.05)
    vectors = json.loads((VECTORS / "libvirt-9.0.0-timeouts.json").read_text())
    assert {case["case"] for case in vectors} == set(CASES)
    for case in vectors:
        setup, call = CASES[case["case"]]
        held = []
        if "async" in setup:
            held.append(holder.begin_async("vm", AsyncJob.MIGRATION_OUT, api="api-holder"))
        if "agent" in setup:
            held.append(holder.begin_agent("vm", "query", api="api-holder"))
        if "modify" in setup or "query" in setup:
            job = "modify" if "modify" in setup else "query"
            held.append(holder.begin("vm", job, api="api-holder"))
        started = clock.monotonic()
        with pytest.raises(JobTimeout) as caught:
            held[0].nested(wait=0.05) if call is None else call(waiter)
        assert clock.monotonic() - started >= 0.05
        error = pickle.loads(pickle.dumps(caught.value))
        assert "Timed out during operation: " + error.libvirt_text == case["message"]
        assert str(error).startswith(error.libvirt_text)
        [blocker] = error.blockers
        for fact in ("'vm'", "ctl-h", f"pid {os.getpid()}", "held 0.", f"token {blocker.token}"):
            assert fact in str(error)
        for lease in reversed(held):
            lease.end()
    assert holder.list() == []


def test_both_slots_in_one_request_and_both_named(clients):
    a, b = clients("a"), clients("b", wait=0.05)
    with a.begin("vm", "modify", agent=AgentJob.MODIFY, api="x"):
        assert [h.slot for h in b.status("vm").holders] == [Slot.SYNC, Slot.AGENT]
        with pytest.raises(JobTimeout, match=r"held by monitor=x agent=x"):
            b.begin("vm", "query", agent="query")
        with pytest.raises(JobTimeout, match=r"held by agent=x"):
            b.begin_agent("vm", "query")
    assert a.list() == []


def test_async_job_steps_and_mask(clients, pool):
    a, b = clients("a"), clients("b")
    with a.begin_async("vm", AsyncJob.MIGRATION_OUT) as migration:
        assert b.status("vm").mask == (Job.QUERY, Job.DESTROY, Job.ABORT)
        b.begin("vm", Job.QUERY).end()
        assert b.try_begin("vm", Job.MODIFY) is None
        with migration.nested(api="perform") as step:
            assert step.token > migration.token
            assert b.try_begin("vm", Job.QUERY) is None
        modify = pool.submit(b.begin, "vm", Job.MODIFY)
        until(lambda: waiting(a, "vm") == ["b"])
        migration.allow(Job.MODIFY)
        lease = modify.result(PATIENCE)
        assert b.status("vm").mask == (Job.DESTROY, Job.MODIFY)
        lease.end()
        with pytest.raises(BadRequest, match=r"'vm'.*async"):
            migration.allow(Job.ASYNC)
    for call in (migration.nested, lambda: migration.allow(Job.QUERY)):
        with pytest.raises(NotOwner, match="ended already"):
            call()
    assert a.list() == []


def test_a_step_that_waits_goes_with_its_job(clients, pool):
    a, b = clients("a"), clients("b")
    migration = a.begin_async("vm", "save")
    query = b.begin("vm", "query")
    step = pool.submit(migration.nested)
    until(lambda: waiting(b, "vm") == ["a"])
    migration.end()
    with pytest.raises(NotOwner, match=r"'vm'.*step of save"):
        step.result(PATIENCE)
    query.end()
    assert a.list() == []


def test_max_queued(clients, pool):
    a, b = clients("a", max_queued=2), clients("b", max_queued=2)
    lease = a.begin("vm", "modify", api="x")
    second = pool.submit(b.begin, "vm", "modify")
    until(lambda: waiting(a, "vm") == ["b"])
    for call in (a.begin, a.try_begin):
        with pytest.raises(QueueFull, match=r"held by monitor=x\) due to max_queued limit") as full:
            call("vm", "query")
        assert "max_queued is 2" in str(full.value)
    assert a.try_begin("vm", "destroy") is None
    lease.end()
    second.result(PATIENCE).end()
    assert a.list() == []


def test_closing_ends_at_once_what_was_held_and_waited_for(clients, pool):
    a, b, c = clients("a"), clients("b", ttl=60), clients("c", ttl=60)
    held = [b.begin("vm", "modify"), b.begin_async("other", "save"), b.begin("third", "query")]
    first = pool.submit(c.begin, "vm", "modify")
    until(lambda: waiting(a, "vm") == ["c"])
    second = pool.submit(a.begin, "vm", "modify")
    until(lambda: waiting(a, "vm") == ["c", "a"])
    started = clock.monotonic()
    b.close()
    lease = first.result(PATIENCE)
    c.close()
    second.result(PATIENCE).end()
    assert clock.monotonic() - started < 20  # a third of the TTL
    for lost in [*held, lease]:
        assert lost.lost
        with pytest.raises(LeaseLost, match="this client was closed"):
            lost.check()
        with pytest.raises(ClientClosed, match="was given up when this client was closed"):
            lost.end()
    assert a.list() == []
    for call in (lambda: b.begin("vm", "modify"), lambda: b.status("vm"), b.list, b.orphans):
        with pytest.raises(ClientClosed, match="this client is closed"):
            call()


def test_closing_tells_who_waits_in_another_thread(clients, pool):
    a, b = clients("a"), clients("b")
    with a.begin("vm", "modify"):
        call = pool.submit(b.begin, "vm", "modify")
        until(lambda: waiting(a, "vm") == ["b"])
        b.close()
        with pytest.raises(ClientClosed):
            call.result(PATIENCE)
        assert waiting(a, "vm") == []


def test_many_threads_and_clients_take_turns(clients, pool):
    team = [clients(f"ctl-{number}", wait=60) for number in range(4)]
    inside, rounds, tokens = threading.Lock(), 12, []

    def work(client):
        for _ in range(rounds):
            with client.begin("vm", "modify") as lease:
                assert inside.acquire(blocking=False), "two hold the job"
                tokens.append(lease.token)
                inside.release()

    for call in [pool.submit(work, team[number % 4]) for number in range(8)]:
        call.result(60)
    assert len(tokens) == 8 * rounds
    assert tokens == sorted(set(tokens))
    assert team[0].list() == []


@pytest.mark.parametrize("vm", ODD_NAMES, ids=ascii)
def test_any_name_of_1_to_255_bytes(clients, vm):
    a, b = clients("a"), clients("b")
    with a.begin(vm, "modify"):
        assert b.try_begin(vm, "modify") is None
        assert [status.vm for status in b.list()] == [vm]
        with b.begin(vm + "'" if len(vm) < 100 else "other", "modify"):
            assert len(b.list()) == 2
    assert b.list() == []


@pytest.mark.parametrize("vm", ["", "x" * 256, "é" * 128, "\ud800", b"vm", None, 7], ids=ascii)
def test_any_other_name_is_refused(clients, vm):
    a = clients("a")
    for call in (a.begin, a.try_begin):
        with pytest.raises(BadRequest):
            call(vm, "modify")
    with pytest.raises(BadRequest):
        a.begin_agent(vm, "query")
    with pytest.raises(BadRequest):
        a.begin_async(vm, "save")
    with pytest.raises(BadRequest):
        a.status(vm)


def test_arguments_that_can_not_be(clients, open_store):
    a = clients("a")
    for job in ("modfy", "async", "async nested", None):
        with pytest.raises(BadRequest, match="'vm'"):
            a.begin("vm", job)
    for wait in (-1, float("nan"), "1"):
        with pytest.raises(BadRequest):
            a.begin("vm", "modify", wait=wait)
    for api in ("x" * 256, "two\nlines", "\x1b[2J", 7):
        with pytest.raises(BadRequest, match="api"):
            a.begin("vm", "modify", api=api)
        with pytest.raises(BadRequest, match="api"):
            a.try_begin("vm", "modify", api=api)
    for ttl in (0, -1, float("nan"), float("inf"), "10"):
        with pytest.raises(BadRequest):
            clients("b", ttl=ttl)
    with pytest.raises(BadRequest):
        clients("b", max_queued=-1)
    assert a.list() == []


def test_a_broken_record_is_an_error_and_never_a_grant(clients, open_store):
    a = clients("a")
    store = open_store()
    session = store.open_session(10.0, "vandal")
    for garbage in (b"", b"garbage", b"distjob/2 newer", b'{"sync":null}'):
        current = store.read("vm")
        store.commit("vm", current.version, garbage, session, ())
        for call in (a.begin, a.try_begin):
            with pytest.raises(RecordError, match="'vm'"):
                call("vm", "modify")
        with pytest.raises(RecordError, match="'vm'"):
            a.status("vm")
        assert store.read("vm").value == garbage
    store.commit("vm", store.read("vm").version, None, session, ())
    store.close_session(session)
    store.close()
    a.begin("vm", "modify").end()
    assert a.list() == []


def test_a_record_that_breaks_while_a_job_is_held_or_waited_for(clients, open_store, pool):
    a, b = clients("a"), clients("b", ttl=1.0, wait=30)
    lease = a.begin("vm", "modify")
    call = pool.submit(b.begin, "vm", "modify")
    until(lambda: waiting(a, "vm") == ["b"])
    store = open_store()
    session = store.open_session(10.0, "vandal")
    store.commit("vm", store.read("vm").version, b"garbage", session, ())
    with pytest.raises(RecordError, match="'vm'"):
        call.result(PATIENCE)
    with pytest.raises(RecordError, match="'vm'"):
        lease.end()
    store.commit("vm", store.read("vm").version, None, session, ())
    store.close_session(session)
    store.close()
    until(lambda: keep(b.try_begin("vm", "modify")))


def test_what_is_left_of_a_dead_controller_is_void_within_ttl_and_a_second(clients, open_store):
    """A session that nobody renews, as after kill -9: holder, next in line and third in line."""
    dead = [open_store() for _ in range(3)]
    promised = dead[0].guarantees
    ttl = max(1.0, promised.shortest_ttl)
    a = clients("a", ttl=ttl)
    from distjob.rules.codec import decode, encode
    from distjob.rules.ticket import Owner, Ticket

    owner = Owner("dead", "host", 1)
    for number, store in enumerate(dead):
        session = store.open_session(ttl, "dead")
        died = clock.monotonic()
        now = store.read("vm")
        ticket = Ticket(
            id=f"{session}.1", session=session, owner=owner, api="x", asked=0.0, job=Job.MODIFY
        )
        record = decode("vm", now.version, now.value).request(ticket, wall=0.0)[1]
        store.commit("vm", now.version, encode(record), session, ())
        assert len(a.status("vm").waiters) == number
    with a.begin("vm", "modify", wait=30):
        assert clock.monotonic() - died < ttl + promised.grace + 1
        assert [holder.controller for holder in a.status("vm").holders] == ["a"]
    assert a.list() == []
    for store in dead:
        store.close()


@pytest.mark.forks
def test_a_forked_copy_refuses_to_work(clients, request):
    if "etcd" in (kind := request.node.callspec.params["open_store"]) and "asyncio" in kind:
        pytest.skip("gRPC's asyncio does not survive a fork: see docs/howto/asyncio.md")
    a = clients("a")
    lease = a.begin("vm", "modify")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover  the child
        told = []
        for call in (lambda: a.begin("x", "modify"), lease.end, lease.check, a.list):
            try:
                call()
            except ClientClosed as error:
                told.append(str(error))
        a.close()
        os.write(write, json.dumps(told).encode())
        os._exit(0)
    os.close(write)
    assert os.waitpid(pid, 0)[1] == 0
    with os.fdopen(read, encoding="utf-8") as pipe:
        told = json.load(pipe)
    assert len(told) == 4
    assert all(
        f"belongs to process {os.getpid()}" in text and "Connect anew" in text for text in told
    )
    lease.end()
    assert a.list() == []


def test_a_body_that_raises_still_ends_the_job(clients):
    a = clients("a")
    with pytest.raises(KeyError, match="mine"), a.begin("vm", "modify"):
        raise KeyError("mine")
    assert a.list() == []


def test_three_background_threads_whatever_the_number_of_leases(clients):
    clients("first").begin("vm", "query").end()  # some libraries keep a thread of theirs
    before = set(threading.enumerate())
    a = clients("a")
    a.begin("vm", "modify").end()
    its = set(threading.enumerate()) - before
    on_asyncio = isinstance(a, ProxyClient)  # then it is a task
    names = {thread.name for thread in its}
    assert names.issuperset(BACKGROUND) != on_asyncio
    leases = [a.begin(f"vm-{number}", "modify") for number in range(50)]
    assert set(threading.enumerate()) - before == its
    for lease in leases:
        lease.end()
    a.__exit__(None, None, None)
    for thread in its:
        thread.join(PATIENCE)
        assert not thread.is_alive()
