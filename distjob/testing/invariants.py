"""What must hold in a simulated world, at every commit, at every step of a user, and at its end.

The watch sees what the store really holds and what each user was told, and compares: a user never
sees the store, the store never sees who believes what. It judges by the rules of plain.py, draws
nothing and changes nothing. A broken invariant raises `Violated` with its name:

    one holder          two who believe that they hold a slot, or one whose job is not in the store
    tokens rise         a grant's token is not larger than every earlier one of its VM and slot
    guard               the resource took an older token after a newer, or refused a polite holder
    let in              a commit let in others than the oldest that may start, or too many
    life and death      a commit voided a job of a session that lives, or is of one that has ended
    true refusals       told "busy", "full" or "timed out" while nothing was in the way
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
)
from distjob.protocol.controller import Held, Wish
from distjob.testing.calls import Call, Lease, Violated
from distjob.testing.plain import Plain, PlainTicket

if TYPE_CHECKING:
    from distjob.testing.machine import Machine
    from distjob.testing.world import World


_NOBODYS = "nobody has it any more"


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
        self.states: dict[str, Plain] = {}
        self._tokens: dict[tuple[str, str], int] = {}
        self._granted: dict[str, set[int]] = {}
        self._asked: dict[str, int] = {}
        self._marks: dict[tuple[str, str], int] = {}
        self._accepted: dict[tuple[str, str], int] = {}
        self._since: dict[str, float] = {}
        self._lost_sessions: set[str] = set()
        self._authors: set[str] = set()

    def fail(self, invariant: str, message: str) -> NoReturn:
        """Stop the world."""
        raise Violated(invariant, f"at {self.world.now:.4f}: {invariant}: {message}")

    # -- what users are told -------------------------------------------------------------------

    def calls_begin(self, machine: Machine, vm: str, wish: Wish, wait: float | None) -> Call:
        """A user calls begin."""
        call = Call(machine, f"job{len(self.calls) + 1}", vm, wish, wait, self.world.now)
        self.calls[call.name] = call
        self.open.setdefault(vm, []).append(call)
        self._judge(vm, [call])
        how = "no wait" if wait is None else f"wait {wait:.2f}"
        self.world.log(machine.name, f"{call.name}: begin {vm} {wish.job} {wish.agent}, {how}")
        return call

    def returned(self, call: Call, held: Held | None) -> Lease | None:
        """A begin has returned."""
        self._close(call)
        if held is None:
            self.world.seen["busy"] += 1
            if call.wait is not None or not call.busy:
                self.fail("true refusals", f"{call.name} was told busy, and nothing was in its way")
            return None
        lease = call.lease = self.leases[held.ticket.id] = Lease(call, held)
        self.world.seen["granted"] += 1
        if held.token not in self._granted.get(held.ticket.id, ()):
            self.fail("tokens rise", f"{call.name} has token {held.token}, granted otherwise")
        for other in self._believers(call.vm):
            if set(other.slots) & set(lease.slots) and self._counts(lease):
                self.fail("one holder", f"{call.name} and {other.call.name} hold a slot")
        self.held.setdefault(call.vm, []).append(lease)
        return lease

    def raised(self, call: Call, error: BaseException) -> None:
        """A begin has raised."""
        if call.machine.crashed:
            return
        self._close(call)
        self.world.seen[type(error).__name__] += 1
        match error:
            case JobTimeout():
                waited = (self.world.now - call.started) * 1.04
                if call.wait is None or waited < call.wait:
                    self.fail("true refusals", f"{call.name} timed out before its time")
                if not (error.blockers or call.machine.excused or call.wish.parent):
                    self.fail("true refusals", f"{call.name} timed out, nobody in its way")
            case QueueFull():
                if not call.full:
                    self.fail("true refusals", f"{call.name} was told full, which it never was")
            case NotOwner():
                parent = self.leases.get(call.wish.parent)
                if parent is None or self._counts(parent):
                    self.fail("true refusals", f"{call.name} is a step of what is held")
            case LeaseLost() | OutcomeUnknown() | BackendUnavailable() | ClientClosed():
                self.excused_error(call, error)
            case DistjobError():
                self.fail("no surprise", f"{call.name}: {error!r}")

    def told_lost(self, lease: Lease) -> None:
        """A user was told that the lease is lost, and stops."""
        self.world.seen["lease lost"] += 1
        lease.lost_in_use = lease.lost_in_use or not lease.over
        lease.over = True
        if not lease.call.machine.excused:
            self.fail("no false alarm", f"{lease.call.name} is lost, and there was no fault")

    def mask_refused(self, lease: Lease, error: DistjobError) -> None:
        """A change of the mask has raised."""
        if isinstance(error, NotOwner) and self._counts(lease):
            self.fail("no surprise", f"{lease.call.name}: {error}")
        self.excused_error(lease.call, error)

    def excused_error(self, call: Call, error: DistjobError) -> None:
        """Trouble that may be reported only where there is some."""
        closed = isinstance(error, ClientClosed)
        if not (call.machine.me.closing if closed else call.machine.excused):
            self.fail("no false alarm", f"{call.name}: {error!r}")

    def crashed(self, machine: Machine) -> None:
        """Its calls will never return."""
        for call in self.calls.values():
            if call.machine is machine and call.open:
                self._close(call)

    def _close(self, call: Call) -> None:
        call.open = False
        self.open[call.vm].remove(call)
        if not call.machine.crashed:
            self._on_time(call)

    def _on_time(self, call: Call) -> None:
        since = max(call.started, call.machine.disturbed)
        if self.world.now - since > call.longest * 1.04:
            self.fail("in time", f"{call.name} outlasts its wait of {call.wait}")

    # -- the guarded resource ------------------------------------------------------------------

    def writes(self, lease: Lease) -> None:
        """A holder writes to what the job guards, with its token."""
        token = lease.held.token
        for slot in lease.slots:
            key = lease.call.vm, slot
            accepted = self.admits(self._marks.get(key, 0), token)
            self.world.log(lease.call.name, f"writes with {token}", accepted)
            if accepted:
                self._marks[key] = token
                if token < self._accepted.get(key, 0):
                    self.fail("guard", f"{lease.call.name}: {token} was taken after a newer token")
                self._accepted[key] = token
            else:
                self.world.seen["write refused"] += 1
                if self.world.polite and lease.held.session.id not in self._lost_sessions:
                    self.fail("guard", f"{lease.call.name} is polite, its {token} was refused")
        for other in self._believers(lease.call.vm):
            if other is not lease and set(other.slots) & set(lease.slots) and self._counts(lease):
                self.fail("one holder", f"{lease.call.name} and {other.call.name} both write")

    @staticmethod
    def admits(highest: int, token: int) -> bool:
        """The guard's rule, as in `distjob.fencing`."""
        return token >= highest

    def _believers(self, vm: str) -> Iterator[Lease]:
        leases = self.held[vm] = [lease for lease in self.held.get(vm, ()) if not lease.over]
        for lease in leases:
            if self._counts(lease):
                yield lease

    def _counts(self, lease: Lease) -> bool:
        """Believed, and the store has kept its word."""
        return lease.held.session.id not in self._lost_sessions and lease.believed()

    # -- what the store does -------------------------------------------------------------------

    def wiped(self) -> None:
        """The store has lost all data."""
        self.states.clear()
        self._lost_sessions.update(self.homes)
        for machine in self.world.machines:
            machine.excused = True

    def committed(self, vm: str, author: str, version: int, value: bytes | None) -> None:
        """A commit was made."""
        if not self.world.server.alive(author):
            self.fail("life and death", f"{vm}: a commit of {author}, which has ended")
        old, new = self.states.get(vm, Plain()), Plain(value)
        self.states[vm] = new
        self._authors.add(author)
        self._check_tokens(vm, version, old, new)
        self._check_who(vm, author, old, new)
        for lease in self._believers(vm):
            seats = [new.seats.get(slot, {}).get("id") for slot in lease.slots]
            if any(seat != lease.held.ticket.id for seat in seats):
                self.fail("one holder", f"{lease.call.name} believes, and the store has {new}")
        self._judge(vm, self.open.get(vm, ()))

    def _check_tokens(self, vm: str, version: int, old: Plain, new: Plain) -> None:
        for slot, ticket in new.seats.items():
            key, known = (vm, slot), old.seats.get(slot)
            if known and known["id"] == ticket["id"]:
                if new.tokens[slot] not in self._granted[ticket["id"]]:
                    self.fail("tokens rise", f"{vm} {slot}: token became {new.tokens[slot]}")
                continue
            if version <= self._tokens.get(key, 0) or new.tokens[slot]:
                self.fail("tokens rise", f"{vm} {slot}: {version} after {self._tokens.get(key)}")
            self._tokens[key] = version
            self._granted.setdefault(ticket["id"], set()).add(version)

    def _check_who(self, vm: str, author: str, old: Plain, new: Plain) -> None:
        """Recompute: who was voided, who ended, who came, and who is in by that."""
        world, here, alive = self.world, self.homes[author], self.world.server.alive
        was, now = {t["id"]: t for t in old.tickets()}, {t["id"]: t for t in new.tickets()}
        own, dead, either = set[str](), set[str](), set[str]()
        for ticket_id in was.keys() - now.keys():
            session = was[ticket_id]["session"]
            if session == author:
                own.add(ticket_id)
            elif self.homes[session] is here:
                either.add(ticket_id)
            elif alive(session):
                self.fail("life and death", f"{vm}: {ticket_id} was voided, its session lives")
            else:
                world.seen["evicted"] += 1
                dead.add(ticket_id)
        came = [now[ticket_id] for ticket_id in now.keys() - was.keys()]
        for ticket in came:
            self._asked[ticket["id"]] = len(self._asked)
        first = _next(old, new, dead | either, own, came)
        if first != new and _next(old, new, dead, own | either, came) != new:
            self.fail("let in", f"{vm}: {old} became {new}, the rules say {first}")
        if len(came) > 1 or any(ticket["session"] != author for ticket in came):
            self.fail("let in", f"{vm}: {author} brought in {came}")
        if old.mask != new.mask and (seat := new.seats.get("async")) == old.seats.get("async"):
            if seat is None or self.homes[seat["session"]] is not here:
                self.fail("let in", f"{vm}: the mask was changed by {author}")
            world.seen["let in by mask"] += len(old.queue) > len(new.queue)
        cleared = old.copy()
        cleared.remove(dead | either)
        cleared.let_in()
        if came and cleared.full(came[0], here.me.max_queued):
            self.fail("let in", f"{vm}: {came[0]['id']} is more than max_queued")
        waiting = [self._asked[ticket["id"]] for ticket in new.queue]
        if waiting != sorted(waiting):
            self.fail("let in", f"{vm}: the queue is not in the order of asking: {new}")
        world.seen["waited"] += bool(came and new.queue and new.queue[-1] is came[0])

    def _judge(self, vm: str, calls: list[Call] | tuple[Call, ...]) -> None:
        """Whether refusing these would be right at this moment."""
        doubtful = [call for call in calls if not (call.busy and call.full)]
        if not doubtful:
            return
        state = self._alive_only(vm)
        for call in doubtful:
            ticket = call.ticket
            call.busy = call.busy or not state.may_start(ticket)
            call.full = call.full or state.full(ticket, self.world.max_queued)

    def _alive_only(self, vm: str) -> Plain:
        """The record without the dead, as the next comer would make it."""
        alive, state = self.world.server.alive, self.states.get(vm, Plain())
        gone = [t["id"] for t in state.tickets() if not alive(t["session"])]
        if gone:
            state = state.copy()
            state.remove(gone)
            state.let_in()
        return state

    # -- time ----------------------------------------------------------------------------------

    def tick(self) -> None:
        """Every half second: is anybody forgotten?"""
        world, stuck = self.world, dict[str, str]()
        for calls in self.open.values():
            for call in calls:
                if not call.machine.asleep:
                    self._on_time(call)
        for vm, state in self.states.items():
            would = self._alive_only(vm)
            for ticket in state.tickets():
                if why := self._forgotten(ticket, state, would):
                    stuck[ticket["id"]] = f"{why}, {vm}: {state}"
        self._since = {key: self._since.get(key, world.now) for key in stuck}
        slack = 3.0 if world.profile.lossy else 0.0
        for key, why in stuck.items():
            quick = not why.startswith(_NOBODYS) and not (world.profile.deaf or world.profile.slow)
            most = 1.0 + 0.5 + slack + (0.0 if quick else world.ttl)
            if world.now - max(self._since[key], world.disturbed) > most:
                self.fail("in time", f"{key}: {why}")

    def _forgotten(self, ticket: PlainTicket, state: Plain, would: Plain) -> str:
        world, call = self.world, self.calls[ticket["api"]]
        if not world.server.alive(ticket["session"]):
            return ""
        if not call.open and (call.lease is None or not call.lease.believed()):
            return _NOBODYS
        mine = call.machine.me.session
        if mine is None or mine.id != ticket["session"]:
            return _NOBODYS
        seated = any(seat["id"] == ticket["id"] for seat in state.seats.values())
        if seated and call.open and call.wait is not None:
            return "it was let in and does not know"
        if not seated and any(seat["id"] == ticket["id"] for seat in would.seats.values()):
            return "it waits for the dead"
        return ""

    # -- the end -------------------------------------------------------------------------------

    def at_rest(self) -> None:
        """All users have gone home, and everybody had time to tidy up."""
        server, world = self.world.server, self.world
        lost = [session for session in self._authors if not server.alive(session)]
        world.unclean = world.unclean or any(self.homes[session].up for session in lost)
        for vm, calls in self.open.items():
            if calls:
                self.fail("in time", f"{vm}: {calls[0].name} never returned")
        for vm, version in server.scan():
            state = Plain(version.value)
            living = [t["id"] for t in state.tickets() if server.alive(t["session"])]
            if living or not world.unclean:
                self.fail("nothing left", f"{vm}: {state}, of which alive: {living}")
        for machine in world.machines:
            me = machine.me
            if machine.up and (me.waiters or me.leftovers):
                left = f"{me.waiters} {me.leftovers}"
                self.fail("nothing left", f"controller {machine.name}: {left}")
            world.seen["old view kept"] += len(me.views) if machine.up else 0
        for lease in self.leases.values():
            self._check_told(lease)

    def _check_told(self, lease: Lease) -> None:
        machine = lease.call.machine
        if lease.told > 1 or (lease.told and lease.ended_well):
            self.fail("no false alarm", f"{lease.call.name} was told of its loss wrongly")
        if lease.listens and lease.lost_in_use and not lease.told and machine.up:
            self.fail("no false alarm", f"{lease.call.name} was not told of its loss")

    def closed(self, world: World) -> None:
        """All controllers have closed or crashed."""
        if open_ := [machine.name for machine in world.machines if machine.up]:
            self.fail("in time", f"close never returned: {open_}")
        if not world.unclean and (left := [*world.server.scan(), *world.server.living()]):
            self.fail("nothing left", f"{left}")

    def clean(self, world: World) -> None:
        """The janitor has gone, too."""
        for vm, version in world.server.scan():
            self.fail("nothing left", f"{vm}: {Plain(version.value)}")
        if left := world.server.living():
            self.fail("nothing left", f"sessions: {left}")


def _next(
    old: Plain, new: Plain, voided: set[str], ended: set[str], came: list[PlainTicket]
) -> Plain:
    """What the rules make of ``old``: first the dead are voided, then the author's own change."""
    state = old.copy()
    if voided:
        state.remove(voided)
        state.let_in()
    state.remove(ended)
    seat = state.seats.get("async")
    if seat is not None and seat == old.seats.get("async") == new.seats.get("async"):
        state.mask = new.mask
    state.let_in()
    for ticket in came:
        state.add(ticket)
    return state
