"""What Prometheus reads after a day with everything in it: on the memory store and on Redis, for
the blocking and the asyncio client."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client import generate_latest

from book import Book
from distjob import JobTimeout, LeaseLost, QueueFull
from keeping import keep
from until import until

PATIENCE = 20.0
STORES = ["memory", "memory+asyncio", "redis", "redis+asyncio"]


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
    keep(other.begin("vm", "suspend"))  # broken by us
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

    keep(mine.begin("vm", "modify"))
    keep(other.begin("waited for", "modify"))
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
    keep(dead.begin("vm", "modify"))
    keep(dead.begin_async("other", "backup", on_owner_loss="orphan"))
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
