"""A client over several stores: a VM is always in the same one, and each fails alone."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

import distjob
from distjob import (
    BackendUnavailable,
    BadRequest,
    Client,
    ClientClosed,
    Job,
    LeaseLost,
    OutcomeUnknown,
)
from distjob.aio import AsyncClient
from distjob.aio.sharded import AsyncShardedClient
from distjob.aio.sharded import connect as connect_async
from distjob.config import backends, load, open_backend, shards_of
from distjob.rules.shards import shard_of
from distjob.sharded import ShardedClient
from distjob.sharded import connect as connect_blocking
from distjob.store import AsyncStore, Backend, Store
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from until import until

TTL = 0.5
VMS = [f"vm-{number}" for number in range(60)]


class Shards:
    """Memory servers, each of which can be killed: then no store on it answers any more."""

    def __init__(self, count: int) -> None:
        self.servers = [MemoryServer() for _ in range(count)]
        self.dead: set[int] = set()
        self.opened: list[int] = []
        self.opens = [partial(self._open, number) for number in range(count)]
        self.opens_async = [partial(self._open_async, number) for number in range(count)]

    def _open(self, number: int) -> Store:
        self._reach(number)
        return _Killable(self, number)

    async def _open_async(self, number: int) -> AsyncStore:
        self._reach(number)
        return _AsyncKillable(self, number)

    def _reach(self, number: int) -> None:
        if number in self.dead:
            raise BackendUnavailable(f"shard {number} is not there")
        self.opened.append(number)

    def vm(self, number: int) -> str:
        return next(vm for vm in VMS if shard_of(vm, len(self.servers)) == number)


_VERBS = ("commit", "read", "keep_alive", "remaining", "settle", "close_session")


class _Killable(MemoryStore):
    def __init__(self, shards: Shards, number: int) -> None:
        super().__init__(shards.servers[number])
        self._dead = lambda: number in shards.dead

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return _refuse if name in _VERBS and super().__getattribute__("_dead")() else found


class _AsyncKillable(AsyncMemoryStore):
    def __init__(self, shards: Shards, number: int) -> None:
        super().__init__(shards.servers[number])
        self._dead = lambda: number in shards.dead

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return _refuse_async if name in _VERBS and super().__getattribute__("_dead")() else found


def _refuse(*_: object) -> None:
    raise BackendUnavailable("this shard was killed")


async def _refuse_async(*_: object) -> None:
    _refuse()


@pytest.fixture
def shards() -> Shards:
    return Shards(3)


# -- which ----------------------------------------------------------------------------------------


def test_which_shard_has_a_vm_never_changes() -> None:
    """These are for ever: controllers of every version must agree."""
    told = {vm: [shard_of(vm, count) for count in (1, 2, 3, 8)] for vm in GOLDEN}
    assert told == GOLDEN


GOLDEN: dict[str, list[int]] = {
    "vm-42": [0, 0, 0, 5],
    "a": [0, 1, 1, 3],
    "ü/\n": [0, 1, 1, 3],
    "x" * 255: [0, 0, 2, 5],
    "vm-1": [0, 1, 1, 1],
}


def test_one_shard_more_takes_its_share_and_moves_nothing_else() -> None:
    vms = [f"vm-{number}" for number in range(3000)]
    for count in range(1, 9):
        share = Counter(shard_of(vm, count) for vm in vms)
        assert min(share.values()) > 0.8 * len(vms) / count
        assert len(share) == count
        moved = {
            shard_of(vm, count + 1) for vm in vms if shard_of(vm, count) != shard_of(vm, count + 1)
        }
        assert moved == {count}


# -- blocking -------------------------------------------------------------------------------------


def test_a_vm_is_always_in_the_same_shard(shards: Shards) -> None:
    with (
        ShardedClient(shards.opens, ttl=TTL) as jobs,
        ShardedClient(shards.opens, ttl=TTL) as other,
    ):
        leases = {vm: jobs.begin(vm, Job.MODIFY) for vm in VMS}
        for vm in VMS:
            assert other.try_begin(vm, Job.MODIFY) is None
        for number, server in enumerate(shards.servers):
            assert {vm for vm, _ in server.scan()} == {
                vm for vm in VMS if shard_of(vm, 3) == number
            }
        assert [status.vm for status in jobs.list()] == sorted(VMS)
        for lease in leases.values():
            lease.end()
        assert other.list() == []


def test_a_shard_is_opened_when_it_is_first_used(shards: Shards) -> None:
    with ShardedClient(shards.opens, ttl=TTL) as jobs:
        assert shards.opened == [0]
        for _ in range(3):
            jobs.begin(shards.vm(2), Job.MODIFY).end()
        assert shards.opened == [0, 2]
        assert "2 of 3 shards" in repr(jobs)
        threads = [threading.Thread(target=jobs.status, args=(shards.vm(1),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shards.opened == [0, 2, 1]


def test_the_loss_of_a_shard_loses_what_was_on_it_and_nothing_else(shards: Shards) -> None:
    jobs = ShardedClient(shards.opens, ttl=TTL)
    leases = [jobs.begin(shards.vm(number), Job.MODIFY) for number in range(3)]
    told = threading.Event()
    leases[1].on_lost(told.set)
    shards.dead.add(1)
    assert told.wait(20)
    assert [lease.lost for lease in leases] == [False, True, False]
    with pytest.raises(LeaseLost):
        leases[1].check()
    with pytest.raises(BackendUnavailable):
        jobs.begin(shards.vm(1), Job.MODIFY, wait=0.1)
    with pytest.raises(BackendUnavailable):
        jobs.list()
    leases[0].end()
    jobs.begin(shards.vm(0), Job.MODIFY).end()
    leases[2].check()
    shards.dead.clear()
    until(lambda: jobs.begin(shards.vm(1), Job.MODIFY, wait=5.0).end() is None)
    leases[2].end()
    jobs.close()


def test_what_is_away_at_first_costs_its_own_vms_only(shards: Shards) -> None:
    shards.dead.add(0)
    with ShardedClient(shards.opens, ttl=TTL) as jobs:
        with pytest.raises(BackendUnavailable, match="shard 0"):
            jobs.begin(shards.vm(0), Job.MODIFY)
        jobs.begin(shards.vm(1), Job.MODIFY).end()
        shards.dead.clear()
        jobs.begin(shards.vm(0), Job.MODIFY).end()
    shards.dead.update(range(3))
    with pytest.raises(BackendUnavailable, match="shard 2"):
        ShardedClient(shards.opens, ttl=TTL)


def test_close_ends_all_sessions_and_is_for_ever(shards: Shards) -> None:
    jobs = ShardedClient(shards.opens, ttl=60.0)
    for vm in VMS:
        jobs.begin(vm, Job.MODIFY)
    lost = jobs.begin("callback", Job.MODIFY)
    refused: list[BaseException] = []

    def closes() -> None:
        try:
            jobs.close()
        except BadRequest as error:
            refused.append(error)

    lost.on_lost(closes)
    where = shards.servers[shard_of("callback", 3)]
    ticket = jobs.status("callback").holders[0].ticket
    jobs.evict("callback", [ticket])
    until(lambda: bool(refused))
    assert where.scan()
    jobs.close()
    jobs.close()
    assert [server.scan() for server in shards.servers] == [[], [], []]
    for call in (lambda: jobs.begin("vm", Job.MODIFY), jobs.list, jobs.__enter__):
        with pytest.raises(ClientClosed):
            call()


def test_a_shard_that_is_dead_at_close_does_not_keep_the_others_open(shards: Shards) -> None:
    jobs = ShardedClient(shards.opens, ttl=TTL)
    for number in range(3):
        jobs.begin(shards.vm(number), Job.MODIFY)
    shards.dead.add(0)
    with pytest.raises(distjob.DistjobError):
        jobs.close()
    assert [len(server.scan()) for server in shards.servers] == [1, 0, 0]


@pytest.mark.parametrize(
    ("sharded", "plain"), [(ShardedClient, Client), (AsyncShardedClient, AsyncClient)]
)
def test_every_method_is_routed(sharded: type, plain: type) -> None:
    """None of the plain client's, which knows one store, is left; the arguments are the same."""
    public = {name for name in vars(plain) if not name.startswith("_")}
    assert public <= set(vars(sharded))
    for name in public - {"guarantees"}:
        mine, its = (inspect.signature(getattr(kind, name)) for kind in (sharded, plain))
        assert mine == its, name


def test_a_forked_child_is_refused(shards: Shards) -> None:
    jobs = ShardedClient(shards.opens, ttl=TTL)
    jobs._pid = os.getpid() + 1  # as a child sees it
    for call in (lambda: jobs.begin(shards.vm(1), Job.MODIFY), jobs.__enter__):
        with pytest.raises(ClientClosed, match="fork"):
            call()
    jobs.close()  # which changes nothing
    jobs._pid = os.getpid()
    jobs.begin(shards.vm(1), Job.MODIFY).end()
    jobs.close()


# -- asyncio --------------------------------------------------------------------------------------


def run(steps: Callable[[], Any]) -> None:
    asyncio.run(steps())


def test_on_asyncio_too(shards: Shards) -> None:
    async def steps() -> None:
        jobs = AsyncShardedClient(shards.opens_async, ttl=TTL)
        with pytest.raises(ClientClosed, match="not open"):
            await jobs.begin("vm", Job.MODIFY)
        async with jobs, jobs.begin(shards.vm(2), Job.MODIFY) as lease:
            assert shards.opened == [0, 2]
            await asyncio.gather(*[jobs.status(shards.vm(1)) for _ in range(8)])
            assert shards.opened == [0, 2, 1]
            kept = await jobs.begin_async(shards.vm(0), "backup")
            gone, told = await jobs.begin(shards.vm(1), Job.MODIFY), asyncio.Event()
            gone.on_lost(told.set)
            assert [one.vm for one in await jobs.list()] == sorted(shards.vm(n) for n in range(3))
            shards.dead.add(1)
            await asyncio.wait_for(told.wait(), 20)
            assert [lease.lost, gone.lost, kept.lost] == [False, True, False]
            with pytest.raises(BackendUnavailable):
                await jobs.begin(shards.vm(1), Job.MODIFY, wait=0.1)
            await kept.end()
            shards.dead.clear()
        with pytest.raises(ClientClosed):
            await jobs.begin(shards.vm(0), Job.MODIFY)
        assert "closed" in repr(jobs)

    run(steps)


# -- several VMs ----------------------------------------------------------------------------------


def test_jobs_of_several_shards_are_begun_together(shards: Shards) -> None:
    """In one order whatever the store; one that does not answer costs that call alone."""
    vms = {shards.vm(number): Job.MODIFY for number in (2, 0, 1)}
    with ShardedClient(shards.opens, ttl=0.5) as jobs:
        with jobs.begin_many(vms) as leases:
            assert [len(server.scan()) for server in shards.servers] == [1, 1, 1]
            assert list(leases) == list(vms)
        assert jobs.list() == []
        last = max(vms)
        shards.dead.add([shards.vm(number) for number in range(3)].index(last))
        with pytest.raises((BackendUnavailable, OutcomeUnknown)) as caught:
            jobs.begin_many(vms, wait=0.1)
        assert "was one of 3" in caught.value.__notes__[0]
        left = [len(server.scan()) for server in shards.servers]
        assert sum(left) == 0
        shards.dead.clear()


def test_nothing_is_begun_of_several_if_a_shard_can_not_be_reached(shards: Shards) -> None:
    vms = {shards.vm(number): Job.MODIFY for number in range(3)}
    with ShardedClient(shards.opens) as jobs:
        shards.dead.add(2)
        with pytest.raises(BackendUnavailable, match="shard 2"):
            jobs.begin_many(vms)
        assert [len(server.scan()) for server in shards.servers] == [0, 0, 0]


def test_jobs_of_several_shards_are_begun_together_on_asyncio(shards: Shards) -> None:
    vms = {shards.vm(number): Job.MODIFY for number in range(3)}

    async def steps() -> None:
        async with AsyncShardedClient(shards.opens_async) as jobs:
            async with jobs.begin_many(vms):
                assert [len(server.scan()) for server in shards.servers] == [1, 1, 1]
            assert await jobs.list() == []

    asyncio.run(steps())


# -- by settings ----------------------------------------------------------------------------------


class Section(msgspec.Struct):
    shards: int = 3


async def _nothing(*_: object) -> Any:
    raise AssertionError("this test's own stores are opened")


def test_the_settings_say_how_many(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend's, by `Backend.shards`; each is opened by its number."""
    asked: list[int] = []

    def connects(_: str, __: Section, ___: str, ____: float, shard: int = 0) -> Store:
        asked.append(shard)
        return shards.opens[shard]()

    async def connects_async(_: str, __: Section, ___: str, ____: float, shard: int) -> AsyncStore:
        asked.append(shard)
        return await shards.opens_async[shard]()

    plain = load({"backend": "sqlite"})
    assert shards_of(plain) == 1
    settings = msgspec.structs.replace(plain, section=Section())
    backend = Backend(settings=Section, source=_nothing, shards=lambda section: section.shards)
    monkeypatch.setattr(backends, "find", lambda _: backend)
    monkeypatch.setattr(backends, "connect", connects)
    monkeypatch.setattr(backends, "connect_async", connects_async)
    assert shards_of(settings) == 3
    open_backend(settings, shard=2).close()
    assert asked == [2]
    with connect_blocking(settings) as jobs:
        assert isinstance(jobs, ShardedClient)
        jobs.begin(shards.vm(1), Job.MODIFY).end()
    assert asked == [2, 0, 1]

    async def steps() -> None:
        async with connect_async(settings) as jobs:
            assert isinstance(jobs, AsyncShardedClient)
            await (await jobs.begin(shards.vm(2), Job.MODIFY)).end()

    run(steps)
    assert asked == [2, 0, 1, 0, 2]
