"""Metrics without a server; what Prometheus reads after a whole day is in tests/contract."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import yaml
from prometheus_client import generate_latest

from book import Book
from distjob import clock
from distjob.aio import AsyncClient
from distjob.hooks import (
    Begun,
    Blocker,
    Ended,
    Evicted,
    Lost,
    Refused,
    RenewalFailed,
    Renewed,
    SessionLost,
    SessionOpened,
    StoreFailed,
    TimedOut,
)
from distjob.rules.jobs import Slot
from distjob.rules.ticket import Owner
from distjob.serve.exposition import exposition
from distjob.testing.memory import AsyncMemoryStore, MemoryServer
from servers.plan import DEPLOYMENTS

PATIENCE = 15.0


def test_a_task_is_cancelled_while_it_waits(book: Book) -> None:
    server = MemoryServer()

    async def day() -> None:
        connect = partial(AsyncMemoryStore.connect, server)
        async with (
            AsyncClient(await connect()) as other,
            AsyncClient(await connect(), hooks=[book.metrics]) as mine,
            await other.begin("vm", "modify"),
        ):
            task = asyncio.create_task(mine.begin("vm", "query"))
            async with asyncio.timeout(PATIENCE):
                while not book("waiting", type="query"):
                    await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(day())
    assert book("waiting", type="query") == 0
    assert book("wait_seconds_count", type="query", outcome="gave up") == 1


def test_threads_count_together(book: Book) -> None:
    owner = Owner("a", "host", 1)
    events = [
        Begun(vm="vm", job="modify", token=1, waited=0.1, queued=False),
        Ended(vm="vm", job="modify", token=1, held=0.1),
        Begun(vm="vm", job="modify", token=1, waited=0.1, queued=False),
        Lost(vm="vm", job="modify", token=1, held=0.1, how="session", why="x"),
        Refused(vm="vm", job="modify", depth=1),
        Evicted(vm="vm", job="modify", token=1, ticket="t", owner=owner, seconds=1, how="force"),
        Renewed(session="s", late=1.0, ttl=10.0, seconds=9.0),
    ]

    def some(_number: int) -> None:
        for _ in range(200):
            for event in events:
                book.metrics(event)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(some, range(8)))
    assert book("held", type="modify") == 0
    assert book("hold_seconds_count", type="modify") == 3200
    assert book("lost_total", type="modify", how="session") == 1600
    assert book("refused_total", type="modify") == 1600
    assert book("evicted_total", type="modify", how="force") == 1600
    assert book("keep_alive_late_ratio_sum") == pytest.approx(160)


def test_a_store_that_is_away_is_seen(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    assert (book("session_up"), book("deadline_seconds")) == (0, 0)
    book.metrics(SessionOpened(session="a", ttl=10.0, seconds=9.0))
    book.metrics(SessionOpened(session="b", ttl=10.0, seconds=8.0))
    assert (book("session_up"), book("deadline_seconds")) == (2, 8)
    now += 3
    book.metrics(Renewed(session="b", late=0.1, ttl=10.0, seconds=9.0))
    assert book("deadline_seconds") == 6
    book.metrics(RenewalFailed(session="a", error="x", times=1, seconds=6.0))
    book.metrics(StoreFailed(verb="keep_alive", error="x", unanswered=False))
    assert book("renewals_failed_total") == 1
    assert book("store_errors_total", verb="keep_alive", outcome="not done") == 1
    assert book("sessions_lost_total", how="session") == 0
    book.metrics(SessionLost(session="a", how="session", why="x"))
    assert (book("session_up"), book("deadline_seconds")) == (1, 9)
    assert book("sessions_lost_total", how="session") == 1
    now += 20
    assert book("deadline_seconds") == 0


def test_the_age_of_the_oldest_job_is_read(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    for token in (1, 2):
        book.metrics(Begun(vm="vm", job="modify", token=token, waited=0.0, queued=False))
        now += 10
    assert book("longest_held_seconds", type="modify") == 20
    book.metrics(Ended(vm="vm", job="modify", token=1, held=20.0))
    assert book("longest_held_seconds", type="modify") == 10
    book.metrics(Ended(vm="vm", job="modify", token=2, held=10.0))
    assert book("longest_held_seconds", type="modify") == 0


def test_blockers_and_vms_are_no_labels(book: Book) -> None:
    owner = Owner("somebody", "somewhere", 1)
    blocker = Blocker(slot=Slot.SYNC, job="modify", owner=owner, api="somehow", token=4)
    book.metrics(TimedOut(vm="vm-42", job="modify", waited=1.0, blockers=(blocker,)))
    told = generate_latest(book.registry)
    assert b"modify" in told
    assert not {b"vm-42", b"somebody", b"somewhere", b"somehow"} & {
        *told.replace(b'"', b" ").split()
    }


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import distjob, distjob.aio, distjob.hooks, distjob.hooks.logs", ""),
        ("import distjob.hooks.metrics", 'pip install "distjob-vm[metrics]"'),
    ],
)
def test_only_who_asks_for_metrics_needs_the_library(script: str, told: str) -> None:
    code = f"import sys; sys.modules['prometheus_client'] = None; {script}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (told == ""), done.stderr
    assert told in done.stderr


@pytest.mark.parametrize("file", ["prometheus/alerts.yaml", "grafana/distjob.json"])
def test_what_is_shipped_reads_what_is_exported(file: str, book: Book) -> None:
    text = (DEPLOYMENTS / file).read_text()
    assert yaml.safe_load(text)
    exported = {metric.name for metric in book.registry.collect()}
    shown = re.findall(r'_(?:one|many)\("(\w+?)(?:_total)?"', inspect.getsource(exposition))
    exported |= {f"distjob_serve_{name}" for name in shown}
    read = set(re.findall(r"\bdistjob_\w+?(?=_total|_bucket|\b)", text))
    assert read
    assert read <= exported
