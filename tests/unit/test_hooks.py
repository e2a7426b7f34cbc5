"""What hooks are told, on the memory store: each event when it says, once, and outside of locks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from distjob import (
    BackendUnavailable,
    Client,
    JobTimeout,
    LeaseLost,
    NotOwner,
    QueueFull,
    WrongJob,
    clock,
)
from distjob.hooks import (
    Begun,
    Ended,
    Event,
    Evicted,
    GaveUp,
    JobEvent,
    Lost,
    Refused,
    RenewalFailed,
    Renewed,
    SessionLost,
    SessionOpened,
    StoreFailed,
    TimedOut,
    Waiting,
)
from distjob.store import Gone, Reply
from distjob.testing.memory import MemoryServer, MemoryStore

PATIENCE = 10.0


class Listener:
    """A hook that keeps what it is told, jobs' and others', and can be waited on."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.others: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            (self.events if isinstance(event, JobEvent) else self.others).append(event)
            self._changed.notify_all()

    def until(self, kind: type[Event]) -> Any:
        """The first event of this kind, once there is one."""
        self.wait(lambda: self.of(kind))
        return self.of(kind)[0]

    def wait(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), [*self.events, *self.others]

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in [*self.events, *self.others] if isinstance(event, kind)]

    @property
    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


class OddStore(MemoryStore):
    """Lets a test act while a verb is under way, or when its own thread is to receive."""

    at_commit: Callable[[Callable[[], Reply]], Reply] | None = None
    at_receive: Callable[[], None] | None = None
    at_keep_alive: Callable[[], None] | None = None

    def commit(self, *args: Any) -> Reply:
        if at := self.at_commit:
            self.at_commit = None
            return at(lambda: MemoryStore.commit(self, *args))
        return super().commit(*args)

    def receive(self, *args: Any) -> Any:
        if threading.current_thread() is threading.main_thread() and (at := self.at_receive):
            at()
        return super().receive(*args)

    def keep_alive(self, session: str) -> bool:
        if at := self.at_keep_alive:
            self.at_keep_alive = None
            at()
        return super().keep_alive(session)


class House:
    """A server, and clients with a listener each."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.clients: list[Client] = []

    def client(self, name: str, *hooks: Any, **settings: Any) -> tuple[Client, Listener]:
        client, listener, _ = self.odd(name, *hooks, **settings)
        return client, listener

    def odd(self, name: str, *hooks: Any, **settings: Any) -> tuple[Client, Listener, OddStore]:
        listener, store = Listener(), OddStore(self.server)
        client = Client(store, controller=name, hooks=[*hooks, listener], **settings)
        self.clients.append(client)
        return client, listener, store

    def kill(self, client: Client) -> None:
        """End its session behind its back."""
        session = client._me.session
        assert session
        with self.server.changed:
            self.server.close_session(session.id)


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    for client in house.clients:
        client.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


# -- in good order ------------------------------------------------------------------------------


def test_a_job_begins_and_ends(house: House) -> None:
    client, told = house.client("a")
    with client.begin("vm", "modify", agent="query") as lease:
        [begun] = told.events
        job = "modify + agent query"
        assert begun == Begun(
            vm="vm",
            job=job,
            ticket=begun.ticket,
            token=lease.token,
            waited=begun.waited,
            queued=False,
        )
        assert 0 <= begun.waited < PATIENCE
    ended = told.events[1]
    assert ended == Ended(vm="vm", job=job, ticket=begun.ticket, token=lease.token, held=ended.held)
    assert told.kinds == [Begun, Ended]


def test_one_waits_and_is_let_in(house: House, pool: ThreadPoolExecutor) -> None:
    a, told_a = house.client("a")
    b, told = house.client("b")
    lease = a.begin("vm", "modify")
    call = pool.submit(b.begin, "vm", "query")
    waiting = told.until(Waiting)
    assert waiting == Waiting(
        vm="vm", job="query", ticket=waiting.ticket, depth=1, blockers=waiting.blockers
    )
    [blocker] = waiting.blockers
    assert (blocker.slot, blocker.job, blocker.owner.controller) == ("sync", "modify", "a")
    assert (blocker.api, blocker.token) == ("modify", lease.token)
    lease.end()
    call.result(PATIENCE).end()
    assert told.kinds == [Waiting, Begun, Ended]
    assert told.of(Begun)[0].queued
    assert told_a.kinds == [Begun, Ended]


def test_one_waits_in_vain(house: House) -> None:
    a, _ = house.client("a")
    b, told = house.client("b")
    with a.begin("vm", "modify"), pytest.raises(JobTimeout):
        b.begin("vm", "query", wait=0.05)
    assert told.kinds == [Waiting, TimedOut]
    [event] = told.of(TimedOut)
    assert [one.owner.controller for one in event.blockers] == ["a"]
    assert event.waited >= 0.05


def test_one_is_refused(house: House) -> None:
    a, _ = house.client("a")
    b, told = house.client("b", max_queued=1)
    with a.begin("vm", "modify"):
        with pytest.raises(QueueFull):
            b.begin("vm", "query")
        [refused] = told.events
        assert refused == Refused(vm="vm", job="query", ticket=refused.ticket, depth=1)  # type: ignore[attr-defined]
        busy, nothing = house.client("c")
        assert busy.try_begin("vm", "query") is None
        assert nothing.events == []


def test_long_jobs(house: House) -> None:
    a, told_a = house.client("a")
    b, told_b = house.client("b")
    long = a.begin_async("vm", "backup")
    with long.nested():
        pass
    b.abort("vm")
    long.detach()
    b.adopt("vm", "backup").end()
    assert [(type(event), event.job) for event in told_a.events] == [
        (Begun, "async backup"),
        (Begun, "nested step of backup"),
        (Ended, "nested step of backup"),
        (Ended, "async backup"),
    ]
    assert [(type(event), event.job) for event in told_b.events] == [
        *((Begun, "abort"), (Ended, "abort")),
        *((Begun, "async backup"), (Ended, "async backup")),
    ]


def test_a_closed_client_has_lost_what_it_held(house: House, pool: ThreadPoolExecutor) -> None:
    a, told_a = house.client("a")
    b, told = house.client("b")
    a.begin("one", "modify")
    b.begin("two", "modify")
    call = pool.submit(b.begin, "one", "modify")
    told.until(Waiting)
    b.close()
    assert call.exception(PATIENCE) is not None
    assert sorted(map(repr, told.kinds)) == sorted(map(repr, [Begun, Waiting, Lost, GaveUp]))
    [lost] = told.of(Lost)
    assert (lost.vm, lost.how, lost.grave) == ("two", "closed", False)
    assert told_a.kinds == [Begun]


# -- losses -------------------------------------------------------------------------------------


def test_a_session_ends(house: House) -> None:
    a, told = house.client("a", ttl=0.6)
    lease = a.begin("vm", "modify")
    house.kill(a)
    lost = told.until(Lost)
    assert (lost.vm, lost.token, lost.how, lost.grave) == ("vm", lease.token, "session", True)
    assert "the store ended it" in lost.why
    with pytest.raises(LeaseLost):
        lease.end()
    assert told.kinds == [Begun, Lost]


def test_a_session_is_lost_while_its_job_is_being_ended(house: House) -> None:
    a, told, store = house.odd("a")

    def made(commit: Callable[[], Reply]) -> Reply:
        reply = commit()
        session = a._me.session
        assert session
        a._me.lose(session, "the keeper was quicker")
        return reply

    lease = a.begin("vm", "modify")
    store.at_commit = made
    lease.end()
    assert told.kinds == [Begun, Ended]

    def not_made(_commit: Callable[[], Reply]) -> Reply:
        session = a._me.session
        assert session
        a._me.lose(session, "the keeper was quicker")
        return Gone(frozenset((session.id,)))

    lease = a.begin("vm", "modify")
    store.at_commit = not_made
    with pytest.raises(LeaseLost):
        lease.end()
    assert told.kinds == [Begun, Ended, *([Evicted] if told.of(Evicted) else []), Begun, Lost]
    assert told.of(Lost)[0].why == "the keeper was quicker"


def test_one_whose_session_ended_asks_again(house: House, pool: ThreadPoolExecutor) -> None:
    a, _ = house.client("a")
    b, told = house.client("b", ttl=0.6)
    lease = a.begin("vm", "modify")
    call = pool.submit(b.begin, "vm", "modify")
    told.until(Waiting)
    house.kill(b)
    told.until(GaveUp)
    lease.end()
    call.result(PATIENCE).end()
    assert [kind for kind in told.kinds if kind is not Evicted] in (
        [Waiting, GaveUp, Waiting, Begun, Ended],
        [Waiting, GaveUp, Begun, Ended],
    )


def test_one_breaks_anothers_job(house: House) -> None:
    a, told_a = house.client("a")
    b, told_b = house.client("b")
    lease = a.begin("vm", "modify", agent="modify")
    [broken] = b.evict("vm", [b.status("vm").holders[0].ticket])
    assert broken.token == lease.token
    lost = told_a.until(Lost)
    assert (lost.how, lost.token) == ("force", lease.token)
    with pytest.raises(LeaseLost):
        lease.end()
    assert told_a.kinds == [Begun, Lost]
    [evicted] = told_b.events
    assert (evicted.how, evicted.token, evicted.owner.controller) == ("force", lease.token, "a")


def test_what_had_ended_by_itself_was_not_broken(house: House) -> None:
    a, told_a = house.client("a")
    b, told_b, store = house.odd("b")
    lease = a.begin("vm", "modify")
    [holder] = b.status("vm").holders

    def too_late(commit: Callable[[], Reply]) -> Reply:
        lease.end()
        return commit()

    store.at_commit = too_late
    assert b.evict("vm", [holder.ticket]) == []
    assert told_b.events == []
    assert told_a.kinds == [Begun, Ended]


def test_what_was_adopted_in_between_was_not_discarded(house: House) -> None:
    a, told_a = house.client("a")
    b, told_b, store = house.odd("b")
    a.begin_async("vm", "backup").detach()

    def too_late(commit: Callable[[], Reply]) -> Reply:
        a.adopt("vm", "backup")
        return commit()

    store.at_commit = too_late
    with pytest.raises(NotOwner):
        b.discard("vm")
    assert told_b.events == []
    assert told_a.kinds == [Begun, Ended, Begun]


def test_the_dead_are_taken_out(house: House, pool: ThreadPoolExecutor) -> None:
    dead, _ = house.client("dead")
    waits, told_waits = house.client("waits")
    b, told = house.client("b")
    dead.begin("vm", "modify", agent="modify")
    call = pool.submit(waits.begin, "vm", "modify")
    told_waits.until(Waiting)
    for one in (dead, waits):
        house.kill(one)
    b.begin("vm", "modify").end()
    evicted = sorted(
        (event.owner.controller, event.job, event.how, event.token > 0)
        for event in told.of(Evicted)
    )
    assert evicted == [
        ("dead", "modify + agent modify", "ended", True),
        ("waits", "modify", "ended", False),
    ]
    call.cancel()


def test_an_orphan_is_found_and_discarded(house: House) -> None:
    dead, _ = house.client("dead")
    b, told = house.client("b")
    dead.begin_async("vm", "backup", on_owner_loss="orphan")
    dead.begin_async("other", "backup")
    house.kill(dead)
    b.discard("vm")
    assert [event.how for event in told.of(Evicted)] == ["orphaned", "force"]
    told.events.clear()
    assert b.discard("other").job == "async backup"
    assert [event.how for event in told.of(Evicted)] == ["ended"]
    with pytest.raises(WrongJob):
        b.discard("other")


# -- a wait that is given up ----------------------------------------------------------------------


def interrupt() -> None:
    raise KeyboardInterrupt


def test_ctrl_c_while_it_waits(house: House) -> None:
    a, _ = house.client("a")
    b, told, store = house.odd("b")
    with a.begin("vm", "modify"):
        store.at_receive = interrupt
        with pytest.raises(KeyboardInterrupt):
            b.begin("vm", "query", wait=PATIENCE)
        assert told.kinds == [Waiting, GaveUp]
        assert a.status("vm").waiters == ()


@pytest.mark.parametrize("kind", [Waiting, Begun])
def test_a_hook_that_ends_the_program(house: House, kind: type[Event]) -> None:
    def leave(event: Event) -> None:
        if isinstance(event, kind):
            raise SystemExit(3)

    a, _ = house.client("a")
    b, _ = house.client("b", leave)
    lease = a.begin("vm", "modify")
    if kind is Begun:
        lease.end()
    with pytest.raises(SystemExit):
        b.begin("vm", "query", wait=PATIENCE)
    assert a.status("vm").waiters == ()
    b.close()
    assert a.status("vm").holders == () or kind is Waiting


# -- hooks themselves -----------------------------------------------------------------------------


def test_a_hook_that_fails_harms_nobody(house: House, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_event: Event) -> None:
        raise ValueError("this hook is wrong")

    a, told = house.client("a", fail, ttl=0.6)
    with a.begin("vm", "modify") as lease:
        told.until(Renewed)
        lease.check()
    house.kill(a)
    a.begin("vm", "modify")
    house.kill(a)
    told.until(Lost)
    assert told.kinds[:2] == [Begun, Ended]
    failures = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failures) >= len(told.events)
    assert all("hook" in record.getMessage() and record.exc_info for record in failures)


def test_hooks_are_told_outside_of_locks(house: House, pool: ThreadPoolExecutor) -> None:
    clients: list[Client] = []
    seen: list[type[Event]] = []

    def look(event: Event) -> None:
        if clients:
            clients[0].status("vm")
            clients[0].list()
            seen.append(type(event))

    a, _ = house.client("a")
    b, told = house.client("b", look, ttl=0.6, max_queued=3)
    clients.append(b)
    lease = a.begin("vm", "modify")
    with pytest.raises(JobTimeout):
        b.begin("vm", "query", wait=0.01)
    call = pool.submit(b.begin, "vm", "query", wait=PATIENCE)
    told.until(Waiting)
    lease.end()
    call.result(PATIENCE).end()
    lease = a.begin("vm", "modify")
    b.evict("vm", [b.status("vm").holders[0].ticket])
    told.until(Renewed)
    b.begin("vm", "modify")
    house.kill(b)
    told.until(Lost)
    assert {*seen} >= {Waiting, TimedOut, Begun, Ended, Evicted, Renewed, Lost}
    del lease


# -- keep-alives ----------------------------------------------------------------------------------


def test_each_renewal_is_told_with_its_lateness(house: House) -> None:
    _, told = house.client("a", ttl=0.6)
    renewed = told.until(Renewed)
    assert renewed.ttl == 0.6
    assert 0 <= renewed.late < 0.6


def test_a_late_renewal_is_grave(house: House, caplog: pytest.LogCaptureFixture) -> None:
    _, told, store = house.odd("a", ttl=3.0)
    pause = threading.Event()
    store.at_keep_alive = lambda: bool(pause.wait(0.6))
    began = clock.monotonic()
    renewed = told.until(Renewed)
    assert clock.monotonic() - began > 1.0
    assert renewed.late >= 0.6
    assert renewed.grave
    [record] = [record for record in caplog.records if "renewed" in record.getMessage()]
    assert (record.name, record.levelno) == ("distjob", logging.WARNING)


def test_one_that_came_too_late_is_a_loss(house: House) -> None:
    a, told, store = house.odd("a", ttl=0.6)
    a.begin("vm", "modify")
    pause = threading.Event()
    store.at_keep_alive = lambda: bool(pause.wait(0.65))
    lost = told.until(Lost)
    assert lost.how == "session"
    assert all(renewed.late < 0.6 for renewed in told.of(Renewed)[:1])


# -- a store that does not answer -----------------------------------------------------------------


def test_a_failed_renewal_is_told_and_only_the_first_is_grave(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    _, told, store = house.odd("a", ttl=3.0)

    def fail() -> None:
        if len(told.of(RenewalFailed)) < 3:
            store.at_keep_alive = fail
            raise BackendUnavailable("no route to host")

    store.at_keep_alive = fail
    renewed = told.until(Renewed)
    failed = told.of(RenewalFailed)
    assert [one.times for one in failed] == [1, 2, 3]
    assert [one.grave for one in failed] == [True, False, False]
    assert [one.error for one in failed] == ["no route to host"] * 3
    assert 0 < failed[2].seconds < failed[0].seconds < 2.7
    assert {one.session for one in failed} == {renewed.session, told.of(SessionOpened)[0].session}
    assert {one.verb for one in told.of(StoreFailed)} == {"keep_alive"}
    warnings = [one.getMessage() for one in caplog.records if "could not be" in one.getMessage()]
    assert len(warnings) == 1
    assert "no route to host" in warnings[0]


def test_a_session_that_is_lost_and_the_next_are_told(house: House) -> None:
    a, told, _ = house.odd("a", ttl=0.6)
    first = told.until(SessionOpened)
    house.kill(a)
    lost = told.until(SessionLost)
    assert (lost.session, lost.how) == (first.session, "session")
    told.wait(lambda: len(told.of(SessionOpened)) == 2)
    assert told.of(SessionOpened)[1].session != first.session


def test_what_the_store_did_not_do_is_told(house: House) -> None:
    a, told, store = house.odd("a")

    def lost(_commit: Any) -> Reply:
        raise BackendUnavailable("cut off", unanswered=True)

    store.at_commit = lost
    a.begin("vm", "modify").end()  # settled, and tried again
    [failed] = told.of(StoreFailed)
    assert failed == StoreFailed(verb="commit", error="cut off", unanswered=True)
