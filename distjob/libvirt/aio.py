"""`AsyncDomains`: `distjob.libvirt.blocking` for asyncio, each call of libvirt's in a thread.

A call of libvirt's can't be interrupted. So a task that is cancelled in one goes on until libvirt
has done, for as long as it holds the job: a long call is aborted. Then it raises CancelledError.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from distjob.aio.client import AsyncClient
from distjob.aio.opening import like
from distjob.drive.names import Seconds
from distjob.errors import DistjobError
from distjob.libvirt import blocking, subject
from distjob.libvirt.kill import Kill
from distjob.libvirt.plan import Held, requests
from distjob.libvirt.subject import NOTHING, Admits, Asked, Settings, Subject
from distjob.libvirt.watch import Watch
from distjob.rules.jobs import (
    DEFAULT_MASK,
    AgentJobLike,
    AsyncJobLike,
    JobLike,
    OnOwnerLoss,
    OnOwnerLossLike,
)

T = TypeVar("T")


class AsyncDomains:
    """Domains whose calls take libvirt's jobs, by one client; for the tasks of its event loop."""

    def __init__(
        self,
        jobs: AsyncClient,
        *,
        wait: Seconds | None = None,
        guard: Admits | None = None,
        unknown: JobLike | None = None,
    ) -> None:
        """The arguments are those of `Domains`. The guard is asked in a thread."""
        self._settings = Settings(AsyncClient, jobs, wait, guard, unknown)

    @like(blocking.Domains.domain)
    def domain(self, dom: Any) -> AsyncDomain:
        return AsyncDomain(self._settings, dom)

    @like(blocking.Domains.createXML)
    async def createXML(self, conn: Any, xml: str, flags: int = 0) -> AsyncDomain:  # noqa: N802
        return await self._made(subject.created(conn, xml, flags))

    @like(blocking.Domains.restore)
    async def restore(
        self, conn: Any, file: str, dxml: str | None = None, flags: int = 0
    ) -> AsyncDomain:
        return await self._made(await _threaded(partial(subject.restored, conn, file, dxml, flags)))

    async def _made(self, birth: subject.Birth) -> AsyncDomain:
        holder = _Holder(self._settings, birth.vm, None)
        async with holder.hold(birth.asked, NOTHING) as held:
            result = await holder.do(birth.asked, held)
            return AsyncDomain(self._settings, await _threaded(partial(birth.found, result)))


class AsyncPart(Subject):
    """A snapshot or a checkpoint, or a whole domain: libvirt's object, its calls under jobs."""

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        asked = self._asked(name, args, options)
        holder = _Holder(self._settings, self.vm, self._domain)
        if asked.takes == subject.NO_JOB:
            result = await _threaded(asked.do)
        elif subject.kills(asked):
            result = await self._kill(asked)
        else:
            async with holder.hold(asked, self._held) as held:
                result = await holder.do(asked, held)
        return subject.wrapped(result, self._wrap)

    def _wrap(self, raw: Any) -> AsyncPart:
        kind = AsyncDomain if subject.kind_of(raw) == "virDomain" else AsyncPart
        return kind(self._settings, raw)

    async def _kill(self, asked: Asked) -> Any:
        kill = Kill(asked, self._domain)
        holder = _Holder(self._settings, self.vm, None)  # it asks for the state by itself
        await _threaded(kill.first)
        if self._held.lease is not None:
            return await _threaded(kill.again)
        try:
            async with holder.hold(asked, NOTHING) as held:
                return await holder.do(asked._replace(do=kill.again), held)
        except DistjobError as error:
            kill.explain(error)
            raise


class AsyncDomain(AsyncPart):
    """A virDomain whose methods are coroutines that take the jobs that libvirt's own take.

    As `Domain`. Each call of libvirt's is made in a thread of its own; a task that is cancelled in
    one holds the job, and does not end, before libvirt has returned: a long call is aborted.
    """

    @like(blocking.Domain.job)
    def job(
        self,
        job: JobLike | AsyncJobLike | None = None,
        *,
        agent: AgentJobLike | None = None,
        mask: Iterable[JobLike] | None = None,
        on_owner_loss: OnOwnerLossLike = OnOwnerLoss.RELEASE,
        api: str = "",
        wait: Seconds | None = None,
    ) -> AbstractAsyncContextManager[Held]:
        asked = subject.block_of(self.vm, job, agent, mask, api)
        return self._block(asked, on_owner_loss, wait)

    @asynccontextmanager
    async def _block(
        self, asked: Asked, on_owner_loss: OnOwnerLossLike, wait: Seconds | None
    ) -> AsyncIterator[Held]:
        holder = _Holder(self._settings, self.vm, self._domain, on_owner_loss, wait)
        async with holder.hold(asked, self._held) as held:
            with self._within(held):
                yield held

    @like(blocking.Domain.adopt)
    @asynccontextmanager
    async def adopt(self, kind: AsyncJobLike, *, api: str = "") -> AsyncIterator[Held]:
        jobs, holder = self._settings.jobs, _Holder(self._settings, self.vm, self._domain)
        async with (
            jobs.adopt(self.vm, kind, api=api) as lease,
            holder.attended(Held(lease=lease, long=lease, newest=lease)) as adopted,
        ):
            held = await holder.seen(adopted)
            held.watch.going_on = subject.goes_on(held.long.kind)
            with self._within(held):
                yield held


class _Holder:
    """Begins, for one call or block on one VM, what it takes, and makes the call."""

    def __init__(
        self,
        settings: Settings,
        vm: str,
        domain: Any,
        on_owner_loss: OnOwnerLossLike = OnOwnerLoss.RELEASE,
        wait: Seconds | None = None,
    ) -> None:
        self._settings = settings
        self._vm = vm
        self._domain = domain
        self._on_owner_loss = on_owner_loss
        self._wait = settings.wait if wait is None else wait

    @asynccontextmanager
    async def hold(self, asked: Asked, held: Held) -> AsyncIterator[Held]:
        """Hold what ``asked`` takes beside ``held``, for the block; the state is asked anew."""
        begins = requests(self._vm, asked.what, asked.takes, held)
        if not begins:
            held.check()
            if asked.takes.kind is not None:
                await held.long.set_phase(asked.what)
            yield held
            return
        how = {
            "api": asked.api or asked.what,
            "wait": self._wait,
            "on_owner_loss": self._on_owner_loss,
        }
        async with AsyncExitStack() as stack:
            for one in begins:
                opening = one.open(self._settings.jobs, self._vm, held, how)
                lease = await stack.enter_async_context(opening)
                held = held.plus(one, lease)
                if one.kind is not None:
                    if one.mask != DEFAULT_MASK:
                        await lease.allow(*one.mask)
                    held = await stack.enter_async_context(self.attended(held))
            yield await self.seen(held)

    async def seen(self, held: Held) -> Held:
        """With the domain's state as it is now; libvirtError if there is no domain any more."""
        if self._domain is None:
            return held
        return held._replace(state=await _threaded(self._domain.state))

    @asynccontextmanager
    async def attended(self, held: Held) -> AsyncIterator[Held]:
        """Have the async job of ``held`` stop libvirt's when it must; wait for what goes on."""
        watch = Watch(self._domain, asyncio.Event())
        held.long.on_abort(watch.stop)
        held.long.on_lost(watch.stop)
        held = held._replace(watch=watch)
        over, look = partial(_threaded, watch.has_ended), partial(_look, held)
        try:
            yield held
        except BaseException:
            watch.stop()
            if watch.going_on and not held.long.ended:
                await _until(over, look, watch.stop)
            raise
        if watch.going_on and not held.long.ended:
            await _until(over, look, watch.stop)
            await _threaded(watch.judge)

    async def do(self, asked: Asked, held: Held) -> Any:
        """Make the call, under what is held."""
        do = subject.under(self._settings, self._vm, held, asked.do)
        watch: Watch[asyncio.Event] = held.watch
        if subject.goes_on(asked.takes.kind):
            do = watch.outlived(do)
        call = _threaded(do)
        if asked.takes.kind is None:
            return await _result(call, partial(asyncio.wait, (call,)), subject.nothing)
        call.add_done_callback(lambda _: watch.bell.set())
        return await _result(call, partial(_look, held), watch.stop)


async def _result(
    call: asyncio.Future[T], step: Callable[[], Awaitable[Any]], stop: Callable[[], None]
) -> T:
    async def done() -> bool:
        return call.done()

    try:
        await _until(done, step, stop)
    except asyncio.CancelledError:
        call.exception()  # it was seen
        raise
    return call.result()


async def _until(
    over: Callable[[], Awaitable[bool]],
    step: Callable[[], Awaitable[Any]],
    stop: Callable[[], None],
) -> None:
    """Take steps until it is ``over``, however often this task is cancelled: that does ``stop``.

    In this very task: another would be cancelled, too, when the loop ends.
    """
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            if await over():
                break
            await step()
        except asyncio.CancelledError as error:
            cancelled = error
            stop()
    if cancelled is not None:
        raise cancelled


async def _look(held: Held) -> None:
    """Wait for the bell, or for a while; then pass on an abort, or tell the progress."""
    watch: Watch[asyncio.Event] = held.watch
    with suppress(TimeoutError):
        await asyncio.wait_for(watch.bell.wait(), watch.pause)
        watch.bell.clear()
        if not watch.stopping:
            return  # it rings for the call's end
    if found := await _threaded(watch.look):
        with suppress(DistjobError):  # for people; of a loss, the job's end tells
            await held.long.set_progress(*found)


def _threaded(call: Callable[[], T]) -> asyncio.Future[T]:
    """Make ``call`` in a thread of its own: a pool's would be all taken by hours of migrations."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result, raised = None, None
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  the task raises it
            raised = error
        with suppress(RuntimeError):  # the loop was closed over it
            loop.call_soon_threadsafe(settle, result, raised)

    threading.Thread(target=run, name="distjob-libvirt", daemon=True).start()
    return future
