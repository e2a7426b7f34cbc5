"""What asyncio adds: cancellation at any await, structured concurrency, loops."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cancelling import Cancelling, cancel_at_each_step
from distjob import AsyncJob, BadRequest, ClientClosed, Job, JobTimeout, LeaseLost, NotOwner
from distjob.aio import AsyncClient, AsyncJobLease, Lease, Opening
from distjob.errors import BackendUnavailable
from distjob.hooks import Event
from distjob.rules.codec import decode
from distjob.store import Versioned
from distjob.testing.memory import AsyncMemoryStore, MemoryServer

PATIENCE = 20.0


def run(steps: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own, and nothing may be left in it."""

    async def watched() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async with asyncio.timeout(PATIENCE):
            await steps
        await settle()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        assert not complaints, complaints

    asyncio.run(watched())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def client_of(server: MemoryServer, **settings: Any) -> AsyncIterator[AsyncClient]:
    store = await AsyncMemoryStore.connect(server)
    async with AsyncClient(store, **settings) as client:
        yield client


async def in_line(client: AsyncClient, vm: str, count: int = 1) -> None:
    while len((await client.status(vm)).waiters) < count:
        await asyncio.sleep(0.001)


def test_begin_is_awaited_or_entered_or_made_a_task() -> None:
    async def steps() -> None:
        async with client_of(MemoryServer()) as jobs:
            async with jobs.begin("vm", Job.MODIFY) as lease:
                assert isinstance(lease, Lease)
                assert await jobs.try_begin("vm", Job.QUERY) is None
            lease = await jobs.begin("vm", Job.MODIFY)
            await lease.end()
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(jobs.begin("vm", Job.MODIFY))
            await (await task).end()
            async with jobs.begin_async("vm", AsyncJob.SAVE) as job:
                assert isinstance(job, AsyncJobLease)
                async with job.nested() as step:
                    assert step.token > job.token
            assert await jobs.list() == []

    run(steps())


def test_what_was_ended_or_lost_on_the_way_is_not_entered() -> None:
    """Between begin's return and the body; by its coroutine, as by the lease itself."""
    server = MemoryServer()

    async def steps() -> None:
        async with client_of(server, ttl=0.5) as jobs:

            async def ended() -> Lease:
                lease = await jobs.begin("vm", Job.MODIFY)
                await lease.end()
                return lease

            async def lost() -> Lease:
                lease, told = await jobs.begin("vm", Job.MODIFY), asyncio.Event()
                lease.on_lost(told.set)
                _end_sessions(server)
                await told.wait()
                return lease

            for opened, error in ((ended, NotOwner), (lost, LeaseLost)):
                entered = []
                with pytest.raises(error):
                    async with Opening(opened()):
                        entered.append("a body without a job")
                lease = await opened()
                with pytest.raises(error):
                    async with lease:
                        entered.append("a body without a job")
                assert not entered

    run(steps())


def test_a_task_group_that_fails_withdraws_what_waits() -> None:
    async def steps() -> None:
        async with client_of(MemoryServer()) as jobs:
            held = await jobs.begin("vm", Job.MODIFY)

            async def fail() -> None:
                await in_line(jobs, "vm", 3)
                raise ValueError

            with pytest.raises(ExceptionGroup):
                await together(*(jobs.begin("vm", Job.QUERY) for _ in range(3)), fail())
            assert (await jobs.status("vm")).waiters == ()
            await held.end()
            assert await jobs.list() == []

    run(steps())


async def together(*calls: Coroutine[Any, Any, Any]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for call in calls:
            tasks.create_task(call)


def test_a_timeout_around_begin_and_around_the_body() -> None:
    async def steps() -> None:
        async with client_of(MemoryServer()) as jobs:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), jobs.begin("vm", Job.MODIFY):
                    await asyncio.sleep(PATIENCE)
            assert await jobs.list() == []
            async with jobs.begin("vm", Job.MODIFY):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await jobs.begin("vm", Job.MODIFY)
                with pytest.raises(JobTimeout):
                    await jobs.begin("vm", Job.MODIFY, wait=0.02)
                assert len((await jobs.status("vm")).holders) == 1
            assert await jobs.list() == []

    run(steps())


def test_a_lost_lease_cancels_its_body() -> None:
    async def steps() -> None:
        server = MemoryServer()
        async with client_of(server, ttl=0.3) as jobs:
            began = asyncio.Event()

            async def body() -> None:
                async with jobs.begin("vm", Job.MODIFY) as lease, lease.cancel_if_lost():
                    began.set()
                    await asyncio.sleep(PATIENCE)

            task = asyncio.create_task(body())
            await began.wait()
            await asyncio.to_thread(_end_sessions, server)
            with pytest.raises(LeaseLost, match="modify"):
                await task
            assert not task.cancelled()
            async with jobs.begin("vm", Job.MODIFY) as lease, lease.cancel_if_lost():
                await asyncio.sleep(0)  # not lost, not cancelled
            other = await jobs.begin("vm", Job.MODIFY)
            task = asyncio.create_task(_sleep_in(other.cancel_if_lost()))
            await settle()
            task.cancel()  # by somebody else: it stays a cancellation
            with pytest.raises(asyncio.CancelledError):
                await task
            await other.end()
            with pytest.raises(NotOwner):
                async with other.cancel_if_lost():
                    pass

    run(steps())


async def _sleep_in(block: Any) -> None:
    async with block:
        await asyncio.sleep(PATIENCE)


def test_a_loss_that_the_body_never_sees_is_told_at_its_end() -> None:
    async def steps() -> None:
        server = MemoryServer()
        async with client_of(server, ttl=0.3) as jobs:
            lease = await jobs.begin("vm", Job.MODIFY)
            with pytest.raises(LeaseLost):
                await _swallow(lease, server)
            await asyncio.sleep(0)  # no cancellation is pending
            assert asyncio.current_task().cancelling() == 0

    run(steps())


async def _swallow(lease: Lease, server: MemoryServer) -> None:
    async with lease.cancel_if_lost():
        await asyncio.to_thread(_end_sessions, server)
        while not lease.lost:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("failing", [False, True])
def test_another_cancellation_that_comes_with_the_loss_stays_one(failing: bool) -> None:
    async def steps() -> None:
        server = MemoryServer()
        async with client_of(server, ttl=0.3) as jobs:
            lease = await jobs.begin("vm", Job.MODIFY)
            task = asyncio.create_task(_cancelled_late(lease, failing=failing))
            await asyncio.to_thread(_end_sessions, server)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()

    run(steps())


async def _cancelled_late(lease: Lease, *, failing: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    async with lease.cancel_if_lost():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(PATIENCE)
        asyncio.get_running_loop().call_soon(task.cancel)  # a shutdown's, while the block ends
        if failing:
            raise KeyError
    await asyncio.sleep(PATIENCE)


def test_a_callback_that_was_cancelled_ends_nothing_but_itself() -> None:
    async def steps() -> None:
        server = MemoryServer()
        worker = asyncio.create_task(asyncio.sleep(PATIENCE))
        worker.cancel()
        async with client_of(server) as jobs, client_of(server) as other:
            told = asyncio.Event()
            job = await jobs.begin_async("vm", AsyncJob.BACKUP)
            job.on_abort(lambda _: worker.result())
            job.on_abort(lambda _: told.set())
            await other.abort("vm")
            await told.wait()
            job.check()
            await (await jobs.begin("other", Job.QUERY)).end()
            await job.end()

    run(steps())


def test_a_loss_is_told_in_time_though_there_is_much_to_tidy() -> None:
    async def steps() -> None:
        server = MemoryServer()
        store = await _Silent.connect(server)
        async with client_of(server) as other:
            jobs = await AsyncClient(store, ttl=2.0)
            lease, lost = await jobs.begin("vm", Job.MODIFY), asyncio.Event()
            lease.on_lost(lost.set)
            await other.begin("line", Job.MODIFY)
            waiting = asyncio.create_task(jobs.begin("line", Job.MODIFY))
            await in_line(other, "line")
            store.silent = True
            begins = [asyncio.create_task(jobs.begin(f"vm-{i}", Job.MODIFY)) for i in range(8)]
            await asyncio.sleep(0)
            for begin in begins:
                begin.cancel()
            before = asyncio.get_running_loop().time()
            await lost.wait()
            assert asyncio.get_running_loop().time() - before < 2.0 + _Silent.TIMEOUT
            store.silent = False
            waiting.cancel()
            await asyncio.wait([waiting, *begins])
            await jobs.close()

    run(steps())


class _Silent(AsyncMemoryStore):
    """A store that may fall silent: then each request fails when its time is up."""

    TIMEOUT = 0.4
    silent = False

    async def read(self, vm: str) -> Versioned:
        await self._answer()
        return await super().read(vm)

    async def commit(self, *given: Any) -> Any:
        await self._answer()
        return await super().commit(*given)

    async def keep_alive(self, session: str) -> bool:
        await self._answer()
        return await super().keep_alive(session)

    async def _answer(self) -> None:
        if self.silent:
            await asyncio.sleep(self.TIMEOUT)
            raise BackendUnavailable("it is silent", unanswered=True)


def _end_sessions(server: MemoryServer) -> None:
    with server.changed:
        for session in list(server._sessions):
            server.close_session(session)
        server.changed.notify_all()


def test_elsewhere_the_client_refuses() -> None:
    server = MemoryServer()
    kept: list[AsyncClient] = []

    async def steps() -> None:
        async with client_of(server) as jobs:
            kept.append(jobs)
            lease = await jobs.begin("vm", Job.MODIFY)
            other = asyncio.to_thread(asyncio.run, _refused(jobs))
            assert "another event loop" in await other
            with pytest.raises(ClientClosed, match="another event loop"):
                await asyncio.to_thread(lease.check)
            await lease.end()

    run(steps())

    async def afterwards() -> None:
        with pytest.raises(ClientClosed):
            await kept[0].begin("vm", Job.MODIFY)

    run(afterwards())

    async def never_opened() -> None:
        client = AsyncClient(await AsyncMemoryStore.connect(server))
        with pytest.raises(ClientClosed, match="not open"):
            await client.list()
        await client
        await client.close()
        await client.close()
        with pytest.raises(ClientClosed):
            await client.begin("vm", Job.MODIFY)

    run(never_opened())


async def _refused(jobs: AsyncClient) -> str:
    with pytest.raises(ClientClosed) as refused:
        await jobs.list()
    return str(refused.value)


def test_bad_arguments_are_told_by_the_await() -> None:
    async def steps() -> None:
        async with client_of(MemoryServer()) as jobs:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: jobs.begin("", Job.MODIFY),
                lambda: jobs.begin("vm", "nonsense"),
                lambda: jobs.begin("vm", Job.MODIFY, wait=-1),
                lambda: jobs.begin_async("vm", "query"),
            ]
            for call in calls:
                with pytest.raises(BadRequest):
                    await call()

    run(steps())


async def begin_and_end(jobs: AsyncClient) -> None:
    lease = await jobs.begin("vm", Job.MODIFY)
    await lease.end()


async def enter(jobs: AsyncClient) -> None:
    async with jobs.begin("vm", Job.MODIFY, agent="query"):
        await asyncio.sleep(0)


async def long_job(jobs: AsyncClient) -> None:
    async with jobs.begin_async("vm", AsyncJob.SAVE) as job:
        await job.set_phase("one")
        async with job.nested():
            pass
        await job.allow(Job.MODIFY)


async def aborting(jobs: AsyncClient) -> None:
    async with jobs.begin_async("vm", AsyncJob.SAVE):
        await jobs.abort("vm")


async def several(jobs: AsyncClient) -> None:
    async with jobs.begin_many({"z": Job.MODIFY, "vm": Job.MODIFY, "a": AsyncJob.SAVE}):
        pass


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("blocked", [False, True], ids=["free", "waiting"])
@pytest.mark.parametrize("work", [begin_and_end, enter, long_job, aborting, several])
def test_cancelled_at_the_kth_step(
    work: Callable[[AsyncClient], Coroutine[Any, Any, None]], blocked: bool, after: bool
) -> None:
    """For all k: no ticket, job, session or task is left, and the client goes on working."""

    async def steps() -> None:
        server = MemoryServer()
        async with client_of(server, ttl=1.0) as other:

            async def in_the_way() -> Callable[[], Awaitable[None]]:
                return (await other.begin("vm", Job.MODIFY)).end

            count = await cancel_at_each_step(
                work,
                other,
                lambda: AsyncMemoryStore.connect(server),
                after=after,
                in_the_way=in_the_way if blocked else None,
            )
            assert count >= 2, "hardly a step was cancelled"
            with server.changed:
                assert len(server._sessions) == 1, "a session was left"
        with server.changed:
            assert list(server.scan()) == []

    run(steps())


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_cancelled_adoption_leaves_the_job_as_it_was(after: bool) -> None:
    async def steps() -> None:
        server, k, cancelled = MemoryServer(), 0, 0
        async with client_of(server, ttl=1.0) as other:
            job = await other.begin_async("vm", AsyncJob.MIGRATION_OUT)
            await job.set_phase("perform")
            await job.detach()
            while k == 0 or cancelled == k:
                k += 1
                store = Cancelling(await AsyncMemoryStore.connect(server))
                async with AsyncClient(store, ttl=1.0) as jobs:
                    store.victim = asyncio.create_task(_adopt_and_detach(jobs))
                    store.k, store.after = k, after
                    try:
                        await store.victim
                    except asyncio.CancelledError:
                        cancelled += 1
                    while not (long := (await other.status("vm")).long).left:
                        await asyncio.sleep(0.001)
                    assert long.phase == "perform"
            assert cancelled >= 2
            await other.discard("vm")
            assert await other.list() == []

    run(steps())


async def _adopt_and_detach(jobs: AsyncClient) -> None:
    job = await jobs.adopt("vm", AsyncJob.MIGRATION_OUT)
    await job.detach()


def test_a_client_that_is_given_up_with_its_loop() -> None:
    """asyncio.run cancels all tasks at its end: leases are lost then, not silently held."""
    server = MemoryServer()
    leases: list[Lease] = []

    async def careless() -> None:
        jobs = await AsyncClient(await AsyncMemoryStore.connect(server))
        leases.append(await jobs.begin("vm", Job.MODIFY))

    asyncio.run(careless())
    assert leases[0].lost
    with server.changed:
        [(_, value)] = server.scan()
        assert decode("vm", value.version, value.value).sync is not None


def test_a_close_that_is_cancelled_goes_on() -> None:
    async def steps() -> None:
        server = MemoryServer()
        jobs = await AsyncClient(await AsyncMemoryStore.connect(server))
        await jobs.begin("vm", Job.MODIFY)
        closing = asyncio.create_task(jobs.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await jobs.close()
        with server.changed:
            assert list(server.scan()) == []
            assert not server._sessions

    run(steps())


def test_a_store_that_can_not_be_opened_is_closed() -> None:
    class Closed(AsyncMemoryStore):
        closed = False

        async def open_session(self, ttl: float, owner: str) -> str:
            raise BackendUnavailable("not now")

        async def close(self) -> None:
            Closed.closed = True
            await super().close()

    async def steps() -> None:
        store = Closed(MemoryServer())
        with pytest.raises(BackendUnavailable, match="not now"):
            async with AsyncClient(store):
                pass
        assert Closed.closed

    run(steps())


def test_hooks_are_told_in_the_loop() -> None:
    async def steps() -> None:
        told: list[str] = []
        loop = asyncio.get_running_loop()

        def hook(event: Event) -> None:
            assert asyncio.get_running_loop() is loop
            told.append(type(event).__name__)

        server = MemoryServer()
        async with client_of(server, hooks=[hook]) as jobs:
            held = await jobs.begin("vm", Job.MODIFY)
            waiting = asyncio.create_task(jobs.begin("vm", Job.QUERY))
            await in_line(jobs, "vm")
            await held.end()
            await (await waiting).end()
            held = await jobs.begin("vm", Job.MODIFY)
            waiting = asyncio.create_task(jobs.begin("vm", Job.QUERY))
            await in_line(jobs, "vm")
            waiting.cancel()
            await asyncio.wait([waiting])
            await asyncio.to_thread(_end_sessions, server)
            while not held.lost:
                await asyncio.sleep(0.005)
            await settle()
        told = [name for name in told if name not in ("Renewed", "SessionOpened", "SessionLost")]
        ended = sorted(told[2:4])  # one's end is the other's begin, and either may be told first
        assert [*told[:2], *ended] == ["Begun", "Waiting", "Begun", "Ended"]
        assert told[4:] == ["Ended", "Begun", "Waiting", "GaveUp", "Lost"]

    run(steps())


def test_a_wait_for_an_abort_that_is_cancelled_leaves_nothing() -> None:
    async def steps() -> None:
        server = MemoryServer()
        async with client_of(server) as jobs, client_of(server) as other:
            job = await jobs.begin_async("vm", AsyncJob.SAVE)
            waiting = asyncio.create_task(job.wait_abort())
            await settle()
            assert len(job._held.watchers) == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert job._held.watchers == ()
            heard: list[str] = []
            job.on_abort(lambda request: heard.append(request.reason))
            waiting = asyncio.create_task(job.wait_abort(PATIENCE))
            await other.abort("vm", reason="now")
            assert (await waiting).reason == "now"
            await settle()
            assert heard == ["now"]
            await job.end()

    run(steps())


def test_a_client_is_opened_once() -> None:
    async def steps() -> None:
        server = MemoryServer()
        client = AsyncClient(await AsyncMemoryStore.connect(server))
        first = asyncio.create_task(client._open())
        await asyncio.sleep(0)
        with pytest.raises(ClientClosed, match="another task"):
            await client
        await first
        with server.changed:
            assert len(server._sessions) == 1
        await client.close()

    run(steps())
