"""`connect`, and the client of a store that has several shards: `distjob.sharded`, on asyncio."""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, Self

from distjob import client as blocking
from distjob import sharded
from distjob.aio.client import AsyncClient
from distjob.aio.lease import AsyncJobLease, Lease
from distjob.aio.opening import like, opens
from distjob.config import Settings, load, open_backend_async, shards_of
from distjob.drive.blocking import check_fork
from distjob.drive.names import Seconds, check_vm
from distjob.errors import BackendUnavailable, ClientClosed, DistjobError
from distjob.hooks import Hook
from distjob.protocol.look import JobStatus, VMStatus
from distjob.protocol.state import CLOSED
from distjob.rules.jobs import AgentJobLike, AsyncJobLike, JobLike, OnOwnerLoss, OnOwnerLossLike
from distjob.rules.shards import shard_of
from distjob.store import AsyncStore, Guarantees


class AsyncShardedClient(AsyncClient):
    """An `AsyncClient` over several stores, as `distjob.sharded.ShardedClient` is a `Client`."""

    def __init__(
        self, shards: Sequence[Callable[[], Awaitable[AsyncStore]]], **options: Any
    ) -> None:
        """The arguments of `ShardedClient`. Sends nothing: entering, or awaiting, it does."""
        self._opens = shards
        self._options = options
        self._clients: dict[int, AsyncClient] = {}
        self._locks = [asyncio.Lock() for _ in shards]
        self._shut = False
        self._pid = os.getpid()

    async def _open(self) -> Self:
        if self._clients and not self._shut:
            return self
        for number in range(len(self._opens) - 1):
            try:
                await self._shard(number)
            except BackendUnavailable:
                continue  # its jobs are out of reach, those of the others are not
            return self
        await self._shard(len(self._opens) - 1)
        return self

    async def _shard(self, number: int) -> AsyncClient:
        """The client of this shard, opened if it was not used yet; who comes meanwhile waits."""
        check_fork(self._pid)
        async with self._locks[number]:
            if self._shut:
                raise ClientClosed(CLOSED)
            if number not in self._clients:
                store = await self._opens[number]()
                try:
                    client = AsyncClient(store, **self._options)
                except BaseException:
                    await store.close()
                    raise
                self._clients[number] = await client
            return self._clients[number]

    async def _of(self, vm: str) -> AsyncClient:
        if not self._clients and not self._shut:
            raise ClientClosed("this client is not open: use 'async with', or await it")
        return await self._shard(shard_of(check_vm(vm), len(self._opens)))

    async def _all(self) -> builtins.list[AsyncClient]:
        return [await self._shard(number) for number in range(len(self._opens))]

    @property
    def guarantees(self) -> Guarantees:
        for client in self._clients.values():
            return client.guarantees
        raise ClientClosed("this client is not open: use 'async with', or await it")

    @opens
    @like(blocking.Client.begin)
    async def begin(
        self,
        vm: str,
        job: JobLike,
        *,
        agent: AgentJobLike | None = None,
        api: str = "",
        wait: Seconds | None = None,
    ) -> Lease:
        return await (await self._of(vm)).begin(vm, job, agent=agent, api=api, wait=wait)

    @like(blocking.Client.try_begin)
    async def try_begin(
        self, vm: str, job: JobLike, *, agent: AgentJobLike | None = None, api: str = ""
    ) -> Lease | None:
        return await (await self._of(vm)).try_begin(vm, job, agent=agent, api=api)

    @opens
    @like(blocking.Client.begin_agent)
    async def begin_agent(
        self, vm: str, job: AgentJobLike, *, api: str = "", wait: Seconds | None = None
    ) -> Lease:
        return await (await self._of(vm)).begin_agent(vm, job, api=api, wait=wait)

    @opens
    @like(blocking.Client.begin_async)
    async def begin_async(
        self,
        vm: str,
        kind: AsyncJobLike,
        *,
        on_owner_loss: OnOwnerLossLike = OnOwnerLoss.RELEASE,
        api: str = "",
        wait: Seconds | None = None,
    ) -> AsyncJobLease:
        there = await self._of(vm)
        return await there.begin_async(vm, kind, on_owner_loss=on_owner_loss, api=api, wait=wait)

    @opens
    @like(blocking.Client.adopt)
    async def adopt(self, vm: str, kind: AsyncJobLike, *, api: str = "") -> AsyncJobLease:
        return await (await self._of(vm)).adopt(vm, kind, api=api)

    @like(blocking.Client.abort)
    async def abort(
        self, vm: str, *, reason: str = "", api: str = "", wait: Seconds | None = None
    ) -> JobStatus:
        return await (await self._of(vm)).abort(vm, reason=reason, api=api, wait=wait)

    @like(blocking.Client.discard)
    async def discard(self, vm: str) -> JobStatus:
        return await (await self._of(vm)).discard(vm)

    @like(blocking.Client.evict)
    async def evict(self, vm: str, tickets: Iterable[str]) -> Sequence[JobStatus]:
        return await (await self._of(vm)).evict(vm, tickets)

    @like(blocking.Client.status)
    async def status(self, vm: str) -> VMStatus:
        return await (await self._of(vm)).status(vm)

    @like(blocking.Client.list)
    async def list(self) -> Sequence[VMStatus]:
        found = [await client.list() for client in await self._all()]
        return sharded.by_name(one for some in found for one in some)

    @like(blocking.Client.orphans)
    async def orphans(self) -> Sequence[VMStatus]:
        found = [await client.orphans() for client in await self._all()]
        return sharded.by_name(one for some in found for one in some)

    @like(blocking.Client.close)
    async def close(self) -> None:
        if os.getpid() != self._pid:
            return
        self._shut = True
        errors: builtins.list[DistjobError] = []
        for number, lock in enumerate(self._locks):
            async with lock:  # one that is being opened is closed, too
                client = self._clients.get(number)
            try:
                if client is not None:
                    await client.close()
            except DistjobError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def __repr__(self) -> str:
        used = f"{len(self._clients)} of {len(self._opens)} shards in use"
        state = "closed" if self._shut else "open" if self._clients else "not open yet"
        return f"<{type(self).__name__}, {used}, {state}>"


@opens
@like(sharded.connect)
async def connect(
    source: str | PathLike[str] | Mapping[str, Any] | Settings | None = None,
    *,
    hooks: Iterable[Hook] = (),
) -> AsyncClient:
    settings = load(source)
    options = sharded.options_of(settings, hooks)
    if (shards := shards_of(settings)) > 1:
        each = [partial(open_backend_async, settings, shard=number) for number in range(shards)]
        return await AsyncShardedClient(each, **options)
    store = await open_backend_async(settings)
    try:
        client = AsyncClient(store, **options)
    except BaseException:
        await store.close()
        raise
    return await client
