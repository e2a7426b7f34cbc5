"""A thousand tasks: on a VM each, they share round trips; on one VM, each has its turn."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from cancelling import cancel_at_each_step
from distjob import Job, aio
from distjob.aio import AsyncClient
from distjob.config import load, open_backend_async
from servers import RedisServer

TASKS = 1000
PATIENCE = 100.0


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        yield client


@pytest.fixture
def settings(redis_server: RedisServer) -> dict[str, Any]:
    url = {"url": redis_server.url, "timeout": 30.0}
    return {
        "namespace": uuid.uuid4().hex,
        "session": {"ttl": 30.0},
        "redis": url,
        "backend": "redis",
    }


def left(admin: redis.Redis, settings: dict[str, Any]) -> list[bytes]:
    """What the namespace holds, but for its format and its last version."""
    keys = admin.scan_iter(f"distjob:{{{settings['namespace']}}}:*", count=1000)
    return [key for key in keys if not key.endswith((b":format", b":version"))]


def calls(admin: redis.Redis, command: str) -> int:
    stats: Any = admin.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.mark.parametrize("clients", [1, 4])
def test_a_thousand_on_one_vm(clients: int, admin: redis.Redis, settings: dict[str, Any]) -> None:
    """Each is let in once, oldest first; an end wakes two sessions at most, nothing is left."""
    asked: list[int] = []
    let_in: list[int] = []
    inside = 0

    async def one(jobs: AsyncClient, number: int) -> None:
        nonlocal inside
        async with jobs.begin("vm", Job.MODIFY, api=str(number), wait=PATIENCE):
            assert inside == 0
            inside += 1
            let_in.append(number)
            inside -= 1

    async def run() -> None:
        async with AsyncExitStack() as stack:
            many = [await stack.enter_async_context(aio.connect(settings)) for _ in range(clients)]
            holder = await many[0].begin("vm", Job.MODIFY)
            tasks = [asyncio.create_task(one(many[n % clients], n)) for n in range(TASKS)]
            async with asyncio.timeout(PATIENCE):
                while len((status := await many[0].status("vm")).waiters) < TASKS:
                    await asyncio.sleep(0.05)
                asked.extend(int(waiter.api) for waiter in status.waiters)
                told = calls(admin, "publish")
                await holder.end()
                await asyncio.gather(*tasks)
            assert calls(admin, "publish") - told <= 2 * (TASKS + 1)
            assert await many[0].list() == []

    asyncio.run(run())
    assert let_in == asked
    assert sorted(let_in) == list(range(TASKS))
    if clients == 1:
        assert let_in == list(range(TASKS)), "one client's calls are served in their order"
    assert left(admin, settings) == []


def test_a_thousand_vms_share_round_trips(admin: redis.Redis, settings: dict[str, Any]) -> None:
    """One connection for all commits, and one to be woken by; far fewer reads than commits."""

    async def run() -> tuple[int, int, int]:
        before: Any = admin.info()
        async with aio.connect(settings) as jobs:

            async def work(number: int) -> None:
                for _ in range(3):
                    async with jobs.begin(f"vm-{number}", Job.MODIFY):
                        pass

            commits = calls(admin, "evalsha")
            await asyncio.gather(*(work(number) for number in range(TASKS)))
            after: Any = admin.info()
            return (
                calls(admin, "evalsha") - commits,
                after["total_reads_processed"] - before["total_reads_processed"],
                after["connected_clients"] - before["connected_clients"],
            )

    commits, reads, connections = asyncio.run(run())
    assert commits == 2 * 3 * TASKS
    assert reads < commits / 4
    assert connections <= 2
    assert left(admin, settings) == []


def test_a_crowd_that_is_cancelled_leaves_nothing(
    admin: redis.Redis, settings: dict[str, Any]
) -> None:
    async def run() -> None:
        async with aio.connect(settings) as jobs, aio.connect(settings) as other:
            holder = await other.begin("vm", Job.MODIFY)
            tasks = [
                asyncio.create_task(jobs.begin("vm", Job.QUERY, wait=PATIENCE)) for _ in range(300)
            ]
            async with asyncio.timeout(PATIENCE):
                while len((await other.status("vm")).waiters) < 300:
                    await asyncio.sleep(0.05)
                for task in tasks:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(result, asyncio.CancelledError) for result in results)
                while (await other.status("vm")).waiters:  # what did not get through is tidied up
                    await asyncio.sleep(0.05)
            await holder.end()

    asyncio.run(run())
    assert left(admin, settings) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("blocked", [False, True], ids=["free", "waiting"])
def test_cancelled_at_the_kth_step(
    blocked: bool, after: bool, admin: redis.Redis, settings: dict[str, Any]
) -> None:
    """For all k, on the real server: no ticket, session or connection is left."""

    async def work(jobs: AsyncClient) -> None:
        async with jobs.begin("vm", Job.MODIFY):
            await asyncio.sleep(0)

    async def run() -> None:
        loaded = load(settings)
        async with aio.connect(settings) as other:

            async def in_the_way() -> Callable[[], Awaitable[None]]:
                return (await other.begin("vm", Job.MODIFY)).end

            steps = await cancel_at_each_step(
                work,
                other,
                lambda: open_backend_async(loaded),
                after=after,
                in_the_way=in_the_way if blocked else None,
            )
            assert steps >= 2
            assert sum(b":session:" in key for key in left(admin, settings)) == 1
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    asyncio.run(run())
    assert left(admin, settings) == []
