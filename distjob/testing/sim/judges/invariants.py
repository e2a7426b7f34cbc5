"""What must hold in a simulated world, at every commit, at every step of a user, and at its end.

The watch sees what the store really holds and what each user was told, and compares: a user never
sees the store, the store never sees who believes what. It judges by the rules of plain.py, draws
nothing and changes nothing. Commits are judged in commits.py, what is special to async jobs in
longwatch.py, writes to what the jobs guard in resource.py, who is forgotten in overdue.py. A broken
invariant raises `Violated` with its name:

    one holder          two who believe that they hold a slot, or one whose job is not in the store
    tokens rise         a grant's token is not larger than every earlier one of its VM and slot
    guard               the resource took the write of one whose job was void to a grant that had
                        written before, or refused a polite holder
    let in              a commit let in others than the oldest that may start, or too many
    steps               a step let in that is not of the async job's owner
    life and death      a commit voided a job of a session that lives, or is of one that has ended
    owner loss          an async job ended with its owner and should have stayed, or the reverse
    phase kept          phase, mask or progress lost, late, or changed by another than the owner
    abort heard         a request to abort that its owner does not hear of, or that nobody made
    force told          a job taken by force whose holder is not told, or whose late end succeeds
    true refusals       told "busy", "full", "timed out", "no owner" or the like, and it was not so
    in time             a begin that outlasts its wait, a waiter that nobody wakes, a job of nobody
    nothing left        values, sessions or state that stay behind
    no false alarm      trouble reported where there was none; a loss not told, or told twice
    no surprise         an operation ended with an error that is not distjob's, or not this one's
    no spinning         steps without end (raised by the world)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from distjob.errors import (
    BackendUnavailable,
    ClientClosed,
    DistjobError,
    JobTimeout,
    LeaseLost,
    NotOwner,
    OutcomeUnknown,
    QueueFull,
    WrongJob,
)
from distjob.protocol.look import JobStatus
from distjob.protocol.parts import HeldJob, Wish
from distjob.testing.sim.calls import Asking, Call, Lease, Violated
from distjob.testing.sim.judges.aftermath import Aftermath
from distjob.testing.sim.judges.commits import Commits
from distjob.testing.sim.judges.forcewatch import ForceWatch
from distjob.testing.sim.judges.longwatch import LongWatch
from distjob.testing.sim.judges.overdue import Overdue
from distjob.testing.sim.judges.plain import Plain
from distjob.testing.sim.resource import Resource

if TYPE_CHECKING:
    from distjob.testing.sim.machine import Machine
    from distjob.testing.sim.world import World


class Watch:
    """Sees everything."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: dict[str, Call] = {}
        self.open: dict[str, list[Call]] = {}
        """Per VM, the begin calls that have not returned."""
        self.leases: dict[str, Lease] = {}
        """By ticket."""
        self.held: dict[str, list[Lease]] = {}
        """Per VM, the leases that are not over, and some that are."""
        self.homes: dict[str, Machine] = {}
        """Which controller opened a session."""
        self.authors: set[str] = set()
        self.states: dict[str, Plain] = {}
        self.commits = Commits(self)
        self.long = LongWatch(self)
        self.force = ForceWatch(self)
        self.overdue = Overdue(self)
        self.end = Aftermath(self)
        self.resource = Resource(self)
        self._lost_sessions: set[str] = set()

    def fail(self, invariant: str, message: str) -> NoReturn:
        """Stop the world."""
        raise Violated(invariant, f"at {self.world.now:.4f}: {invariant}: {message}")

    # -- what users are told -------------------------------------------------------------------

    def calls_begin(self, machine: Machine, vm: str, wish: Wish, wait: float | None) -> Call:
        """A user calls begin, or what begins a job."""
        call = Call(machine, f"job{len(self.calls) + 1}", vm, wish, wait, self.world.now)
        self.calls[call.name] = call
        self.open.setdefault(vm, []).append(call)
        self.commits.judge(vm, [call])
        how = "no wait" if wait is None else f"wait {wait:.2f}"
        what = "adopt" if wish.adopts else "begin"
        self.world.log(machine.name, f"{call.name}: {what} {vm} {wish.job} {wish.agent}, {how}")
        return call

    def returned(self, call: Call, held: HeldJob | None) -> Lease | None:
        """A begin has returned."""
        self._close(call)
        if held is None:
            self.world.seen["busy"] += 1
            if call.wait is not None or not call.busy:
                self.fail("true refusals", f"{call.name} was told busy, and nothing was in its way")
            return None
        lease = call.lease = self.leases[held.ticket.id] = Lease(call, held, self.world.now)
        self.world.seen["granted"] += 1
        if held.token not in self.commits.granted.get(held.ticket.id, ()):
            self.fail("tokens rise", f"{call.name} has token {held.token}, granted otherwise")
        for other in self.believers(call.vm):
            if set(other.slots) & set(lease.slots) and self._counts(lease):
                self.fail("one holder", f"{call.name} and {other.call.name} hold a slot")
        if call.wish.adopts:
            self.long.adopted(lease)
        self.held.setdefault(call.vm, []).append(lease)
        return lease

    def raised(self, call: Call, error: BaseException) -> None:
        """A begin has raised."""
        if call.machine.crashed:
            return
        self.commits.judge(call.vm, [call])
        self._close(call)
        self.world.seen[type(error).__name__] += 1
        match error:
            case JobTimeout():
                self._check_timeout(call, error)
            case QueueFull():
                if not call.full:
                    self.fail("true refusals", f"{call.name} was told full, which it never was")
            case NotOwner() if call.wish.adopts:
                self.check_refusal(call, error, right=call.owned)
            case WrongJob() if call.wish.adopts or call.aborts:
                self.check_refusal(call, error, right=call.none)
            case NotOwner():
                parent = self.leases.get(call.wish.parent)
                if parent is None or self._counts(parent):
                    self.fail("true refusals", f"{call.name} is a step of what is held")
            case LeaseLost() | OutcomeUnknown() | BackendUnavailable() | ClientClosed():
                self.excused_error(call, error)
            case DistjobError():
                self.fail("no surprise", f"{call.name}: {error!r}")

    def _check_timeout(self, call: Call, error: JobTimeout) -> None:
        if call.wait is None or (self.world.now - call.started) * 1.04 < call.wait:
            self.fail("true refusals", f"{call.name} timed out before its time")
        if not (error.blockers or call.machine.excused or call.wish.parent):
            self.fail("true refusals", f"{call.name} timed out, nobody in its way")

    def check_refusal(self, asking: Asking, error: DistjobError, *, right: bool) -> None:
        """Of what asks for another's async job."""
        what = "adopt" if isinstance(asking, Call) and asking.wish.adopts else "other"
        if not right:
            self.fail("true refusals", f"{asking.name}: {error}")
        self.world.seen[f"{what} refused: {type(error).__name__}"] += 1
        self.world.seen[f"{what} lost the race"] += asking.left

    def let_go(self, lease: Lease, *, forced: bool) -> None:
        """An end or a detach has returned; ``forced``: the job had been taken before it began."""
        if forced and not lease.call.machine.excused:
            self.fail("force told", f"{lease.call.name} was taken by force, and has ended well")
        lease.ended_well = True
        if lease.call.leaving:
            self.long.parted(lease)

    def told_lost(self, lease: Lease) -> None:
        """A user was told that the lease is lost, and stops."""
        self.world.seen["lease lost"] += 1
        lease.lost_in_use = lease.lost_in_use or not lease.over
        lease.over, lease.call.ended = True, False
        if lease.held.ticket.id in self.force.taken:
            self.world.seen["told of force"] += 1
        elif not lease.call.machine.excused:
            self.fail("no false alarm", f"{lease.call.name} is lost, and there was no fault")

    def change_refused(self, lease: Lease, error: DistjobError) -> None:
        """A change of mask, phase or progress has raised."""
        if isinstance(error, NotOwner) and self._counts(lease):
            self.fail("no surprise", f"{lease.call.name}: {error}")
        self.excused_error(lease.call, error)

    def excused_error(self, asking: Asking, error: DistjobError) -> None:
        """Trouble that may be reported only where there is some."""
        machine = asking.machine
        right = machine.me.closing if isinstance(error, ClientClosed) else machine.excused
        by_force = isinstance(error, LeaseLost) and (
            self.force.hit(asking) or asking.vm in self.world.net.resent
        )
        if not (right or by_force):
            self.fail("no false alarm", f"{asking.name}: {error!r}")

    def crashed(self, machine: Machine) -> None:
        """Its calls will never return."""
        for call in self.calls.values():
            if call.machine is machine and call.open:
                self._close(call)
        for hands in self.force.hands.values():
            for hand in hands:
                hand.open = hand.open and hand.machine is not machine

    def _close(self, call: Call) -> None:
        call.open = False
        self.open[call.vm].remove(call)
        if not call.machine.crashed:
            self.on_time(call)

    def on_time(self, call: Call) -> None:
        """It has not lasted too long."""
        since = max(call.started, call.machine.disturbed)
        if self.world.now - since > call.longest * 1.04:
            self.fail("in time", f"{call.name} outlasts its wait of {call.wait}")

    # -- what is done to others' jobs ----------------------------------------------------------

    def aborted(self, call: Call, status: JobStatus) -> None:
        """A request to abort was acknowledged."""
        self._close(call)
        self.long.aborted(call, status)

    # -- the guarded resource ------------------------------------------------------------------

    def writes(self, lease: Lease) -> None:
        """A holder writes to what the job guards, with its fence."""
        fence = lease.held.fence
        accepted = self.resource.write(lease)
        self.world.log(lease.call.name, f"writes with {fence}", accepted)
        if not accepted:
            self.world.seen["write refused"] += 1
            if self.world.polite and not self._forgotten(lease):
                self.fail("guard", f"{lease.call.name} is polite, its {fence} was refused")
        for other in self.believers(lease.call.vm):
            if other is not lease and set(other.slots) & set(lease.slots) and self._counts(lease):
                self.fail("one holder", f"{lease.call.name} and {other.call.name} both write")

    def believers(self, vm: str) -> Iterator[Lease]:
        """The leases that their users believe in, while the store keeps its word."""
        leases = self.held[vm] = [lease for lease in self.held.get(vm, ()) if not lease.over]
        for lease in leases:
            if self._counts(lease):
                yield lease

    def _counts(self, lease: Lease) -> bool:
        """Believed, and nobody has broken it."""
        return not self._forgotten(lease) and lease.believed()

    def _forgotten(self, lease: Lease) -> bool:
        """The store has lost its session, or it was taken away by force."""
        return (
            lease.held.session.id in self._lost_sessions or lease.held.ticket.id in self.force.taken
        )

    # -- what the store does -------------------------------------------------------------------

    def wiped(self) -> None:
        """The store has lost all data."""
        self.states.clear()
        self._lost_sessions.update(self.homes)
        for machine in self.world.machines:
            machine.excused = True
        for vm in {*self.open, *self.force.hands}:
            self.commits.judge(vm, (*self.open.get(vm, ()), *self.force.hands.get(vm, ())))
