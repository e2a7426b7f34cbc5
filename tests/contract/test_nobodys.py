"""No job is held by nobody: what a store brings back, and nobody has, is taken out again.

A store may lose an acknowledged write (a fail-over of Redis does), and with it the end of a job:
the record names a ticket of a session that lives, and whose client knows nothing of it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distjob import AsyncJob, Client, Job
from distjob.store import Committed
from stores import Opener
from until import until

Clients = Callable[..., Client]
STORES = ("memory", "memory+asyncio", "redis")
on_some_stores = pytest.mark.parametrize("open_store", STORES, indirect=True)


def bring_back(open_store: Opener, vm: str, done: Callable[[], object]) -> None:
    """The record of ``vm`` is again what it was before ``done``."""
    store = open_store()
    before = store.read(vm).value
    done()
    author = store.open_session(30.0, "who takes over")
    reply = store.commit(vm, store.read(vm).version, before, author, ())
    assert isinstance(reply, Committed)
    store.close()


@on_some_stores
def test_an_end_that_the_store_has_lost_keeps_nobody_waiting(
    clients: Clients, open_store: Opener
) -> None:
    a, b = clients("ctl-a", ttl=30.0), clients("ctl-b", ttl=30.0)
    bring_back(open_store, "vm", a.begin("vm", Job.MODIFY).end)
    b.begin("vm", Job.MODIFY, wait=10).end()
    bring_back(open_store, "vm", a.begin_async("vm", AsyncJob.BACKUP).end)
    a.begin("vm", Job.MODIFY, wait=10).end()
    assert a.status("vm").idle


@on_some_stores
def test_whoever_only_looks_takes_it_out(clients: Clients, open_store: Opener) -> None:
    a, b = clients("ctl-a", ttl=30.0), clients("ctl-b", ttl=30.0)
    bring_back(open_store, "vm", a.begin("vm", Job.MODIFY).end)
    assert not b.status("vm").idle
    a.list()
    until(lambda: b.status("vm").idle)


@on_some_stores
def test_a_detached_job_is_detached_again(clients: Clients, open_store: Opener) -> None:
    a, b = clients("ctl-a", ttl=30.0), clients("ctl-b", ttl=30.0)
    bring_back(open_store, "vm", a.begin_async("vm", AsyncJob.BACKUP).detach)
    assert not left(b)
    a.status("vm")
    until(lambda: left(b) == "detached")
    b.adopt("vm", AsyncJob.BACKUP).end()


def left(jobs: Client) -> Any:
    """How the async job came to have no owner."""
    found = jobs.status("vm").long
    return found and found.left
