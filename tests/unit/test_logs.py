"""What reaches the log: what is grave by itself, the rest by a hook, secrets never."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from distjob import Client, clock
from distjob.hooks import (
    Begun,
    Blocker,
    Ended,
    Event,
    Evicted,
    GaveUp,
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
from distjob.hooks.logs import LogHook, warn
from distjob.rules.jobs import Slot
from distjob.rules.ticket import Owner
from distjob.testing.memory import MemoryServer, MemoryStore

OWNER = Owner("ctl\x1b[31m", "host", 7)
BLOCKER = Blocker(slot=Slot.SYNC, job="modify", owner=OWNER, api="x", token=4)
OF: Any = {"owner": OWNER, "ticket": "s\x1b.1", "seconds": 2.0}
GRAVE: list[Event] = [
    Lost(vm="v\nm", job="modify", token=5, held=1.5, how="session", why="it was not renewed"),
    Lost(vm="v\nm", job="modify", token=5, held=1.5, how="force", why="by force"),
    Evicted(vm="v\nm", job="modify", token=5, **OF, how="ended"),
    Evicted(vm="v\nm", job="modify", token=5, **OF, how="orphaned"),
    Evicted(vm="v\nm", job="modify", token=5, **OF, how="force"),
    Evicted(vm="v\nm", job="modify", token=0, **OF, how="ended"),
    Renewed(session="s\x1b", late=2.0, ttl=10.0, seconds=7.0),
    RenewalFailed(session="s\x1b", error="no\nroute", times=1, seconds=5.0),
]
CHATTER: list[tuple[Event, int]] = [
    (Waiting(vm="vm", job="modify", depth=3, blockers=(BLOCKER,)), logging.DEBUG),
    (Begun(vm="vm", job="modify", token=5, waited=0.1, queued=False), logging.DEBUG),
    (Begun(vm="vm", job="modify", token=5, waited=4.0, queued=True), logging.INFO),
    (TimedOut(vm="vm", job="modify", waited=3.0, blockers=(BLOCKER,)), logging.INFO),
    (TimedOut(vm="vm", job="modify", waited=3.0, blockers=()), logging.INFO),
    (GaveUp(vm="vm", job="modify", waited=3.0), logging.INFO),
    (Refused(vm="vm", job="modify", depth=3), logging.INFO),
    (Ended(vm="vm", job="modify", token=5, held=3.0), logging.DEBUG),
    (Lost(vm="vm", job="modify", token=5, held=3.0, how="closed", why="closed"), logging.INFO),
    (Renewed(session="s", late=0.1, ttl=10.0, seconds=9.0), logging.DEBUG),
    (RenewalFailed(session="s", error="no route", times=2, seconds=5.0), logging.INFO),
    (SessionOpened(session="s", ttl=10.0, seconds=9.0), logging.INFO),
    (SessionLost(session="s", how="session", why="late"), logging.INFO),
    (StoreFailed(verb="commit", error="no route", unanswered=True), logging.DEBUG),
]


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = clock.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert clock.monotonic() < deadline, "it did not come about"
        pause.wait(0.005)


@pytest.mark.parametrize("event", GRAVE, ids=repr)
def test_what_is_grave_is_a_warning(event: Event, records: list[logging.LogRecord]) -> None:
    warn(event)
    LogHook()(event)
    [record] = records
    assert (record.name, record.levelno) == ("distjob", logging.WARNING)
    assert record.getMessage().isprintable()
    facts = vars(record)
    assert facts["event"] == type(event).__name__
    if isinstance(event, Lost | Evicted):
        assert (facts["vm"], facts["job"], facts["how"]) == ("v\nm", "modify", event.how)
        assert "'v\\nm'" in record.getMessage()
        assert facts["token"] == event.token
    if isinstance(event, Evicted):
        assert (facts["controller"], facts["host"], facts["pid"]) == (OWNER.controller, "host", 7)
        assert "host, pid 7" in record.getMessage()


@pytest.mark.parametrize(("event", "level"), CHATTER, ids=repr)
def test_the_rest_is_for_who_asks(
    event: Event, level: int, records: list[logging.LogRecord]
) -> None:
    warn(event)
    assert records == []
    LogHook(long_wait=3.0)(event)
    [record] = records
    assert (record.name, record.levelno) == ("distjob", level)
    assert record.getMessage().isprintable()
    assert vars(record)["event"] == type(event).__name__


def test_a_loss_is_logged_though_there_is_no_hook(records: list[logging.LogRecord]) -> None:
    server = MemoryServer()
    with Client(MemoryStore(server)) as a, Client(MemoryStore(server)) as b:
        lease = a.begin("vm", "modify")
        b.evict("vm", [b.status("vm").holders[0].ticket])
        until(lambda: lease.lost)
        until(lambda: len(records) >= 2)
        with b.begin("vm", "modify"):
            pass
    told = {vars(record)["event"]: record for record in records}
    assert set(told) == {"Lost", "Evicted"}
    assert vars(told["Lost"])["token"] == lease.token == vars(told["Evicted"])["token"]
