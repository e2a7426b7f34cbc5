"""Jobs of several VMs, begun together: all or none, in both worlds."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from distjob import (
    AgentJob,
    AsyncJob,
    BadRequest,
    Client,
    ClientClosed,
    Job,
    JobTimeout,
    LeaseLost,
    NotOwner,
    QueueFull,
    Slot,
)
from distjob.aio import AsyncClient
from distjob.hooks import Begun, Ended, Event, Lost
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from until import until

BOTH = pytest.mark.parametrize("open_store", ["memory", "memory+asyncio"], indirect=True)
LONG = 60.0
THREE = {"c": Job.MODIFY, "a": Job.MODIFY, "b": Job.MODIFY}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def waiters(client: Any, vm: str) -> list[str]:
    return [waiter.controller for waiter in client.status(vm).waiters]


def of(vm: str, client: Any) -> Any:
    """The one who holds the sync slot of ``vm``."""
    [holder] = client.status(vm).holders
    return holder


def begin_in(pool: ThreadPoolExecutor, client: Any, other: Any, vm: str, **how: Any) -> Future[Any]:
    """Begin all three, which waits for ``vm`` then."""
    future = pool.submit(client.begin_many, THREE, **how)
    until(lambda: waiters(other, vm) or future.done())
    return future


# -- all ------------------------------------------------------------------------------------------


@BOTH
def test_all_are_held_and_ended_together(clients: Any) -> None:
    me, other = clients("me"), clients("other")
    kinds = {
        "sync": Job.SUSPEND,
        "text": "modify",
        "agent": AgentJob.MODIFY,
        "both": (Job.QUERY, AgentJob.QUERY),
        "long": AsyncJob.BACKUP,
        "long text": "migration out",
    }
    with me.begin_many(kinds, api="all at once") as leases:
        leases.check()
        assert leases.remaining > 0
        assert not leases.lost
        assert [(vm, leases[vm].job) for vm in kinds] == [
            ("sync", "suspend"),
            ("text", "modify"),
            ("agent", "agent modify"),
            ("both", "query + agent query"),
            ("long", "async backup"),
            ("long text", "async migration out"),
        ]
        assert leases["agent"].slot is Slot.AGENT
        leases["long"].nested().end()  # it is an async job's lease
        assert {status.vm for status in other.list()} == set(kinds)
        assert of("sync", other).api == "all at once"
        assert of("sync", other).token == leases["sync"].token
        leases["text"].end()
        leases.check()
        assert leases.remaining > 0
    assert leases.ended
    assert leases.remaining == 0
    assert other.list() == []
    for late in (leases.end, leases.check, leases.__enter__, lambda: leases.on_lost(print)):
        with pytest.raises(NotOwner):
            late()


@BOTH
def test_they_are_begun_by_name_and_ended_the_other_way_round(open_store: Any) -> None:
    events: list[Event] = []
    with open_store.client(hooks=[events.append]) as jobs:
        jobs.begin_many(THREE).end()
    told = [(type(event), event.vm) for event in events if isinstance(event, Begun | Ended)]
    assert told == [*((Begun, vm) for vm in "abc"), *((Ended, vm) for vm in "cba")]


def test_a_collection_of_leases() -> None:
    with Client(MemoryStore(MemoryServer())) as jobs, jobs.begin_many(THREE) as leases:
        assert list(leases) == list(THREE)
        assert len(leases) == 3
        assert "a" in leases
        assert {vm: lease.vm for vm, lease in leases.items()} == {vm: vm for vm in THREE}
        assert "token" in repr(leases)
        with pytest.raises(TypeError, match="belong to their client"):
            copy.copy(leases)


@BOTH
@pytest.mark.parametrize(
    ("jobs", "told"),
    [
        ({}, "no VM"),
        (["a"], "takes {vm: job, ...}, not list"),
        ({"a": "modify", "": "modify"}, "is empty"),
        ({"a": "modify", b"b": "modify"}, "decode bytes"),
        ({"a": "modfy"}, "did you mean 'modify'"),
        ({"a": Job.ASYNC}, "made by begin_async"),
        ({"a": (Job.MODIFY, Job.QUERY)}, "Job.QUERY is a sync job"),
        ({"a": (AsyncJob.SAVE, AgentJob.QUERY)}, "for begin_async"),
        ({"a": None}, "None is not a sync job"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_sent(
    clients: Any, jobs: Any, told: str
) -> None:
    me = clients("me")
    with pytest.raises(BadRequest, match=told):
        me.begin_many(jobs)
    with pytest.raises(BadRequest, match="a wait is a number"):
        me.begin_many(THREE, wait=-1)
    assert me.list() == []


# -- none -----------------------------------------------------------------------------------------


@BOTH
def test_the_error_names_who_is_in_the_way_and_the_others_are_given_back(clients: Any) -> None:
    me, other = clients("me"), clients("other")
    with other.begin("b", Job.MODIFY, api="attach"):
        with pytest.raises(JobTimeout) as caught:
            me.begin_many(THREE, wait=0.01)
        error = caught.value
        assert (error.vm, error.job) == ("b", "modify")
        assert [holder.ticket.owner.controller for holder in error.blockers] == ["other"]
        assert str(error).startswith(
            "cannot acquire state change lock (held by monitor=attach): VM 'b'"
        )
        [note] = error.__notes__
        assert "VM 'b' was one of 3" in note
        assert note.endswith("of the others was given back: 'a'")
        assert [status.vm for status in other.list()] == ["b"]
        assert waiters(other, "b") == []
        with pytest.raises(JobTimeout) as caught:
            me.begin_many({"b": Job.MODIFY, "c": Job.MODIFY}, wait=0)
        assert caught.value.__notes__[0].endswith("none of the others was held")
        with pytest.raises(JobTimeout) as caught:
            me.begin_many({"b": Job.MODIFY}, wait=0)
        assert not hasattr(caught.value, "__notes__")


@BOTH
def test_a_full_line_gives_back_what_was_held(clients: Any) -> None:
    me, other = clients("me", max_queued=1), clients("other")
    with other.begin("c", Job.MODIFY):
        with pytest.raises(QueueFull) as caught:
            me.begin_many(THREE)
        assert caught.value.vm == "c"
        assert [status.vm for status in other.list()] == ["c"]


@BOTH
def test_they_wait_in_line_and_the_client_may_be_closed(
    clients: Any, pool: ThreadPoolExecutor
) -> None:
    me, other = clients("me"), clients("other")
    blocker = other.begin("c", Job.MODIFY)
    future = begin_in(pool, me, other, "c", wait=LONG)
    blocker.end()
    leases = future.result(LONG)
    leases.end()
    blocker = other.begin("c", Job.MODIFY)
    future = begin_in(pool, me, other, "c", wait=LONG)
    me.close()
    with pytest.raises(ClientClosed):
        future.result(LONG)
    blocker.end()
    assert other.list() == []


# -- lost meanwhile -------------------------------------------------------------------------------


@BOTH
def test_what_is_taken_meanwhile_is_asked_for_again(clients: Any, pool: ThreadPoolExecutor) -> None:
    events: list[Event] = []
    me, other = clients("me", hooks=[events.append]), clients("other")
    blocker = other.begin("c", Job.MODIFY)
    future = begin_in(pool, me, other, "c", wait=LONG)
    first = {vm: of(vm, other) for vm in "ab"}
    other.evict("a", [first["a"].ticket])
    until(lambda: any(isinstance(event, Lost) and event.vm == "a" for event in events))
    blocker.end()
    with future.result(LONG) as leases:
        leases.check()
        assert {vm: of(vm, other).token for vm in "abc"} == {vm: leases[vm].token for vm in "abc"}
        assert leases["a"].token > first["a"].token
        assert leases["b"].token > first["b"].token  # what comes later in the order was given back
    assert other.list() == []


class _Losing:
    """A hook that ends the session when the last of the jobs is begun."""

    def __init__(self, times: int) -> None:
        self.client: Any = None
        self.times = times

    def __call__(self, event: Event) -> None:
        if isinstance(event, Begun) and event.vm == "c" and self.times:
            self.times -= 1
            me = self.client._me
            me.lose(me.session, "by the test")


def test_all_are_asked_for_again_if_there_is_time() -> None:
    with Client(MemoryStore(MemoryServer()), ttl=0.2, hooks=[losing := _Losing(2)]) as jobs:
        losing.client = jobs
        with jobs.begin_many(THREE, wait=LONG) as leases:
            leases.check()
    assert losing.times == 0


def test_else_they_are_lost() -> None:
    server = MemoryServer()
    with Client(MemoryStore(server), hooks=[losing := _Losing(1)]) as jobs:
        losing.client = jobs
        with pytest.raises(LeaseLost, match=r"VM 'a'.*by the test") as caught:
            jobs.begin_many(THREE, wait=0)
        assert (caught.value.vm, caught.value.job) == ("a", "modify")


# -- interrupted ----------------------------------------------------------------------------------


class _Pressing(MemoryStore):
    """Ctrl-C is pressed at the k-th commit of those counted, before it is made or after."""

    def __init__(self, server: MemoryServer, *, after: bool) -> None:
        super().__init__(server)
        self.after = after
        self.k = 0

    def commit(self, *given: Any) -> Any:
        mine = threading.current_thread() is threading.main_thread()
        self.k -= mine
        pressed = mine and self.k == 0
        if pressed and not self.after:
            raise KeyboardInterrupt
        reply = super().commit(*given)
        if pressed:
            raise KeyboardInterrupt
        return reply


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_ctrl_c_leaves_nothing(after: bool) -> None:
    server, k, pressed = MemoryServer(), 0, 0
    with Client(MemoryStore(server)) as other:
        while k == pressed:
            k += 1
            store = _Pressing(server, after=after)
            with Client(store) as jobs:
                store.k = k
                try:
                    jobs.begin_many(THREE).end()
                except KeyboardInterrupt:
                    pressed += 1
                until(lambda: other.list() == [])
    assert pressed == 6


def test_coroutines_that_nobody_awaits_to_their_end_leave_nothing() -> None:
    """Nothing can be awaited any more then: the hands take out what was held."""

    async def steps() -> None:
        server = MemoryServer()
        async with (
            AsyncClient(await AsyncMemoryStore.connect(server)) as other,
            AsyncClient(await AsyncMemoryStore.connect(server)) as jobs,
        ):
            blocker = await other.begin("c", Job.MODIFY)
            given_up = jobs.begin_many(THREE)
            task = asyncio.create_task(_partly(given_up))
            while not (await other.status("c")).waiters:
                await asyncio.sleep(0)
            given_up.close()
            while [status.vm for status in await other.list()] != ["c"]:
                await asyncio.sleep(0)
            await blocker.end()
            task.cancel()
            await asyncio.wait([task])
            leases = await jobs.begin_many(THREE)
            await leases.end()
            assert await other.list() == []

    async def _partly(steps: Any) -> None:
        await steps

    asyncio.run(steps())


# -- held -----------------------------------------------------------------------------------------


@BOTH
def test_the_loss_of_one_is_told_once_and_the_others_are_ended(clients: Any) -> None:
    me, other, told = clients("me"), clients("other"), []
    with pytest.raises(LeaseLost, match="VM 'b'"), me.begin_many(THREE) as leases:  # noqa: PT012
        leases.on_lost(lambda: told.append("lost"))
        other.evict("b", [of("b", other).ticket])
        other.evict("c", [of("c", other).ticket])
        until(lambda: leases["b"].lost and leases["c"].lost)
        assert leases.lost
        assert leases.remaining == 0
        with pytest.raises(LeaseLost):
            leases.check()
        until(lambda: told)
    assert other.list() == []
    assert told == ["lost"]


@BOTH
def test_what_the_body_raised_is_never_replaced(clients: Any) -> None:
    me, other = clients("me"), clients("other")
    with pytest.raises(KeyError) as caught, me.begin_many(THREE) as leases:  # noqa: PT012
        other.evict("b", [of("b", other).ticket])
        until(lambda: leases["b"].lost)
        raise KeyError("mine")
    assert "ending the jobs failed" in caught.value.__notes__[0]
    assert other.list() == []


def test_a_loss_cancels_the_body_on_asyncio() -> None:
    async def steps() -> None:
        server = MemoryServer()
        async with (
            AsyncClient(await AsyncMemoryStore.connect(server)) as other,
            AsyncClient(await AsyncMemoryStore.connect(server)) as jobs,
        ):

            async def body() -> None:
                async with jobs.begin_many(THREE) as leases, leases.cancel_if_lost():
                    [holder] = (await other.status("b")).holders
                    await other.evict("b", [holder.ticket])
                    await asyncio.sleep(LONG)

            with pytest.raises(LeaseLost, match="VM 'b'"):
                await body()
            assert await other.list() == []

    asyncio.run(steps())
