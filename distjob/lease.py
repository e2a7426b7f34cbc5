"""What begin returns: the job while it is held.

A lease knows when it is lost without asking anybody: its session's deadline is on the local clock.
It holds nothing but its facts and its client; renewal is the session's, whatever the number of
leases. `LeaseFacts` is what blocking and asyncio leases have in common, word for word.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Protocol, Self, TypeVar

from distjob.drive import arguments
from distjob.drive.blocking import Runner
from distjob.drive.names import Seconds, check_wait
from distjob.errors import DistjobError
from distjob.protocol import held as holding
from distjob.protocol import owner as owning
from distjob.protocol.change import GRACE
from distjob.protocol.effects import Op
from distjob.protocol.parts import HeldJob
from distjob.protocol.state import ClientState
from distjob.rules.fence import Fence
from distjob.rules.jobs import AsyncJob, Job, JobLike, Slot
from distjob.rules.ticket import AbortRequest, Progress
from distjob.rules.words import job_name

T = TypeVar("T")


class Steps(Protocol):
    """What a driver offers to its leases: operations that wait for nothing."""

    me: ClientState

    def check_process(self) -> None: ...

    def step(self, op: Op[T]) -> T: ...


class LeaseFacts:
    """What is known of a job that is held, without asking anybody."""

    __slots__ = ("_held", "_runner")

    _held: HeldJob
    _runner: Steps

    @property
    def vm(self) -> str:
        return self._held.vm

    @property
    def job(self) -> str:
        """The job's name: ``modify``, ``agent query``, ``async migration out``, ..."""
        return job_name(self._held.ticket)

    @property
    def token(self) -> int:
        """The number of this grant, larger than that of every earlier one of this VM's slot.

        It names the grant in `Client.status` and in logs. What a resource compares is `fence`.
        """
        return self._held.token

    @property
    def fence(self) -> Fence:
        """What this grant made void: goes with each change to a guard (see `distjob.fencing`)."""
        return self._held.fence

    @property
    def ended(self) -> bool:
        """Whether `end` was called, and the job was held until then."""
        return self._held.ended

    @property
    def remaining(self) -> float:
        """Seconds for which the job is surely held if it is not renewed again; 0.0 if it is not."""
        session = self._held.session
        if self.ended or self._held.taken or not session.alive:
            return 0.0
        return max(0.0, session.deadline - self._runner.me.clock.monotonic())

    @property
    def lost(self) -> bool:
        """Whether the session has ended, or can't be shown to live, before the job was ended;
        or the job was taken away by force.
        """
        return not self.ended and self.remaining <= 0

    @property
    def slot(self) -> Slot:
        """The slot that it holds; the sync one, if it holds that of the agent, too."""
        job = self._held.ticket.job
        if job is Job.ASYNC:
            return Slot.ASYNC
        return Slot.AGENT if job is None else Slot.SYNC

    def check(self) -> None:
        """Return if the job is held at this moment, without a round trip.

        Raises LeaseLost (the job may be another's by now), NotOwner (it was ended), ClientClosed
        (in a forked child, or another event loop, where nobody renews it).
        """
        self._runner.check_process()
        holding.check(self._runner.me, self._held)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once, in the background, if it is lost.

        At once, by the caller, if it is lost already. It may take its time, and holds up other
        callbacks of this client and its closing; on asyncio it must not block the loop. Not called
        when the job was ended in good order.
        Raises NotOwner (it was ended), ClientClosed.
        """
        if not self._runner.step(holding.on_lost(self._runner.me, self._held, callback)):
            callback()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a lease can't be copied or pickled: it belongs to its client, which renews it; pass on"
            " vm, slot and token"
        )

    def __repr__(self) -> str:
        state = "ended" if self.ended else "lost" if self.lost else f"{self.remaining:.1f} s left"
        return f"<{type(self).__name__} {self.job} of VM {self.vm!r}, token {self.token}, {state}>"


class LongFacts(LeaseFacts):
    """The same of an async job."""

    __slots__ = ()

    @property
    def kind(self) -> AsyncJob:
        """Its type."""
        kind = self._held.ticket.kind
        if kind is None:
            raise AssertionError("an async job has a type")
        return kind

    @property
    def phase(self) -> str:
        """The phase it was set to last, by this owner or, when it was adopted, the one before."""
        return self._held.phase

    @property
    def progress(self) -> Progress | None:
        """How far it has come, as it was said last; None if nobody did."""
        return self._held.progress

    @property
    def abort_requested(self) -> AbortRequest | None:
        """Who asked this job to stop, and why, as far as was heard; None if nobody did."""
        return self._held.abort

    def _claim(self) -> None:
        """As `check`, for what needs the store."""
        self._runner.check_process()
        holding.claim(self._runner.me, self._held)

    def on_abort(self, callback: Callable[[AbortRequest], None]) -> None:
        """Have ``callback`` called once, as that of `on_lost`, when the job is asked to abort.

        At once, by the caller, if it was asked already. Raises NotOwner, LeaseLost, ClientClosed.
        """
        if not self._runner.step(owning.on_abort(self._runner.me, self._held, callback)):
            request = self._held.abort
            if request is not None:
                callback(request)


class Lease(LeaseFacts):
    """A job that is held, from begin to `end`; as a context manager it ends with the block.

    Thread-safe. Every change that is made to the VM on its strength should carry `fence` to a
    guard (see `distjob.fencing`): a holder that was stopped for longer than its TTL can't know it.
    """

    __slots__ = ()
    _runner: Runner

    def __init__(self, runner: Runner, held: HeldJob) -> None:
        self._runner = runner
        self._held = held

    def end(self) -> None:
        """End the job and let in who waits, in one round trip. Not held afterwards.

        Raises NotOwner if it was ended already (nothing changes), LeaseLost if it was lost before,
        ClientClosed if the client was closed, which has ended it; OutcomeUnknown if the store did
        not answer for half a TTL: the client then ends it in the background, at the latest the
        session's end does. Source: ``virDomainObjEndJob``.
        """
        self._runner.run(holding.end(self._runner.me, self._held))

    def __enter__(self) -> Self:
        """Enter the block if the job is held; else raise as `check` does, before the body."""
        self.check()
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


class AsyncJobLease(Lease, LongFacts):
    """A long job that is held: it runs in nested steps, and lets in what its mask allows."""

    __slots__ = ()

    def nested(self, *, api: str = "", wait: Seconds | None = None) -> Lease:
        """Begin a step of this job: it takes the sync slot, past the mask.

        ``api``: what the step does, for people. ``wait``: seconds, the client's default if None.
        Raises as `Client.begin` does, NotOwner if this job has ended, LeaseLost if it was lost.
        Source: ``virDomainObjBeginNestedJob``.
        """
        self._claim()
        wish, me = arguments.step(self._held, api), self._runner.me
        return Lease(self._runner, self._runner.run(arguments.begin(me, self.vm, wish, wait)))

    def allow(self, *jobs: JobLike) -> None:
        """Let in these sync jobs, and `Job.DESTROY`, from now on; waiters among them start at once.

        Replaces the mask, which is ``query, destroy, abort`` at first. The change is made or
        this raises: LeaseLost, NotOwner (the job was ended), ClientClosed, BadRequest (not a sync
        job), BackendUnavailable (the mask is as before), OutcomeUnknown.
        Source: ``virDomainObjSetAsyncJobMask``.
        """
        mask, me = arguments.mask(self.vm, jobs), self._runner.me
        self._runner.run(owning.set_job(me, self._held, mask=mask, patience=GRACE))

    def set_phase(self, phase: str) -> None:
        """Say which phase the job has reached: it is kept with the job, and whoever adopts it
        finds it. At most 255 printable characters; they mean nothing to distjob.

        Raises as `allow`. Source: ``qemuDomainObjSetJobPhase``.
        """
        name, me = arguments.phase(phase), self._runner.me
        self._runner.run(owning.set_job(me, self._held, phase=name, patience=GRACE))

    def set_progress(self, done: float, total: float | None = None, unit: str = "") -> None:
        """Say how far the job has come, for `Client.status`. Call it as often as you like.

        ``total``: None if it is not known. Written at most once a second: what is said in between
        is written by the client in the background, the latest only. Raises as `allow`.
        Source: ``virDomainGetJobStats``.
        """
        progress, me = arguments.progress(self.vm, done, total, unit), self._runner.me
        self._runner.run(owning.set_progress(me, self._held, progress, patience=GRACE))

    def wait_abort(self, timeout: Seconds | None = None) -> AbortRequest | None:
        """Wait until the job is asked to abort, at most ``timeout`` seconds; None if it was not.

        Without a round trip: the request is pushed by who makes it. Raises LeaseLost as soon as
        the job is lost, NotOwner (it was ended, by another thread or task), ClientClosed.
        """
        seconds = None if timeout is None else check_wait(timeout)
        return self._runner.run(owning.wait_abort(self._runner.me, self._held, seconds))

    def detach(self) -> None:
        """Give the job up without ending it: it keeps its slot, mask, phase and progress, has no
        owner, and waits for `Client.adopt`. Not held afterwards. Steps of it that still wait are
        refused; one that is under way keeps the sync slot until its own end.

        Raises as `end`. Source: ``qemuDomainObjReleaseAsyncJob``.
        """
        self._runner.run(owning.give_up(self._runner.me, self._held))
