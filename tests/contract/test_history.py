"""One scripted history, step by step: every store must tell it in the same words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from distjob import AgentJob, AsyncJob, Client, DistjobError, Job, clock
from distjob.rules.codec import decode, encode
from distjob.rules.ticket import Owner, Ticket
from distjob.store import Committed, Store
from stores import WORLDS

PATIENCE = 20.0

TOLD = """\
a modify on vm: granted
b try query on vm: busy
b query on vm, waiting: in line
c modify on vm, waiting: in line
c agent query on vm: granted
a agent modify on vm, 0.1 s: JobTimeout cannot acquire state change lock (held by agent=ask)
vm: sync=a agent=c | b c
a ends modify
b query: granted
vm: sync=b agent=c | c
b ends query
c modify: granted
c ends agent query
c ends modify
vm: idle
a migration out on vm: granted
b query on vm: granted
b modify on vm, 0.1 s: JobTimeout cannot acquire state change lock (held by monitor=migrate)
b modify on vm, waiting: in line
a step of migration out, 0.1 s: JobTimeout cannot acquire state change lock (held by monitor=q)
b ends query
a step of migration out: granted
b try destroy on vm: busy
a ends step
a allows modify
b modify: granted
vm: sync=b async=a |
a save on vm, 0.1 s: JobTimeout cannot acquire state change lock (held by monitor=migrate)
b ends modify
b ends modify: NotOwner
a ends migration out
d of 2 modify on vm: granted
d of 2 query on vm, waiting: in line
d of 2 query on vm: QueueFull cannot acquire state change lock (held by monitor=x)\
 due to max_queued limit
d of 2 destroy on vm, 0.1 s: JobTimeout cannot acquire state change lock (held by monitor=x)
d closes
vm: idle
a dead one holds vm, another is next in line
b modify on vm: granted
b ends modify
vm: idle
tokens rose with each grant
the store holds nothing
"""


class History:
    """Plays the steps and writes down what each came to."""

    def __init__(self, clients: Callable[..., Client], open_store: Callable[[], Store]) -> None:
        self.clients = clients
        self.open_store = open_store
        self.a, self.b, self.c = (clients(name) for name in "abc")
        self.told: list[str] = []
        self.tokens: list[int] = []
        self.pool = ThreadPoolExecutor(4)

    def step(self, what: str, call: Callable[[], Any]) -> Any:
        """Do it now; None if it was refused."""
        try:
            result = call()
        except DistjobError as error:
            text = getattr(error, "libvirt_text", "")
            self.told.append(f"{what}: {type(error).__name__}{' ' * bool(text)}{text}")
            return None
        if hasattr(result, "token"):
            self.tokens.append(result.token)
            self.told.append(f"{what}: granted")
        else:
            busy = what.split()[1] == "try"
            self.told.append(f"{what}: busy" if busy else what)
        return result

    def line_up(self, what: str, call: Callable[[], Any]) -> Future[Any]:
        """Begin it in a thread; returns when it is in line."""
        before = len(self.a.status("vm").waiters)
        future = self.pool.submit(call)
        until, pause = clock.monotonic() + PATIENCE, threading.Event()
        while len(self.a.status("vm").waiters) == before:
            assert clock.monotonic() < until
            assert not future.done(), future.result()
            pause.wait(0.005)
        self.told.append(f"{what}, waiting: in line")
        return future

    def let_in(self, what: str, future: Future[Any]) -> Any:
        return self.step(what, lambda: future.result(PATIENCE))

    def look(self) -> None:
        found = self.a.status("vm")
        if found.idle:
            self.told.append("vm: idle")
            return
        held = " ".join(f"{job.slot}={job.controller}" for job in found.holders)
        line = " ".join(job.controller for job in found.waiters)
        self.told.append(f"vm: {held} | {line}".rstrip())

    def sync_and_agent_jobs(self) -> None:
        a, b, c, step = self.a, self.b, self.c, self.step
        first = step("a modify on vm", lambda: a.begin("vm", Job.MODIFY, api="x"))
        step("b try query on vm", lambda: b.try_begin("vm", Job.QUERY))
        second = self.line_up("b query on vm", lambda: b.begin("vm", Job.QUERY, api="x"))
        third = self.line_up("c modify on vm", lambda: c.begin("vm", Job.MODIFY, api="x"))
        ask = step("c agent query on vm", lambda: c.begin_agent("vm", AgentJob.QUERY, api="ask"))
        step("a agent modify on vm, 0.1 s", lambda: a.begin_agent("vm", AgentJob.MODIFY, wait=0.1))
        self.look()
        step("a ends modify", first.end)
        query = self.let_in("b query", second)
        self.look()
        step("b ends query", query.end)
        modify = self.let_in("c modify", third)
        step("c ends agent query", ask.end)
        step("c ends modify", modify.end)
        self.look()

    def async_job(self) -> None:
        a, b, step = self.a, self.b, self.step
        out = AsyncJob.MIGRATION_OUT
        job = step("a migration out on vm", lambda: a.begin_async("vm", out, api="migrate"))
        query = step("b query on vm", lambda: b.begin("vm", Job.QUERY, api="q"))
        step("b modify on vm, 0.1 s", lambda: b.begin("vm", Job.MODIFY, wait=0.1))
        waits = self.line_up("b modify on vm", lambda: b.begin("vm", Job.MODIFY, api="x"))
        step("a step of migration out, 0.1 s", lambda: job.nested(wait=0.1))
        step("b ends query", query.end)
        nested = step("a step of migration out", job.nested)
        step("b try destroy on vm", lambda: b.try_begin("vm", Job.DESTROY))
        step("a ends step", nested.end)
        step("a allows modify", lambda: job.allow(Job.MODIFY))
        modify = self.let_in("b modify", waits)
        self.look()
        step("a save on vm, 0.1 s", lambda: a.begin_async("vm", AsyncJob.SAVE, wait=0.1))
        step("b ends modify", modify.end)
        step("b ends modify", modify.end)
        step("a ends migration out", job.end)

    def queue_limit(self) -> None:
        d, step = self.clients("d", max_queued=2), self.step
        step("d of 2 modify on vm", lambda: d.begin("vm", Job.MODIFY, api="x"))
        waits = self.line_up("d of 2 query on vm", lambda: d.begin("vm", Job.QUERY))
        step("d of 2 query on vm", lambda: d.begin("vm", Job.QUERY))
        step("d of 2 destroy on vm, 0.1 s", lambda: d.begin("vm", Job.DESTROY, wait=0.1))
        step("d closes", d.close)
        assert waits.exception(PATIENCE) is not None
        self.look()

    def the_dead(self) -> None:
        store, owner = self.open_store(), Owner("dead", "host", 1)
        sessions = [store.open_session(10.0, "dead") for _ in range(2)]
        for session in sessions:
            seen = store.read("vm")
            ticket = Ticket(
                id=f"{session}.1", session=session, owner=owner, api="x", asked=0.0, job=Job.MODIFY
            )
            record = decode("vm", seen.version, seen.value).request(ticket, wall=0.0)[1]
            reply = store.commit("vm", seen.version, encode(record), session, ())
            assert isinstance(reply, Committed)
        self.told.append("a dead one holds vm, another is next in line")
        for session in sessions:
            store.close_session(session)
        store.close()
        lease = self.step("b modify on vm", lambda: self.b.begin("vm", Job.MODIFY))
        self.step("b ends modify", lease.end)
        self.look()


@pytest.mark.parametrize("open_store", WORLDS, indirect=True)
def test_every_store_tells_the_same_history(clients, open_store):
    play = History(clients, open_store)
    with play.pool:
        play.sync_and_agent_jobs()
        play.async_job()
        play.queue_limit()
        play.the_dead()
    if play.tokens == sorted(set(play.tokens)):
        play.told.append("tokens rose with each grant")
    if play.a.list() == []:
        play.told.append("the store holds nothing")
    assert play.told == TOLD.splitlines()
