"""Many tasks of one process, each on a VM of its own: distjob.aio against redis.asyncio's Lock.

On one server, in one loop, in turns. The lock's pool has a connection for each task, as redis-py
needs one for each command under way; and once more with few, for which its commands queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

import redis.asyncio

from distjob.aio import AsyncClient
from distjob.config import Settings, open_backend_async
from distjob.rules.jobs import Job
from distjob.testing.bench.measure import say, spread

Pair = Callable[[int], Awaitable[None]]
Pool = redis.asyncio.ConnectionPool
FEW = 50


async def _rate(pair: Pair, tasks: int, pairs: int) -> float:
    """Pairs a second of begin and end, or what stands for them, when connections are made."""

    async def work(number: int, times: int) -> None:
        for _ in range(times):
            await pair(number)

    await asyncio.gather(*(work(number, 1) for number in range(tasks)))
    started = perf_counter()
    await asyncio.gather(*(work(number, pairs) for number in range(tasks)))
    return tasks * pairs / (perf_counter() - started)


async def _ours(settings: Settings, tasks: int, pairs: int) -> float:
    async with AsyncClient(await open_backend_async(settings), ttl=30.0) as jobs:

        async def pair(number: int) -> None:
            lease = await jobs.begin(f"vm-{number}", Job.MODIFY)
            await lease.end()

        return await _rate(pair, tasks, pairs)


async def _theirs(settings: Settings, pool: Pool, tasks: int, pairs: int) -> float:
    prefix = f"distjob:{{{settings.namespace}-bare}}:lock"
    async with redis.asyncio.Redis.from_pool(pool) as client:

        async def pair(number: int) -> None:
            lock = client.lock(f"{prefix}-{number}", timeout=30)
            await lock.acquire()
            await lock.release()

        return await _rate(pair, tasks, pairs)


async def _measure(settings: Settings, tasks: int, pairs: int, blocks: int) -> None:
    url = settings.section.url
    wide, few = redis.asyncio.ConnectionPool, redis.asyncio.BlockingConnectionPool
    rows: list[tuple[float, float]] = []
    for _ in range(blocks):
        many = wide.from_url(url, max_connections=tasks + 10)
        some = few.from_url(url, max_connections=FEW, timeout=600)
        theirs = [await _theirs(settings, pool, tasks, pairs) for pool in (many, some)]
        ours = await _ours(settings, tasks, pairs)
        rows.append((ours / theirs[0], ours / theirs[1]))
    what = f"{tasks} tasks: pairs/s of begin + end / redis.asyncio's Lock"
    say(what, spread(sorted(row[0] for row in rows)))
    say(f"the same, its pool with {FEW} connections", spread(sorted(row[1] for row in rows)))


def many_tasks(settings: Settings, *, tasks: int, pairs: int, blocks: int) -> None:
    """Say how many times as many pairs a second distjob makes."""
    asyncio.run(_measure(settings, tasks, pairs, blocks))
