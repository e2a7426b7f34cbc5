"""What must hold at each commit of a simulated world: the rules once more, and who may do what.

It is told of every commit as the store makes it, recomputes by plain.py what the record should have
become, and fails the watch if it is not that. What is special to async jobs is in longwatch.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from distjob.testing.sim.calls import Asking, Call, Hand
from distjob.testing.sim.judges.plain import Plain, PlainTicket, outlives

if TYPE_CHECKING:
    from distjob.testing.sim.judges.invariants import Watch
    from distjob.testing.sim.machine import Machine


class Parts(NamedTuple):
    """What a commit consists of, seen from outside."""

    here: Machine
    author: str
    came: list[PlainTicket]
    """What the author has brought in; one at most."""
    heir: PlainTicket | None
    """The one of them that has adopted the async job."""
    own: set[str]
    """Tickets that the author has ended, withdrawn or left."""
    dead: set[str]
    """Tickets of sessions that have ended."""
    either: set[str]
    """Tickets of the same controller's other sessions: one or the other."""
    forced: set[str]
    """Tickets that were taken out by force."""


class Commits:
    """Judges commits, and what the record says at a moment."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.granted: dict[str, set[int]] = {}
        """By ticket, the tokens that it was granted."""
        self._tokens: dict[tuple[str, str], int] = {}
        self._asked: dict[str, int] = {}
        """By ticket, when it was asked for last: a count."""
        self._count = 0

    def committed(self, vm: str, author: str, version: int, value: bytes | None) -> None:
        """A commit was made."""
        watch = self.watch
        if not watch.world.server.alive(author):
            watch.fail("life and death", f"{vm}: a commit of {author}, which has ended")
        asking = (*watch.open.get(vm, ()), *watch.force.hands.get(vm, ()))
        self.judge(vm, asking)
        old, new = watch.states.get(vm, Plain()), Plain(value)
        watch.states[vm] = new
        watch.authors.add(author)
        self._check_tokens(vm, version, old, new)
        parts = self._parts(vm, author, old, new)
        watch.long.check(vm, old, new, parts)
        self._check_rules(vm, old, new, parts)
        watch.force.took(vm, old, parts)
        for lease in watch.believers(vm):
            mine = lease.held.ticket.id
            seats = [new.seats.get(slot, {}).get("id") for slot in lease.slots]
            if any(seat != mine for seat in seats) or (new.left and "async" in lease.slots):
                watch.fail("one holder", f"{lease.call.name} believes, and the store has {new}")
        self.judge(vm, asking)

    def _check_tokens(self, vm: str, version: int, old: Plain, new: Plain) -> None:
        for slot, ticket in new.seats.items():
            key, known = (vm, slot), old.seats.get(slot)
            if known and known["id"] == ticket["id"]:
                if new.tokens[slot] not in self.granted[ticket["id"]]:
                    self.watch.fail("tokens rise", f"{vm} {slot}: became {new.tokens[slot]}")
                continue
            if version <= self._tokens.get(key, 0) or new.tokens[slot]:
                said = f"{vm} {slot}: {version} after {self._tokens.get(key)}"
                self.watch.fail("tokens rise", said)
            self._tokens[key] = version
            self.granted.setdefault(ticket["id"], set()).add(version)
            self.watch.resource.granted(ticket["id"], version, new)

    def _parts(self, vm: str, author: str, old: Plain, new: Plain) -> Parts:
        """Who came, who ended, who was voided and who was taken out by force."""
        watch = self.watch
        was, now = {t["id"]: t for t in old.tickets()}, {t["id"]: t for t in new.tickets()}
        came = [now[ticket_id] for ticket_id in now.keys() - was.keys()]
        if len(came) > 1 or any(ticket["session"] != author for ticket in came):
            watch.fail("let in", f"{vm}: {author} brought in {came}")
        heir = next((t for t in came if watch.calls[t["api"]].wish.adopts), None)
        here = watch.homes[author]
        parts = Parts(here, author, came, heir, set(), set(), set(), set())
        named = watch.force.named(here, vm, old)
        gone = was.keys() - now.keys()
        for ticket_id in gone:
            ticket = was[ticket_id]
            parent = ticket.get("parent")
            by_force = ticket_id in named or (
                parent in named and (parent in gone or ticket["session"] != author)
            )
            if ticket is old.running and old.left:
                if heir is not None:
                    continue
                if by_force:
                    parts.forced.add(ticket_id)
                else:
                    watch.fail("owner loss", f"{vm}: {ticket_id} was left, and {author} freed it")
            elif by_force and watch.world.server.alive(ticket["session"]):
                parts.forced.add(ticket_id)
            else:
                self._parted(vm, ticket, parts)
        running = old.running
        if running and not old.left and running["id"] in now and new.left == "orphaned":
            self._parted(vm, running, parts)
        if running and running["id"] in gone and not old.left and heir is None:
            if running["id"] not in named:
                watch.long.freed(vm, running, parts)
            elif outlives(running):
                parts.forced.add(running["id"])
        return parts

    def _parted(self, vm: str, ticket: PlainTicket, parts: Parts) -> None:
        """A ticket has gone, or its async job was left, and not by force."""
        watch, session = self.watch, ticket["session"]
        if session == parts.author:
            parts.own.add(ticket["id"])
        elif watch.homes[session] is parts.here:
            parts.either.add(ticket["id"])
        elif watch.world.server.alive(session):
            watch.fail("life and death", f"{vm}: {ticket['id']} was voided, its session lives")
        else:
            watch.world.seen["evicted"] += 1
            parts.dead.add(ticket["id"])

    def _check_rules(self, vm: str, old: Plain, new: Plain, parts: Parts) -> None:
        """Recompute: who is in by that."""
        watch, world, came = self.watch, self.watch.world, parts.came
        dead, own, either = parts.dead, parts.own, parts.either
        seated = [t for t in new.seats.values() if t not in old.seats.values()]
        for ticket in (*seated, *new.queue):
            if ticket.get("job") == "async nested" and not new.may_step(ticket):
                watch.fail("steps", f"{vm}: {ticket['id']} is not the owner's: {new}")
        first = _next(old, new, dead | either, own, parts)
        if first != new and _next(old, new, dead, own | either, parts) != new:
            watch.fail("let in", f"{vm}: {old} became {new}, the rules say {first}")
        if old.long["mask"] != new.long["mask"] and old.running == new.running:
            world.seen["let in by mask"] += len(old.queue) > len(new.queue)
        cleared = old.copy()
        cleared.void(dead | either)
        cleared.let_in()
        if came and cleared.full(came[0], parts.here.me.max_queued):
            watch.fail("let in", f"{vm}: {came[0]['id']} is more than max_queued")
        for ticket in came:
            self._count += 1
            self._asked[ticket["id"]] = self._count
        waiting = [self._asked[ticket["id"]] for ticket in new.queue]
        if waiting != sorted(waiting):
            watch.fail("let in", f"{vm}: the queue is not in the order of asking: {new}")
        world.seen["waited"] += bool(came and new.queue and new.queue[-1] is came[0])

    # -- what is true at a moment --------------------------------------------------------------

    def judge(self, vm: str, asking: Iterable[Asking]) -> None:
        """Whether refusing these would be right at this moment."""
        state: Plain | None = None
        for one in asking:
            state = state or self.alive_only(vm)
            running = state.running
            kind = one.wish.kind if isinstance(one, Call) and one.wish.adopts else None
            fits = running is not None and kind in (None, running["kind"])
            one.none = one.none or not fits
            one.owned = one.owned or (fits and not state.left)
            one.left = one.left or (fits and bool(state.left))
            if isinstance(one, Call):
                one.busy = one.busy or not state.may_start(one.ticket)
                one.full = one.full or state.full(one.ticket, self.watch.world.max_queued)
            elif isinstance(one, Hand):
                one.released = one.released or self._released(vm)

    def _released(self, vm: str) -> bool:
        """Whether the async job's owner has ended, and its job with it."""
        state = self.watch.states.get(vm, Plain())
        running = state.running
        if running is None or state.left or outlives(running):
            return False
        return not self.watch.world.server.alive(running["session"])

    def alive_only(self, vm: str) -> Plain:
        """The record without the dead, as the next comer would make it."""
        alive, state = self.watch.world.server.alive, self.watch.states.get(vm, Plain())
        gone = [t["id"] for t in state.owned() if not alive(t["session"])]
        if gone:
            state = state.copy()
            state.void(gone)
            state.let_in()
        return state


def _next(old: Plain, new: Plain, voided: set[str], ended: set[str], parts: Parts) -> Plain:
    """What the rules make of ``old``: first the dead are voided, then the author's own change."""
    state = old.copy()
    if voided:
        state.void(voided)
        state.let_in()
    state.force(parts.forced)
    running, after = state.running, new.running
    if running and running["id"] in ended and new.left == "orphaned":
        state.void(ended)
    else:
        detached = running and new.left == "detached" and not state.left
        state.remove(ended - {running["id"]} if running and detached else ended)
        if detached:
            state.detach()
    if after and state.running and after["id"] == state.running["id"]:
        state.long = {**new.long, "left": state.left}
    if parts.heir:
        state.adopt(parts.heir)
    state.let_in()
    for ticket in parts.came:
        if ticket is not parts.heir:
            state.add(ticket)
    return state
