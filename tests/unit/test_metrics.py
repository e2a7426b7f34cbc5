"""What Prometheus reads after a day with everything in it: on the memory store and on Redis, for
the blocking and the asyncio client."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from distjob import JobTimeout, LeaseLost, QueueFull, clock
from distjob.aio import AsyncClient
from distjob.hooks import Begun, Ended, Evicted, Lost, Refused, Renewed, TimedOut
from distjob.metrics import Metrics
from distjob.offloop import OffLoop
from distjob.testing.memory import MemoryServer, MemoryStore
from distjob.ticket import Owner
from servers.plan import DEPLOYMENTS

PATIENCE = 15.0
STORES = ["memory", "memory+asyncio", "redis", "redis+asyncio"]


def until(condition: Callable[[], object]) -> None:
    """Look again until ``condition`` holds: the store and the registry tell nobody."""
    deadline = clock.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert clock.monotonic() < deadline, "it did not come about"
        pause.wait(0.005)


class Book:
    """A registry, read by name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"distjob_{name}", labels)


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("open_store", STORES, indirect=True)
def test_a_day(open_store: Any, clients: Any, book: Book, pool: ThreadPoolExecutor) -> None:
    other = clients("other")
    mine = clients("mine", ttl=2.0, max_queued=2, hooks=[book.metrics])

    with mine.begin("vm", "modify"):  # granted at once
        assert book("held", type="modify") == 1
    assert book("held", type="modify") == 0
    assert book("wait_seconds_count", type="modify", outcome="granted") == 1
    assert book("hold_seconds_count", type="modify") == 1
    assert book("lost_total", type="modify", how="session") == 0

    lease = other.begin("vm", "modify")  # granted after a wait
    call = pool.submit(mine.begin, "vm", "query")
    until(lambda: book("waiting", type="query") == 1)
    assert book("queue_depth_sum", type="query") == 1
    with pytest.raises(QueueFull):
        mine.begin("vm", "suspend")
    assert book("refused_total", type="suspend") == 1
    assert book("timed_out_total", type="suspend") == 0  # a sum needs both
    lease.end()
    call.result(PATIENCE).end()
    assert book("waiting", type="query") == 0
    assert book("wait_seconds_count", type="query", outcome="granted") == 1

    with other.begin("vm", "modify"), pytest.raises(JobTimeout):  # not granted
        mine.begin("vm", "query", wait=0.05)
    assert book("timed_out_total", type="query") == 1
    assert book("wait_seconds_count", type="query", outcome="timed out") == 1
    assert book("waiting", type="query") == 0

    lease = mine.begin("vm", "modify")  # broken by another
    other.evict("vm", [job.ticket for job in other.status("vm").holders])
    until(lambda: book("lost_total", type="modify", how="force") == 1)
    with pytest.raises(LeaseLost):
        lease.end()
    other.begin("vm", "suspend")  # broken by us
    mine.evict("vm", [job.ticket for job in mine.status("vm").holders])
    assert book("evicted_total", type="suspend", how="force") == 1

    until(lambda: (book("keep_alive_late_ratio_count") or 0) >= 1)

    lease = mine.begin("vm", "modify")  # its session ends
    session = other.status("vm").holders[0].session
    store = open_store()
    store.close_session(session)
    store.close()
    until(lambda: book("lost_total", type="modify", how="session") == 1)
    with pytest.raises(LeaseLost):
        lease.end()

    mine.begin("vm", "modify")
    other.begin("waited for", "modify")
    call = pool.submit(mine.begin, "waited for", "modify", wait=PATIENCE)
    until(lambda: book("waiting", type="modify") == 1)
    mine.close()  # gives up what it waits for, and loses what it holds
    assert call.exception(PATIENCE) is not None
    assert book("lost_total", type="modify", how="closed") == 1
    assert book("wait_seconds_count", type="modify", outcome="gave up") == 1
    assert book("held", type="modify") == book("waiting", type="modify") == 0
    assert b'vm="' not in generate_latest(book.registry)


@pytest.mark.parametrize("open_store", ["memory", "redis"], indirect=True)
def test_the_dead_are_counted(open_store: Any, clients: Any, book: Book) -> None:
    dead, mine = clients("dead"), clients("mine", hooks=[book.metrics])
    dead.begin("vm", "modify")
    dead.begin_async("other", "backup", on_owner_loss="orphan")
    store = open_store()
    store.close_session(mine.status("vm").holders[0].session)
    store.close()
    assert book("evicted_total", type="async backup", how="orphaned") == 0  # to rise from
    mine.begin("vm", "query").end()
    mine.begin("other", "query").end()
    assert book("evicted_total", type="modify", how="ended") == 1
    mine.discard("other")
    assert book("evicted_total", type="async backup", how="orphaned") == 1
    assert book("evicted_total", type="async backup", how="force") == 1


@pytest.mark.parametrize("open_store", ["memory", "redis"], indirect=True)
def test_ctrl_c_while_it_waits(clients: Any, book: Book, pool: ThreadPoolExecutor) -> None:
    other, mine = clients("other"), clients("mine", hooks=[book.metrics])
    me = threading.get_ident()

    def press() -> None:
        until(lambda: book("waiting", type="query") == 1)
        signal.pthread_kill(me, signal.SIGINT)

    with other.begin("vm", "modify"):
        pressed = pool.submit(press)
        with pytest.raises(KeyboardInterrupt):
            mine.begin("vm", "query", wait=PATIENCE)
        pressed.result(PATIENCE)
        assert book("waiting", type="query") == 0
        assert book("wait_seconds_count", type="query", outcome="gave up") == 1
        assert other.status("vm").waiters == ()


def test_a_task_is_cancelled_while_it_waits(book: Book) -> None:
    server = MemoryServer()

    async def day() -> None:
        connect = partial(OffLoop.connect, partial(MemoryStore, server))
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
        Renewed(late=1.0, ttl=10.0),
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


def test_blockers_and_vms_are_no_labels(book: Book) -> None:
    owner = Owner("somebody", "somewhere", 1)
    book.metrics(TimedOut(vm="vm-42", job="modify", waited=1.0, blockers=(owner,)))
    told = generate_latest(book.registry)
    assert b"modify" in told
    assert not {b"vm-42", b"somebody", b"somewhere"} & {*told.replace(b'"', b" ").split()}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import distjob, distjob.aio, distjob.hooks, distjob.logs", ""),
        ("import distjob.metrics", 'pip install "distjob-vm[metrics]"'),
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
    read = set(re.findall(r"\bdistjob_\w+?(?=_total|_bucket|\b)", text))
    assert read
    assert read <= exported
