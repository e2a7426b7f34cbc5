"""What a program is told that uses the API nearly right."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

import distjob
from distjob import Client, Job, aio, connect
from distjob.errors import BadRequest, ConfigError, JobTimeout
from distjob.testing.memory import MemoryServer, MemoryStore
from keeping import keep


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(MemoryStore(MemoryServer())) as made:
        yield made


# -- the memory store, for users' tests ------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    ["memory://one", {"backend": "memory", "memory": {"name": "one"}}],
)
def test_a_memory_store_is_shared_by_its_name(source: Any) -> None:
    with connect(source) as first, connect("memory://one") as second:
        with first.begin("vm", Job.MODIFY) as lease:
            assert second.try_begin("vm", Job.MODIFY) is None
            assert [job.token for job in second.status("vm").holders] == [lease.token]
        second.begin("vm", Job.MODIFY, wait=0).end()
    with connect("memory://other") as third:
        assert third.list() == []


def test_a_memory_store_on_asyncio() -> None:
    async def main() -> None:
        async with aio.connect("memory://both") as jobs, jobs.begin("vm", Job.MODIFY) as lease:
            assert lease.remaining > 0
            assert (await jobs.status("vm")).holders

    asyncio.run(main())


@pytest.mark.parametrize("url", ["memory://a,b", "memory://a/b", "memory://me:word@a"])
def test_a_memory_store_has_a_name_and_no_more(url: str) -> None:
    with pytest.raises(ConfigError, match="must be memory://name"):
        connect(url)


# -- leases ----------------------------------------------------------------------------------------


def test_a_lease_knows_its_slot(client: Client) -> None:
    with (
        client.begin("vm", "modify", agent="query") as both,
        client.begin_async("vm2", "save") as a,
    ):
        assert (both.slot, a.slot, keep(a.nested()).slot) == ("sync", "async", "sync")
    assert keep(client.begin_agent("vm3", "query")).slot is distjob.Slot.AGENT


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_lease_is_not_copied(client: Client, copied: Any) -> None:
    with (
        client.begin("vm", "modify") as lease,
        pytest.raises(TypeError, match="it belongs to its client"),
    ):
        copied(lease)


def test_who_waits_for_itself_is_told(client: Client) -> None:
    with client.begin("vm", "modify"), pytest.raises(JobTimeout) as error:
        client.begin("vm", "modify", wait=0)
    assert "(this same client's: was its lease not ended, or" in str(error.value)
    with client.begin_async("vm", "save"), pytest.raises(JobTimeout) as error:
        client.begin("vm", "modify", wait=0)
    assert "(this same client's: begin its steps by nested()" in str(error.value)


def test_a_wait_is_seconds_or_a_timedelta(client: Client) -> None:
    with client.begin("vm", "modify", wait=timedelta(minutes=1)), pytest.raises(JobTimeout):
        client.begin("vm", "modify", wait=timedelta())
    with client.begin_async("vm2", "save") as long:
        assert long.wait_abort(timedelta(milliseconds=1)) is None
    with pytest.raises(BadRequest, match="from 0 to 31536000, not -60"):
        client.begin("vm", "modify", wait=timedelta(minutes=-1))


def test_who_waits_for_another_is_not() -> None:
    with connect("memory://two") as first, connect("memory://two") as second:
        with first.begin("vm", "modify"), pytest.raises(JobTimeout) as error:
            second.begin("vm", "modify", wait=0)
        assert "same client" not in str(error.value)


# -- asyncio ---------------------------------------------------------------------------------------


def test_a_begin_that_was_not_awaited_says_so() -> None:
    async def main() -> None:
        async with aio.connect("memory://late") as jobs:
            opening: Any = jobs.begin("vm", Job.MODIFY)
            with pytest.raises(AttributeError, match=r"'token' .*lease = await jobs\.begin"):
                _ = opening.token
            with pytest.raises(TypeError, match=r"'with' can't wait: .*async with"), opening:
                pass
            async with jobs.begin("vm", Job.MODIFY) as lease:
                assert lease.token

    asyncio.run(main())


def test_a_blocking_client_in_a_loop_is_told() -> None:
    async def main() -> None:
        with pytest.warns(RuntimeWarning, match=r"use distjob\.aio"):
            client = connect("memory://loop")
        client.close()
        await asyncio.to_thread(lambda: connect("memory://loop").close())

    asyncio.run(main())


# -- clients that nobody closed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "told"),
    [("", True), ("client.close()", False), ("import os; os.fork() or os._exit(0)", True)],
)
def test_a_client_that_nobody_closed_is_told(rest: str, told: bool) -> None:
    script = f"import distjob; client = distjob.connect('memory://x')\n{rest}"
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.count("was never closed: it is closed now") == told
