"""What must hold of jobs that are taken by force in a simulated world, by discard and by evict.

Told of commits by commits.py, and by the users of what they want to take and are told of it. As the
rest of the watch it draws nothing and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.errors import (
    BackendUnavailable,
    ClientClosed,
    DistjobError,
    NotOwner,
    OutcomeUnknown,
    WrongJob,
)
from distjob.testing.sim.calls import Asking, Hand
from distjob.testing.sim.judges.commits import Parts
from distjob.testing.sim.judges.plain import Plain, outlives

if TYPE_CHECKING:
    from distjob.testing.sim.judges.invariants import Watch
    from distjob.testing.sim.machine import Machine


class ForceWatch:
    """Judges what is taken by force."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.hands: dict[str, list[Hand]] = {}
        """Per VM, the discards and evictions."""
        self.taken: dict[str, float] = {}
        """Tickets that were taken out by force, and when."""
        self._hit: set[str] = set()
        """The calls that they were of."""

    def named(self, here: Machine, vm: str, old: Plain) -> set[str]:
        """The tickets that this controller may take out by force now."""
        running, named = old.running, set[str]()
        alive = self.watch.world.server.alive
        for hand in self.hands.get(vm, ()):
            if hand.machine is not here or not hand.stands:
                continue
            if hand.tickets is not None:
                named |= hand.tickets
            elif running and (old.left or (outlives(running) and not alive(running["session"]))):
                named.add(running["id"])
        return named

    def lays_hand_on(self, machine: Machine, vm: str, tickets: frozenset[str] | None) -> Hand:
        """A user discards the async job, or evicts these tickets by force."""
        count = sum(map(len, self.hands.values()))
        hand = Hand(machine, f"hand{count + 1}", vm, tickets, self.watch.world.now)
        self.hands.setdefault(vm, []).append(hand)
        self.watch.commits.judge(vm, [hand])
        what = "discard" if tickets is None else f"evict {sorted(tickets)}"
        self.watch.world.log(machine.name, f"{hand.name}: {what} {vm}")
        return hand

    def returned(self, hand: Hand, tickets: set[str]) -> None:
        """It has said what it took out."""
        hand.open = hand.stands = False
        self.watch.world.seen["discarded" if hand.tickets is None else "evicted by force"] += 1
        self._check_told(hand, tickets)

    def raised(self, hand: Hand, error: BaseException) -> None:
        """It has failed, or was cancelled."""
        if hand.machine.crashed:
            return
        self.watch.commits.judge(hand.vm, [hand])
        hand.open = False
        match error:
            case NotOwner() | WrongJob():
                hand.stands = False
                right = hand.owned if isinstance(error, NotOwner) else hand.none
                self.watch.check_refusal(hand, error, right=right)
            case OutcomeUnknown() | BackendUnavailable() | ClientClosed():
                hand.stands = isinstance(error, OutcomeUnknown)
                self.watch.excused_error(hand, error)
            case DistjobError():
                self.watch.fail("no surprise", f"{hand.name}: {error!r}")

    def took(self, vm: str, old: Plain, parts: Parts) -> None:
        """A commit took these out by force."""
        for ticket in parts.came:
            self.taken.pop(ticket["id"], None)
        if not parts.forced:
            return
        nobodys = old.running if old.left else None
        for ticket in old.tickets():
            if ticket["id"] in parts.forced and ticket is not nobodys:
                self.taken[ticket["id"]] = self.watch.world.now
                self._hit.add(ticket["api"])
                self.watch.world.seen["taken by force"] += 1
        hands = [h for h in self.hands.get(vm, ()) if h.machine is parts.here and h.stands]
        for hand in hands:
            hand.took |= parts.forced
            hand.shared |= parts.forced if len(hands) > 1 else set()

    def hit(self, asking: Asking) -> bool:
        """Whether the ticket of this call was taken out by force at some time."""
        return asking.name in self._hit

    def _check_told(self, hand: Hand, tickets: set[str]) -> None:
        """A discard or an eviction has said what it took out."""
        excused, resent = hand.machine.excused, hand.vm in self.watch.world.net.resent
        if hand.tickets is None:
            mine = {self.watch.long.born(ticket) for ticket in tickets}
            now = self.watch.states.get(hand.vm, Plain()).running
            gone = now is None or self.watch.long.born(now["id"]) not in mine
            right = hand.took >= tickets or hand.released or (excused and gone)
        else:
            missed = hand.took - hand.shared - tickets
            right = resent or (not missed and (excused or tickets <= hand.took))
        if not right:
            self.watch.fail("true refusals", f"{hand.name} took {hand.took}, and said {tickets}")
