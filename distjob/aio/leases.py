"""Several jobs that are held, and `AsyncClient.begin_many`: `distjob.leases`, on asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from distjob import clock
from distjob import leases as blocking
from distjob.aio.lease import AsyncJobLease, CancelIfLost, Lease
from distjob.aio.opening import like, opens
from distjob.drive import arguments
from distjob.drive.names import Seconds, check_wait
from distjob.drive.tasks import AsyncRunner
from distjob.errors import DistjobError
from distjob.leases import LeasesFacts
from distjob.protocol.many import Plan, begin_many, end_many
from distjob.rules.jobs import AnyJobLike

if TYPE_CHECKING:
    from distjob.aio.client import AsyncClient

T = TypeVar("T")


class Leases(LeasesFacts[Lease]):
    """Jobs of several VMs, begun together: ``leases["vm-1"]`` is the `Lease` of the job there.

    An async context manager: leaving it ends them all. For the tasks of one event loop.
    """

    __slots__ = ()

    @like(blocking.Leases.end)
    async def end(self) -> None:
        in_order = [self._leases[vm] for vm in sorted(self._leases)]
        await carry_out(end_many([(lease._runner, lease._held) for lease in in_order]))  # noqa: SLF001

    def cancel_if_lost(self) -> AbstractAsyncContextManager[Leases]:
        """Cancel the task that is in this block if one of the jobs is lost: as the `Lease`'s."""
        return CancelIfLost(self, "one of several leases")

    @like(blocking.Leases.__enter__)
    async def __aenter__(self) -> Self:
        self.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the jobs that the block did not end. What the block raised is never replaced."""
        if self.ended:
            return
        try:
            await self.end()
        except DistjobError as also:
            if error is None:
                raise
            error.add_note(f"and then ending the jobs failed: {also}")


class _Router(Protocol):
    """The client that is asked, which knows whose each VM is."""

    async def _of(self, vm: str) -> AsyncClient: ...


class BeginsMany:
    """`AsyncClient.begin_many`."""

    @opens
    @like(blocking.BeginsMany.begin_many)
    async def begin_many(
        self: _Router,
        jobs: Mapping[str, AnyJobLike],
        *,
        api: str = "",
        wait: Seconds | None = None,
    ) -> Leases:
        started = clock.monotonic()
        wishes = arguments.many(jobs, api)
        seconds = None if wait is None else check_wait(wait)
        parts = [((await self._of(wish.vm))._runner, wish) for wish in wishes]  # noqa: SLF001
        patience = parts[0][0].me.wait if seconds is None else seconds
        held = await carry_out(begin_many(parts, started, patience))
        by_vm = {job.vm: (AsyncJobLease if job.long else Lease)(who, job) for who, job in held}
        return Leases({vm: by_vm[vm] for vm in jobs})


async def carry_out(plan: Plan[AsyncRunner, T]) -> T:
    """Run what the plan asks for in this task, each by the client that it names."""
    reply: Any = None
    error: BaseException | None = None
    while True:
        try:
            runner, op = plan.send(reply) if error is None else plan.throw(error)
        except StopIteration as stop:
            result: T = stop.value
            return result
        reply = error = None
        try:
            reply = await runner.run(op)
        except GeneratorExit:  # this task is given up, without another chance to await
            plan.close()
            raise
        except BaseException as raised:  # noqa: BLE001  the plan decides what follows
            error = raised
