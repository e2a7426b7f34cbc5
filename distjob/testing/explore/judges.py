"""What must hold in a run: at every commit, and whenever nothing is pending.

The judges see what the store holds and what users were told. They judge by the rules of plain.py
and share no code with the worlds' watch. What must hold in the end is aftermath.py's.

    one holder      two users who believe that they hold a slot, by the deadline of their own clock,
                    or one whose job is not in the store
    masks           let in what the async job keeps out, or a step that is not its owner's
    let in          a commit let in others than the oldest that may start
    tokens          a grant's token is not its commit's version, or not larger than all before
    life and death  a commit took a living one's ticket that nobody had laid hand on
    lost wake-ups   nothing is pending, and one sleeps who was let in, or whom the dead keep out
    nobody's        nothing is pending, and a ticket in the store is known to nobody
    no surprise     an operation ended with an error that is not distjob's, or without a reason
    no spinning     steps without end (raised by the schedule)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from distjob.errors import DistjobError, JobTimeout
from distjob.rules.ticket import AsyncHolder
from distjob.testing.explore.ledger import Call, Lease, Ledger
from distjob.testing.explore.stage import Controller
from distjob.testing.sim.calls import Violated
from distjob.testing.sim.judges.plain import Plain, PlainTicket

if TYPE_CHECKING:
    from distjob.testing.explore.schedule import Schedule

SOON = 1.5
"""Seconds within which what is overdue must happen."""


class Judges:
    """Sees all of a run."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.ledger = Ledger()
        self.states: dict[str, Plain] = {}
        self.tokens: dict[str, int] = {}
        """By VM, the version of the last commit that granted anything."""
        self.versions: dict[str, int] = {}
        """By ticket, the version of the commit that granted it."""
        self.since: dict[tuple[str, str], float] = {}
        """When something that is overdue was noticed first."""

    def fail(self, invariant: str, message: str) -> NoReturn:
        """Stop the run."""
        raise Violated(invariant, f"at {self.schedule.now:.3f}: {invariant}: {message}")

    def state(self) -> int:
        """A hash of what later judgements depend on, besides what users were told."""
        since = frozenset(self.since.items())
        return hash((tuple(self.tokens.items()), since, frozenset(self.ledger.struck)))

    # -- what users are told -------------------------------------------------------------------

    def granted(self, lease: Lease) -> None:
        """A begin has returned a job."""
        call = lease.call
        if lease.held.token != self.versions.get(lease.held.ticket.id):
            self.fail("tokens", f"{call.name} has {lease.held.token}, which was never granted")
        self._believers(call.vm)

    def raised(
        self, at: Controller, name: str, error: DistjobError, fails: tuple[str, ...]
    ) -> None:
        """An operation has raised."""
        told = type(error).__name__
        if told in fails or at.crashed:
            return
        if isinstance(error, JobTimeout) and self._left(error):
            return  # whether somebody knows of it is asked in the end
        ours = ("LeaseLost", "OutcomeUnknown", "BackendUnavailable", "ClientClosed")
        if told in ours and (at.excuse or at.me.closing):
            return
        if told in ("NotOwner", "WrongJob", "LeaseLost") and at.excuse:
            return  # of a step, or of what was left: its job was lost in between
        if told == "LeaseLost" and any(named for _, named in self.ledger.hands):
            return
        self.fail("no surprise", f"{name}: {error!r}")

    def _left(self, error: JobTimeout) -> bool:
        """Whether an async job is in the way that nobody owns."""
        holders = [one for one in error.blockers if isinstance(one, AsyncHolder)]
        return any(one.owner_gone for one in holders)

    # -- at a commit ---------------------------------------------------------------------------

    def committed(self, vm: str, author: str, version: int, value: bytes | None) -> None:
        """A commit was made."""
        old, new = self.states.get(vm, Plain()), Plain(value)
        self.states[vm] = new
        self._tokens(vm, version, old, new)
        self._rules(vm, old, new)
        self._taken(vm, author, old, new)
        self._believers(vm)

    def emptied(self) -> None:
        """The store has lost all data."""
        self.states.clear()

    def _tokens(self, vm: str, version: int, old: Plain, new: Plain) -> None:
        granted = False
        for slot, ticket in new.seats.items():
            known = old.seats.get(slot)
            if known and known["id"] == ticket["id"]:
                if old.tokens[slot] and new.tokens[slot] != old.tokens[slot]:
                    self.fail("tokens", f"{vm} {slot}: {old.tokens[slot]} has changed: {new}")
                continue
            if version <= self.tokens.get(vm, 0) or new.tokens[slot]:
                self.fail("tokens", f"{vm} {slot}: {version} after {self.tokens.get(vm)}")
            granted = True
            self.versions[ticket["id"]] = version
        if granted:
            self.tokens[vm] = version

    def _rules(self, vm: str, old: Plain, new: Plain) -> None:
        """Take out whom this commit has let in, and let in again."""
        was = {ticket["id"] for ticket in old.seats.values()}
        came = {ticket["id"]: ticket for ticket in new.seats.values() if ticket["id"] not in was}
        heir = new.seats.get("async", {}).get("id") if "async" in old.seats else None
        came.pop(heir, None)
        for ticket in came.values():
            if ticket.get("job") == "async nested" and not new.may_step(ticket):
                self.fail("masks", f"{vm}: {ticket['id']} is no step of {new.running}")
        again = new.copy()
        again.remove(came)
        again.queue = [t for t in old.queue if t["id"] in came or t in new.queue]
        again.let_in()
        again.seated.clear()
        known = {ticket["id"] for ticket in (*old.queue, *was_tickets(old))}
        for ticket in (*came.values(), *new.queue):
            if ticket["id"] not in known:
                again.add(ticket)
        seats = [{slot: t["id"] for slot, t in one.seats.items()} for one in (again, new)]
        lines = [[ticket["id"] for ticket in one.queue] for one in (again, new)]
        if seats[0] != seats[1] or lines[0] != lines[1]:
            masked = any(
                t.get("job") not in (None, "async", "async nested", *new.long["mask"])
                for t in came.values()
            )
            what = "masks" if masked and new.running and heir else "let in"
            self.fail(what, f"{vm}: {old} became {new}, by the rules {again}")

    def _taken(self, vm: str, author: str, old: Plain, new: Plain) -> None:
        net, here = self.schedule.net, self.schedule.net.homes[author]
        still = new.ids()
        for ticket in old.tickets():
            session, ticket_id = ticket["session"], ticket["id"]
            if ticket_id in still or net.homes[session] is here:
                continue
            left = ticket is old.running and old.left
            if not left and not net.server.alive(session):
                stays = ticket is old.running and outlives(old) and not new.left
                if stays and not (
                    self._adopted(here, new) or self.ledger.may_take(here, ticket_id)
                ):
                    self.fail("life and death", f"{vm}: {ticket_id} should be an orphan")
                continue
            if left and self._adopted(here, new):
                continue
            names = (ticket_id, ticket.get("parent", ""))
            if not any(self.ledger.may_take(here, name) for name in names):
                self.fail("life and death", f"{vm}: {author} took {ticket_id}: {old} -> {new}")

    def _adopted(self, here: Controller, new: Plain) -> bool:
        heir = new.running
        return heir is not None and self.schedule.net.homes[heir["session"]] is here

    def _believers(self, vm: str) -> None:
        state, taken = self.states.get(vm, Plain()), dict[str, Lease]()
        for lease in self.ledger.believers(vm):
            if lease.held.session.id in self.schedule.net.forgotten:
                continue
            if self.ledger.hands and not lease.held.taken and self._forced(lease):
                continue
            for slot in lease.call.slots:
                if slot in taken:
                    names = f"{lease.call.name} and {taken[slot].call.name}"
                    self.fail("one holder", f"{vm}: {names} hold the {slot} slot")
                taken[slot] = lease
                seat = state.seats.get(slot, {}).get("id")
                if seat != lease.held.ticket.id or (slot == "async" and state.left):
                    self.fail("one holder", f"{lease.call.name} believes, the store has {state}")

    def _forced(self, lease: Lease) -> bool:
        """Whether somebody was to take it by force: it is told of that a little later."""
        return any(named == lease.held.ticket.id for _, named in self.ledger.hands)

    # -- when nothing is pending ---------------------------------------------------------------

    def rest(self) -> None:
        """Nothing is pending: what happens next is that time goes on."""
        for vm in self.states:
            self._believers(vm)
        noticed = dict[tuple[str, str], float]()
        for vm, state in self.states.items():
            for ticket in state.tickets():
                if what := self._overdue(vm, state, ticket):
                    key = (what, ticket["id"])
                    noticed[key] = self.since.get(key, self.schedule.now)
                    if self.schedule.now - noticed[key] > self._patience(what, ticket):
                        text = f"{vm}: {ticket['id']} since {noticed[key]:.3f}: {state}"
                        self.fail(what, text)
        self.since = noticed

    def _overdue(self, vm: str, state: Plain, ticket: PlainTicket) -> str:
        """What is wrong with this ticket, unless it passes soon."""
        at = self.schedule.net.homes[ticket["session"]]
        session = at.me.session
        if not at.up or at.hindered or session is None or session.id != ticket["session"]:
            return ""
        if not self.schedule.net.server.alive(session.id):
            return ""
        if ticket is state.running and state.left:
            return ""
        call = self.ledger.calls.get(ticket["api"])
        if call is not None and call.open:
            seated = any(ticket["id"] == seat["id"] for seat in state.seats.values())
            return "lost wake-ups" if seated or self._only_the_dead(state, ticket) else ""
        return "" if self._known(at, vm, ticket, call) else "nobody's"

    def _patience(self, what: str, ticket: PlainTicket) -> float:
        at = self.schedule.net.homes[ticket["session"]]
        if what == "lost wake-ups" and at.deaf:
            return self.schedule.ttl
        hurt = [one for one in self.schedule.controllers if one.excuse or one.deaf]
        if len(hurt) > 1 or any(one.closed for one in hurt):
            return self.schedule.ttl / 2 + SOON  # a witness died, or one was closed in a commit
        return SOON if what == "nobody's" or hurt else 0.0

    def _only_the_dead(self, state: Plain, ticket: PlainTicket) -> bool:
        """Whether it could start if those were out whose sessions have ended."""
        alive, rest = self.schedule.net.server.alive, state.copy()
        dead = {t["id"] for t in state.owned() if not alive(t["session"])}
        if not dead:
            return False
        rest.void(dead)
        rest.let_in()
        return any(ticket["id"] == seat["id"] for seat in rest.seats.values())

    def _known(self, at: Controller, vm: str, ticket: PlainTicket, call: Call | None) -> bool:
        me, ticket_id = at.me, ticket["id"]
        if call is not None and call.lease is not None and not call.lease.over:
            return True
        assert me.session is not None
        doubted = vm in me.session.doubts or (vm, ticket_id) in me.leftovers
        return doubted or any(held.ticket.id == ticket_id for held in me.holdings.being_ended())


def outlives(state: Plain) -> bool:
    """Whether the async job would be left, and not end, with its owner's session."""
    if state.running is None:
        return False
    without = state.copy()
    without.void([state.running["id"]])
    return bool(without.left)


def was_tickets(old: Plain) -> list[PlainTicket]:
    """Who had a slot."""
    return list(old.seats.values())
