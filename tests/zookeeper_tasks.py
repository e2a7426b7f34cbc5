"""What tests of the ZooKeeper store on asyncio share: a loop that is watched, a store in it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from distjob.backend.opened import OpenStore
from distjob.config import backends
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed
from distjob_zookeeper import ZookeeperSettings
from zookeeper_stores import TTL, kazoo_of

T = TypeVar("T")
PATIENCE = 20.0


def play(steps: Coroutine[Any, Any, None]) -> None:
    """Run ``steps``; afterwards no task may be left, and the loop must not have complained."""

    async def watched() -> None:
        complaints: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(str(told)))
        await asyncio.wait_for(steps, 60.0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left
        gc.collect()
        await asyncio.sleep(0)
        assert not complaints

    asyncio.run(watched())


async def connect(hosts: str, namespace: str, ttl: float = TTL, **settings: Any) -> OpenStore:
    section = ZookeeperSettings(hosts=hosts, **settings)
    store = await backends.connect_async("zookeeper", section, namespace, ttl)
    assert isinstance(store, OpenStore)
    return store


@contextlib.asynccontextmanager
async def connected(
    hosts: str, namespace: str, ttl: float = TTL, **settings: Any
) -> AsyncIterator[OpenStore]:
    store = await connect(hosts, namespace, ttl, **settings)
    try:
        yield store
    finally:
        await store.close()


async def committed(store: OpenStore, vm: str, author: str, *wake: str) -> int:
    reply = await store.commit(vm, (await store.read(vm)).version, b"x", author, wake)
    assert isinstance(reply, Committed)
    return reply.version


async def failed(verb: Awaitable[object]) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        await verb
    return caught.value


async def try_until(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` returns, once the store can be reached again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await call()
            except BackendUnavailable:
                await asyncio.sleep(0.05)


async def under_way(store: OpenStore, me: str, vms: int) -> list[asyncio.Task[Any]]:
    """Commits that are sent and not answered, if the proxy is stalled."""
    tasks = [
        asyncio.create_task(store.commit(f"vm-{number}", ABSENT, b"x", me, ()))
        for number in range(vms)
    ]
    client = kazoo_of(store)
    async with asyncio.timeout(PATIENCE):
        while len(client._pending) < vms:
            await asyncio.sleep(0.01)
    return tasks
