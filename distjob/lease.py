"""What begin returns: the job while it is held.

A lease knows when it is lost without asking anybody: its session's deadline is on the local clock.
It holds nothing but its facts and its client; renewal is the session's, whatever the number of
leases.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from distjob.driver import Runner
from distjob.errors import BadRequest, DistjobError
from distjob.jobs import AsyncJob, Job, mask_of
from distjob.names import check_label, check_vm, check_wait
from distjob.protocol import held as holding
from distjob.protocol.begin import GRACE, begin
from distjob.protocol.controller import Held, Wish
from distjob.words import job_name


class Lease:
    """A job that is held, from begin to `end`; as a context manager it ends with the block.

    Thread-safe. Every change that is made to the VM on its strength should carry `token` to a
    guard (see `distjob.fencing`): a holder that was stopped for longer than its TTL can't know it.
    """

    __slots__ = ("_held", "_runner")

    def __init__(self, runner: Runner, held: Held) -> None:
        self._runner = runner
        self._held = held

    @property
    def vm(self) -> str:
        return self._held.vm

    @property
    def job(self) -> str:
        """The job's name: ``modify``, ``agent query``, ``async migration out``, ..."""
        return job_name(self._held.ticket)

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every earlier grant of this VM's slot."""
        return self._held.token

    @property
    def ended(self) -> bool:
        """Whether `end` was called, and the job was held until then."""
        return self._held.ended

    @property
    def remaining(self) -> float:
        """Seconds for which the job is surely held if it is not renewed again; 0.0 if it is not."""
        session = self._held.session
        if self.ended or not session.alive:
            return 0.0
        return max(0.0, session.deadline - self._runner.me.clock.monotonic())

    @property
    def lost(self) -> bool:
        """Whether the session has ended, or can't be shown to live, before the job was ended."""
        return not self.ended and self.remaining <= 0

    def check(self) -> None:
        """Return if the job is held at this moment, without a round trip.

        Raises LeaseLost (the job may be another's by now), NotOwner (it was ended), ClientClosed
        (in a forked child, where nobody renews it).
        """
        self._runner.check_process()
        holding.check(self._runner.me, self._held)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, in the client's background thread, if the job is lost.

        At once and in this thread if it is lost already. It must not block: it holds up the
        renewal of the next session. Not called when the job was ended in good order.
        Raises NotOwner (it was ended), ClientClosed.
        """
        if not self._runner.run(holding.on_lost(self._runner.me, self._held, callback)):
            callback()

    def end(self) -> None:
        """End the job and let in who waits, in one round trip. Not held afterwards.

        Raises NotOwner if it was ended already (nothing changes), LeaseLost if it was lost before,
        OutcomeUnknown if the store did not answer for half a TTL: the client then ends it in the
        background, at the latest the session's end does. Source: ``virDomainObjEndJob``.
        """
        self._runner.run(holding.end(self._runner.me, self._held))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the job, unless the block did. What the block raised is never replaced."""
        if self.ended:
            return
        if error is None:
            self.end()
            return
        try:
            self.end()
        except DistjobError as also:
            error.add_note(f"and then ending the job failed: {also}")

    def __repr__(self) -> str:
        state = "ended" if self.ended else "lost" if self.lost else f"{self.remaining:.1f} s left"
        return f"<{type(self).__name__} {self.job} of VM {self.vm!r}, token {self.token}, {state}>"


def acquire(runner: Runner, vm: str, wish: Wish, wait: float | None) -> Held:
    """Begin, waiting ``wait`` seconds or the client's default; returns what a lease is made of."""
    held = attempt(runner, vm, wish, runner.me.wait if wait is None else check_wait(wait))
    if held is None:
        raise AssertionError("a begin that waits is never refused as busy")
    return held


def attempt(runner: Runner, vm: str, wish: Wish, wait: float | None) -> Held | None:
    """Begin, waiting ``wait`` seconds; None: not at all, and None if it is busy."""
    check_label("api", wish.api)
    return runner.run(begin(runner.me, check_vm(vm), wish, wait))


class AsyncJobLease(Lease):
    """A long job that is held: it runs in nested steps, and lets in what its mask allows."""

    __slots__ = ()

    def nested(self, *, api: str = "", wait: float | None = None) -> Lease:
        """Begin a step of this job: it takes the sync slot, past the mask.

        ``api``: what the step does, for people. ``wait``: seconds, the client's default if None.
        Raises as `Client.begin` does, NotOwner if this job has ended, LeaseLost if it was lost.
        Source: ``virDomainObjBeginNestedJob``.
        """
        self.check()
        kind, parent = self.kind, self._held.ticket.id
        step = Wish(api or f"{kind} step", job=Job.ASYNC_NESTED, kind=kind, parent=parent)
        return Lease(self._runner, acquire(self._runner, self.vm, step, wait))

    def allow(self, *jobs: Job | str) -> None:
        """Let in these sync jobs, and `Job.DESTROY`, from now on; waiters among them start at once.

        Replaces the mask, which is ``query, destroy, abort`` at first. The change is made or
        this raises: LeaseLost, NotOwner (the job was ended), BadRequest (not a sync job),
        BackendUnavailable (the mask is as before), OutcomeUnknown.
        Source: ``virDomainObjSetAsyncJobMask``.
        """
        try:
            mask = mask_of(Job(job) for job in jobs)
        except ValueError as error:
            raise BadRequest(f"VM {self.vm!r}: mask: {error}") from None
        me = self._runner.me
        self._runner.run(holding.set_mask(me, self._held, mask, patience=GRACE))

    @property
    def kind(self) -> AsyncJob:
        kind = self._held.ticket.kind
        if kind is None:
            raise AssertionError("an async job has a type")
        return kind
