"""What a user of a script can do: the real operations, told to the judges."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distjob.errors import BackendUnavailable, DistjobError, OutcomeUnknown
from distjob.protocol import held as holding
from distjob.protocol import outside, owner
from distjob.protocol.begin import adopt, begin, begin_now
from distjob.protocol.change import GRACE
from distjob.protocol.closing import close
from distjob.protocol.effects import Op, Wait, ask
from distjob.protocol.hands import call_users, make_calls, work
from distjob.protocol.heart import beat, open_session
from distjob.protocol.look import status
from distjob.protocol.parts import Wish
from distjob.protocol.state import ClientState
from distjob.rules.jobs import AgentJob, AsyncJob, Job, OnOwnerLoss, mask_of
from distjob.testing.explore.deviations import Cancelled, Surprise
from distjob.testing.explore.ledger import Lease
from distjob.testing.explore.schedule import Schedule
from distjob.testing.explore.stage import Controller, Task

if TYPE_CHECKING:
    from distjob.testing.explore.judges import Judges

PATIENT = 45.0
"""Seconds: longer than a few who died one after another keep anybody out."""
HURT = (Cancelled, Surprise)


class User:
    """One thread, or task, of a controller."""

    def __init__(self, judges: Judges, at: Controller) -> None:
        self.judges = judges
        self.at = at
        self.me = at.me
        self.task: Task
        self.busy = False
        """It is in an operation."""

    @property
    def done(self) -> bool:
        return self.task.done or not self.at.up

    def begin(
        self,
        vm: str,
        job: Job | None = None,
        *,
        agent: AgentJob | None = None,
        kind: AsyncJob | None = None,
        parent: Lease | None = None,
        loss: OnOwnerLoss = OnOwnerLoss.RELEASE,
        wait: float | None = PATIENT,
        fails: tuple[str, ...] = (),
        adopts: bool = False,
    ) -> Op[Lease | None]:
        """Begin a job; None if it was not granted. ``fails``: errors that need no fault."""
        step = parent.held.ticket.id if parent else ""
        job = Job.ASYNC_NESTED if parent else Job.ASYNC if kind else job
        kind = parent.held.ticket.kind if parent else kind
        wish = Wish(
            "", job=job, agent=agent, kind=kind, parent=step, on_owner_loss=loss, adopts=adopts
        )
        call = self.judges.ledger.calls_begin(self.at, vm, wish, wait, fails)
        lost = ("LeaseLost", "NotOwner", "WrongJob") if parent and not parent.believed() else ()
        if adopts:
            op: Op[Any] = adopt(self.me, vm, call.wish)
        else:
            op = (
                begin_now(self.me, vm, call.wish)
                if wait is None
                else begin(self.me, vm, call.wish, wait)
            )
        try:
            held = yield from self._do(call.name, op, (*fails, *lost))
        finally:
            call.open = False
        if held is None:
            return None
        lease = self.judges.ledger.granted(call, held)
        self.judges.granted(lease)
        return lease

    def _do(self, name: str, op: Op[Any], fails: tuple[str, ...] = ()) -> Op[Any]:
        """The operation's result; None if it was cancelled, or was refused with a reason."""
        self.busy = True
        try:
            return (yield from op)
        except HURT:
            return None
        except DistjobError as error:
            self.judges.raised(self.at, name, error, fails)
            return None
        finally:
            self.busy = False

    def hold(self, lease: Lease | None, seconds: float) -> Op[bool]:
        """Use the job for so long; False if it was not granted, or is lost."""
        if lease is None or lease.over:
            return False
        yield from self.pause(seconds)
        if not lease.held.holds(self.at.monotonic()):
            lease.over = True
        return not lease.over

    def end(self, lease: Lease | None) -> Op[None]:
        yield from self._part(lease, "end", holding.end)

    def detach(self, lease: Lease | None) -> Op[None]:
        yield from self._part(lease, "detach", owner.give_up)

    def _part(self, lease: Lease | None, how: str, op: Callable[..., Op[None]]) -> Op[None]:
        if lease is None or lease.over:
            return
        lease.parting = how
        try:
            yield from self._do(f"{how} of {lease.call.name}", op(self.me, lease.held))
        finally:
            lease.over = True

    def allow(self, lease: Lease | None, *jobs: Job) -> Op[None]:
        """Set the async job's mask."""
        if lease is not None and not lease.over:
            op = owner.set_job(self.me, lease.held, mask=mask_of(jobs), patience=GRACE)
            yield from self._do(f"mask of {lease.call.name}", op)

    def say(self, lease: Lease | None, phase: str) -> Op[None]:
        """Set the async job's phase."""
        if lease is not None and not lease.over:
            op = owner.set_job(self.me, lease.held, phase=phase, patience=GRACE)
            yield from self._do(f"phase of {lease.call.name}", op)

    def hears_abort(self, lease: Lease | None, seconds: float) -> Op[bool]:
        """Wait for a request to abort the async job."""
        if lease is None or lease.over:
            return False
        op = owner.wait_abort(self.me, lease.held, seconds)
        return (yield from self._do(f"abort of {lease.call.name}", op)) is not None

    def discard(self, vm: str, *fails: str) -> Op[None]:
        self.judges.ledger.hands.append((self.at, ""))
        yield from self._do(
            "discard", outside.discard(self.me, vm), ("WrongJob", "NotOwner", *fails)
        )

    def evict(self, vm: str) -> Op[None]:
        """Take out by force whoever is in the VM's record."""
        seen = yield from self._do("status", status(self.me, vm))
        if seen is not None and not seen.idle:
            tickets = [job.ticket for job in (*seen.holders, *seen.waiters)]
            self.judges.ledger.hands += [(self.at, ticket) for ticket in tickets]
            yield from self._do("evict", outside.evict(self.me, vm, tickets))

    def abort(self, vm: str, *fails: str) -> Op[None]:
        """Ask the async job to stop."""
        wish = Wish("", job=Job.ABORT)
        call = self.judges.ledger.calls_begin(self.at, vm, wish, PATIENT, fails)
        op = outside.abort(self.me, vm, "a user's", call.name, PATIENT)
        try:
            yield from self._do(call.name, op, fails)
        finally:
            call.open = False

    def close(self) -> Op[None]:
        """Close the client, whoever uses it."""
        yield from closing(self.at)

    def pause(self, seconds: float) -> Op[None]:
        yield from ask(Wait(seconds))


# -- controllers -----------------------------------------------------------------------------------


def connect(
    schedule: Schedule, name: str, *, max_queued: int = 0, pushed: bool = True
) -> Controller:
    """A controller, with all that it does in the background."""
    at = Controller(schedule, name, max_queued=max_queued, pushed=pushed)
    schedule.controllers.append(at)
    for part, op in (("heart", _beating), ("hands", work), ("calls", call_users)):
        at.background += 1
        schedule.start(at, part, op(at.me), background=True)
    return at


def _beating(me: ClientState) -> Op[None]:
    yield from open_session(me)
    yield from beat(me)


def closing(at: Controller) -> Op[None]:
    """Close the client, as the drivers do."""
    me = at.me
    me.close()
    at.interrupted = True
    at.schedule.net.rouse(at)
    yield from ask(Wait(60.0, at.at_rest))
    try:
        yield from close(me)
    except (BackendUnavailable, OutcomeUnknown):
        at.excuse = at.excuse or "not closed well"
    yield from make_calls(me)
    at.closed = True
