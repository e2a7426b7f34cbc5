"""What the users of a simulated world asked for and what they were told: calls, leases, hands.

The user's side only; what the store holds is the watch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.protocol.change import GRACE
from distjob.protocol.parts import HeldJob, Wish
from distjob.rules.ticket import Progress
from distjob.testing.sim.faults import TIMEOUT
from distjob.testing.sim.judges.plain import PlainTicket, slots_of

if TYPE_CHECKING:
    from distjob.testing.sim.machine import Machine


class Violated(AssertionError):
    """An invariant did not hold."""

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(message)
        self.invariant = invariant


class Asking:
    """One call of a user, while it is open."""

    def __init__(self, machine: Machine, name: str, vm: str, started: float) -> None:
        self.machine = machine
        self.name = name
        self.vm = vm
        self.started = started
        self.open = True
        """It has not returned."""
        self.owned = False
        """At some moment since its start an async job had an owner who lived."""
        self.none = False
        """At some moment since its start no async job ran, or none of the type asked for."""
        self.left = False
        """At some moment since its start the async job was left."""


class Call(Asking):
    """One begin call, from its user's side; an adoption is one, and so is a request to abort."""

    def __init__(
        self, machine: Machine, name: str, vm: str, wish: Wish, wait: float | None, started: float
    ) -> None:
        super().__init__(machine, name, vm, started)
        self.wish = wish._replace(api=name)
        self.wait = wait
        self.ending = False
        """The end of its job is under way."""
        self.ended = False
        """Its user has called end."""
        self.leaving = False
        """Its user has called detach."""
        self.acting = False
        """Something that its user does with the job is under way."""
        self.aborts = False
        """It asks another's job to abort: the client itself ends what it begins."""
        self.asked = ""
        """The ticket of the async job that it has asked to abort."""
        self.busy = False
        """At some moment since its start it could not start."""
        self.full = False
        """At some moment since its start ``max_queued`` kept it out."""
        self.lease: Lease | None = None

    @property
    def ticket(self) -> PlainTicket:
        return {"id": "", "job": self.wish.job, "agent": self.wish.agent}

    @property
    def longest(self) -> float:
        """Seconds after which it must have returned: two more rounds, each with its last tries."""
        begin = (GRACE if self.wait is None else self.wait) + 2 * (GRACE + 0.5) + 6 * TIMEOUT
        return begin + (self.machine.me.ttl / 2 + 4 * TIMEOUT if self.aborts else 0.0)


class Hand(Asking):
    """One discard, or one eviction by force: what is done to another's job without a ticket."""

    def __init__(
        self, machine: Machine, name: str, vm: str, tickets: frozenset[str] | None, started: float
    ) -> None:
        super().__init__(machine, name, vm, started)
        self.tickets = tickets
        """None: it discards the async job, if that has no owner."""
        self.stands = True
        """A commit of it may still be made."""
        self.took = set[str]()
        """The tickets that commits of its controller have taken out, as it wants."""
        self.shared = set[str]()
        """Those of them that another hand of its controller wanted, too."""
        self.released = False
        """At some moment since its start an async job of an ended session was to be released."""


class Lease:
    """A job that its user was told is held."""

    def __init__(self, call: Call, held: HeldJob, since: float) -> None:
        self.call = call
        self.held = held
        self.since = since
        self.over = False
        """Its user does not act on it any more."""
        self.ended_well = False
        self.listens = False
        self.lost_in_use = False
        """Its user found it lost before calling end."""
        self.told = 0
        """How often its user was told of the loss."""
        self.abort_listens = False
        self.abort_told = 0
        """How often its user was told by a callback that it is to abort."""
        self.progress: Progress | None = None
        """What its user said last, if that was acknowledged."""
        self.slots = slots_of(call.ticket)

    def believed(self) -> bool:
        """Whether its user, knowing what its client does, acts on it."""
        machine, session = self.call.machine, self.held.session
        if self.over or not machine.up or machine.asleep or not session.alive or self.held.taken:
            return False
        return machine.clock.monotonic() < session.deadline
