"""What begin_many returns, several jobs that are held; and begin_many itself, for `Client`.

`LeasesFacts` is what blocking and asyncio have in common. In which order the jobs are begun and
ended, and what is given back, is protocol/many.py's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, Self, TypeVar

from distjob import clock
from distjob.drive import arguments
from distjob.drive.blocking import Runner
from distjob.drive.names import Seconds, check_wait
from distjob.errors import DistjobError
from distjob.lease import AsyncJobLease, Lease, LeaseFacts
from distjob.protocol.many import Plan, begin_many, end_many
from distjob.rules.jobs import AnyJobLike

if TYPE_CHECKING:
    from distjob.client import Client

T = TypeVar("T")
L = TypeVar("L", bound=LeaseFacts)


class LeasesFacts(Mapping[str, L], Generic[L]):
    """The leases by their VMs, and what is known of them all without asking anybody.

    A lease that was ended by itself does not count any more.
    """

    __slots__ = ("_leases",)

    def __init__(self, leases: Mapping[str, L]) -> None:
        self._leases = leases

    def __getitem__(self, vm: str) -> L:
        """The lease of ``vm``'s job: an `AsyncJobLease` if it is an async job."""
        return self._leases[vm]

    def __iter__(self) -> Iterator[str]:
        """The VMs, in the order in which they were given to begin_many."""
        return iter(self._leases)

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def ended(self) -> bool:
        """Whether all were ended."""
        return not self._counting()

    @property
    def remaining(self) -> float:
        """Seconds for which all are surely held if they are not renewed again; 0.0 if one is not,
        or all were ended.
        """
        return min((lease.remaining for lease in self._counting()), default=0.0)

    @property
    def lost(self) -> bool:
        """Whether one of them was lost before it was ended."""
        return any(lease.lost for lease in self._counting())

    def check(self) -> None:
        """Return if all are held at this moment, without a round trip.

        Raises LeaseLost (one of them may be another's by now), NotOwner (all were ended),
        ClientClosed (in a forked child, or another event loop, where nobody renews them).
        """
        for lease in self._counting() or self._leases.values():
            lease.check()

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, in the background, if one of them is lost: see `lost`.

        As `Lease.on_lost`. Raises NotOwner (all were ended), ClientClosed.
        """
        first = threading.Lock()

        def once() -> None:  # VMs of two stores may be lost at the same time
            if first.acquire(blocking=False):
                callback()

        for lease in self._counting() or self._leases.values():
            lease.on_lost(once)

    def _counting(self) -> list[L]:
        return [lease for lease in self._leases.values() if not lease.ended]

    def __reduce__(self) -> NoReturn:
        raise TypeError("leases can't be copied or pickled: they belong to their client")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {list(self._leases.values())!r}>"


class Leases(LeasesFacts[Lease]):
    """Jobs of several VMs, begun together: ``leases["vm-1"]`` is the `Lease` of the job there.

    A context manager: leaving it ends them all. Thread-safe.
    """

    __slots__ = ()

    def end(self) -> None:
        """End all that were not ended yet, the last VM of the order first, and let waiters in.

        Each is tried, whatever became of another. Raises NotOwner (all were ended before), and as
        `Lease.end`: of several errors LeaseLost rather than another, with the others as its notes.
        """
        in_order = [self._leases[vm] for vm in sorted(self._leases)]
        carry_out(end_many([(lease._runner, lease._held) for lease in in_order]))  # noqa: SLF001

    def __enter__(self) -> Self:
        """Raises as `check`."""
        self.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the jobs that the block did not end. What the block raised is never replaced."""
        if self.ended:
            return
        try:
            self.end()
        except DistjobError as also:
            if error is None:
                raise
            error.add_note(f"and then ending the jobs failed: {also}")


class _Router(Protocol):
    """The client that is asked, which knows whose each VM is."""

    def _of(self, vm: str) -> Client: ...


class BeginsMany:
    """`Client.begin_many`."""

    def begin_many(
        self: _Router,
        jobs: Mapping[str, AnyJobLike],
        *,
        api: str = "",
        wait: Seconds | None = None,
    ) -> Leases:
        """Begin a job of each of several VMs; all are held when this returns, or none is.

        ``jobs``: by VM: a `Job` or its text; an `AgentJob`; a pair of both, to hold together; an
        `AsyncJob` or its text, which is released if its owner dies. ``api``: as for `begin`, the
        same for all. ``wait``: seconds, or a timedelta; the client's default (30) if None; one
        deadline for all of them.

        They are begun one after the other, by the order of the VMs' names, which is everybody's: so
        calls that cross never wait for each other in a circle. But one must hold nothing else that
        these calls wait for: that keeps to no order. What is lost while the others are waited for
        (a session ended, say) is given back with all that comes after it, and asked for again.

        Raises the error of the VM that failed, as `begin`, and nothing is held: what was held
        of the others is given back, at the latest when the store answers again. JobTimeout and
        QueueFull say by ``vm`` and ``blockers`` which VM, and who is in the way there; a note says
        what was given back. LeaseLost: one was lost, and no time was left to ask again. BadRequest,
        before anything is sent. OutcomeUnknown: as of `begin`. Ctrl-C withdraws all.
        """
        started = clock.monotonic()
        wishes = arguments.many(jobs, api)
        seconds = None if wait is None else check_wait(wait)
        parts = [(self._of(wish.vm)._runner, wish) for wish in wishes]  # noqa: SLF001
        patience = parts[0][0].me.wait if seconds is None else seconds
        held = carry_out(begin_many(parts, started, patience))
        by_vm = {job.vm: (AsyncJobLease if job.long else Lease)(who, job) for who, job in held}
        return Leases({vm: by_vm[vm] for vm in jobs})


def carry_out(plan: Plan[Runner, T]) -> T:
    """Run what the plan asks for in this thread, each by the client that it names."""
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
            reply = runner.run(op)
        except BaseException as raised:  # noqa: BLE001  the plan decides what follows
            error = raised
