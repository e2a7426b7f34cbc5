"""A lease that nobody has any more ends its job, and so does a client; where it began is told."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from distjob import Client, Job, connect
from distjob.aio import AsyncClient
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore

SOON = 1.0


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def jobs(server: MemoryServer) -> Iterator[Client]:
    """A controller whose session is renewed for long, and whose background listens meanwhile."""
    with Client(MemoryStore(server), ttl=60.0) as client:
        yield client


@pytest.fixture
def other(server: MemoryServer) -> Iterator[Client]:
    with Client(MemoryStore(server)) as client:
        yield client


def free(other: Client, vm: str = "vm") -> None:
    """``vm`` is free, for any job, within a second."""
    other.begin(vm, Job.MODIFY, agent="modify", wait=SOON).end()
    other.begin_async(vm, "save", wait=SOON).end()


@pytest.mark.parametrize(
    "begin",
    [
        lambda jobs: jobs.begin("vm", Job.MODIFY),
        lambda jobs: jobs.try_begin("vm", Job.MODIFY, agent="query"),
        lambda jobs: jobs.begin_agent("vm", "query"),
        lambda jobs: jobs.begin_async("vm", "backup", on_owner_loss="orphan"),
    ],
    ids=["sync", "try", "agent", "orphan"],
)
def test_a_lease_that_is_garbage_ends_its_job(
    begin: Callable[[Client], object], jobs: Client, other: Client
) -> None:
    with pytest.warns(ResourceWarning, match=r"Lease .* of VM 'vm'.* was never ended"):
        begin(jobs)
    free(other)


def test_leases_of_several_vms_that_are_garbage_end_their_jobs(jobs: Client, other: Client) -> None:
    kept = {"vm": Job.MODIFY, "vm2": Job.MODIFY}
    with pytest.warns(ResourceWarning) as told:
        jobs.begin_many(kept)
    assert [str(one.message).count("was never ended") for one in told] == [1, 1]
    for vm in kept:
        free(other, vm)


def test_the_warning_says_where_it_began(jobs: Client, other: Client) -> None:
    tracemalloc.start(20)
    try:
        with pytest.warns(ResourceWarning) as told:
            jobs.begin("vm", Job.MODIFY)
    finally:
        tracemalloc.stop()
    [warning] = told.list
    assert warning.source is not None
    free(other)


def test_a_step_keeps_its_async_job_and_a_lease_its_client(
    server: MemoryServer, jobs: Client, other: Client
) -> None:
    step = jobs.begin_async("vm", "backup").nested()
    lease = Client(MemoryStore(server)).begin("vm2", Job.MODIFY)
    gc.collect()
    step.check()
    lease.check()
    step.end()
    lease.end()
    with pytest.warns(ResourceWarning, match="AsyncJobLease .*VM 'vm'"):
        del step
    free(other)
    with pytest.warns(ResourceWarning, match="Client .* was never closed"):
        del lease
    free(other, "vm2")


def test_a_client_that_is_garbage_is_closed(server: MemoryServer, other: Client) -> None:
    dropped = Client(MemoryStore(server), ttl=60.0)
    background = dropped._background
    with pytest.warns(ResourceWarning, match="Client .* was never closed"):
        del dropped
    for thread in background.threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(server._sessions) == 1


# -- asyncio ---------------------------------------------------------------------------------------


async def opened(server: MemoryServer) -> AsyncClient:
    return await AsyncClient(await AsyncMemoryStore.connect(server), ttl=60.0)


async def fails() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    raise KeyError("mine")


def begun_and_failed(jobs: AsyncClient) -> Iterator[Awaitable[object]]:
    """A begin, and what fails once that has come to its end."""
    task = asyncio.create_task(jobs.begin("vm", Job.MODIFY))

    async def fail() -> None:
        await asyncio.wait([task])
        raise KeyError("mine")

    yield task
    yield fail()


def test_what_a_gather_with_a_failure_has_begun_is_ended(
    server: MemoryServer, other: Client
) -> None:
    async def main() -> None:
        async with await opened(server) as jobs:
            with pytest.raises(KeyError):
                await asyncio.gather(*begun_and_failed(jobs))
            gc.collect()
            await asyncio.to_thread(free, other)

    with pytest.warns(ResourceWarning, match="Lease modify of VM 'vm'"):
        asyncio.run(main())


def test_what_a_sibling_in_a_task_group_has_begun_is_ended(
    server: MemoryServer, other: Client
) -> None:
    async def group(jobs: AsyncClient) -> None:
        async with asyncio.TaskGroup() as tasks:
            await asyncio.wait([tasks.create_task(jobs.begin("vm", Job.MODIFY))])
            tasks.create_task(fails())

    async def main() -> None:
        async with await opened(server) as jobs:
            with pytest.raises(ExceptionGroup):
                await group(jobs)
            gc.collect()
            await asyncio.to_thread(free, other)

    with pytest.warns(ResourceWarning, match="Lease modify of VM 'vm'"):
        asyncio.run(main())


def test_an_asyncio_client_that_is_garbage_is_closed(server: MemoryServer, other: Client) -> None:
    async def main() -> None:
        jobs = await opened(server)
        async with jobs.begin("vm", Job.MODIFY):
            pass
        del jobs
        await asyncio.to_thread(free, other)
        while len(server._sessions) > 1:  # the other's
            await asyncio.sleep(0.01)

    with pytest.warns(ResourceWarning, match="AsyncClient .* was never closed"):
        asyncio.run(asyncio.wait_for(main(), 20))


# -- the end of the program ------------------------------------------------------------------------

BLOCKING = """
import sys, distjob
jobs = distjob.connect(sys.argv[1])
lease = jobs.begin("vm", "modify")
"""
ASYNCIO = """
import asyncio, sys
from distjob import aio
async def main():
    global jobs, lease
    jobs = await aio.connect(sys.argv[1])
    lease = await jobs.begin("vm", "modify")
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "script", [BLOCKING, ASYNCIO, BLOCKING + "raise KeyError"], ids=["end", "loop", "error"]
)
def test_a_program_that_ends_without_close_holds_nothing(script: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    with connect(url) as other:
        subprocess.run(
            [sys.executable, "-c", script, url], check=False, capture_output=True, timeout=60
        )
        assert other.status("vm").idle
