"""Leases on asyncio: those of `distjob.lease`, whose methods that take time are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from distjob import lease as blocking
from distjob.aio.opening import like, opens
from distjob.drive import arguments
from distjob.drive.names import Seconds, check_wait
from distjob.drive.tasks import AsyncRunner
from distjob.errors import DistjobError, LeaseLost
from distjob.lease import LeaseFacts, LongFacts
from distjob.protocol import held as holding
from distjob.protocol import owner as owning
from distjob.protocol.change import GRACE
from distjob.protocol.parts import HeldJob
from distjob.rules.jobs import JobLike
from distjob.rules.ticket import AbortRequest


class Lease(LeaseFacts):
    """A job that is held, from begin to `end`; as an async context manager it ends with the block.

    For the tasks of one event loop. Every change that is made to the VM on its strength should
    carry `fence` to a guard (see `distjob.fencing`): a holder that was stopped for longer than its
    TTL can't know it.
    """

    __slots__ = ()
    _runner: AsyncRunner

    def __init__(self, runner: AsyncRunner, held: HeldJob) -> None:
        self._runner = runner
        self._held = held

    @like(blocking.Lease.end)
    async def end(self) -> None:
        await self._runner.run(holding.end(self._runner.me, self._held))

    def cancel_if_lost(self) -> AbstractAsyncContextManager[Lease]:
        """Cancel the task that is in this block if the job is lost; the block raises LeaseLost.

            async with jobs.begin("vm-42", Job.MODIFY) as lease, lease.cancel_if_lost():
                ...

        As `asyncio.timeout` does with its deadline: the body sees CancelledError at its next
        await, and the block turns that into LeaseLost. A cancellation by anybody else stays one.
        Raises LeaseLost at once if the job is lost already, NotOwner (it was ended).
        """
        return CancelIfLost(self, f"the lease of {self.job}")

    @like(blocking.Lease.__enter__)
    async def __aenter__(self) -> Self:
        self.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the job, unless the block did. What the block raised is never replaced."""
        if self.ended:
            return
        if error is None:
            await self.end()
            return
        try:
            await self.end()
        except DistjobError as also:
            error.add_note(f"and then ending the job failed: {also}")


class Losable(Protocol):
    """What can be lost."""

    def check(self) -> None: ...

    def on_lost(self, callback: Callable[[], None]) -> None: ...


L = TypeVar("L", bound=Losable)


class CancelIfLost(Generic[L]):
    """A block whose task is cancelled if ``lease`` is lost; ``what`` it is, for the reason."""

    def __init__(self, lease: L, what: str) -> None:
        self._lease = lease
        self._what = what
        self._inside = False
        self._cancelled = False

    async def __aenter__(self) -> L:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a coroutine is run by a task")
        self._task = task
        self._before = task.cancelling()
        self._lease.check()
        self._inside = True
        self._lease.on_lost(self._cancel)
        return self._lease

    def _cancel(self) -> None:
        if self._inside and not self._cancelled:
            self._cancelled = True
            self._task.cancel(f"{self._what} is lost")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = False
        if not self._cancelled:
            return
        late: asyncio.CancelledError | None = None
        if not isinstance(error, asyncio.CancelledError):
            try:
                await asyncio.sleep(0)  # the body never came to see it
            except asyncio.CancelledError as raised:
                late = raised
        others = self._task.uncancel() > self._before
        if others and late is not None:
            raise late  # by somebody else, who must see it
        if others or not (error is None or isinstance(error, asyncio.CancelledError)):
            return
        try:
            self._lease.check()
        except LeaseLost as lost:
            raise lost from error


class AsyncJobLease(Lease, LongFacts):
    """A long job that is held: it runs in nested steps, and lets in what its mask allows."""

    __slots__ = ()

    @opens
    @like(blocking.AsyncJobLease.nested)
    async def nested(self, *, api: str = "", wait: Seconds | None = None) -> Lease:
        self._claim()
        wish, me = arguments.step(self._held, api), self._runner.me
        return Lease(self._runner, await self._runner.run(arguments.begin(me, self.vm, wish, wait)))

    @like(blocking.AsyncJobLease.allow)
    async def allow(self, *jobs: JobLike) -> None:
        mask, me = arguments.mask(self.vm, jobs), self._runner.me
        await self._runner.run(owning.set_job(me, self._held, mask=mask, patience=GRACE))

    @like(blocking.AsyncJobLease.set_phase)
    async def set_phase(self, phase: str) -> None:
        name, me = arguments.phase(phase), self._runner.me
        await self._runner.run(owning.set_job(me, self._held, phase=name, patience=GRACE))

    @like(blocking.AsyncJobLease.set_progress)
    async def set_progress(self, done: float, total: float | None = None, unit: str = "") -> None:
        progress, me = arguments.progress(self.vm, done, total, unit), self._runner.me
        await self._runner.run(owning.set_progress(me, self._held, progress, patience=GRACE))

    @like(blocking.AsyncJobLease.wait_abort)
    async def wait_abort(self, timeout: Seconds | None = None) -> AbortRequest | None:
        seconds = None if timeout is None else check_wait(timeout)
        return await self._runner.run(owning.wait_abort(self._runner.me, self._held, seconds))

    @like(blocking.AsyncJobLease.detach)
    async def detach(self) -> None:
        await self._runner.run(owning.give_up(self._runner.me, self._held))
