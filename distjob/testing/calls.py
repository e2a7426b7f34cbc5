"""What the users of a simulated world asked for and what they were told: calls and leases.

The user's side only; what the store holds is the watch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.protocol.begin import GRACE
from distjob.protocol.controller import Held, Wish
from distjob.testing.faults import TIMEOUT
from distjob.testing.plain import PlainTicket, slots_of

if TYPE_CHECKING:
    from distjob.testing.machine import Machine


class Violated(AssertionError):
    """An invariant did not hold."""

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(message)
        self.invariant = invariant


class Call:
    """One begin call, from its user's side."""

    def __init__(
        self, machine: Machine, name: str, vm: str, wish: Wish, wait: float | None, started: float
    ) -> None:
        self.machine = machine
        self.name = name
        self.vm = vm
        self.wish = wish._replace(api=name)
        self.wait = wait
        self.started = started
        self.open = True
        """It has not returned."""
        self.ending = False
        """The end of its job is under way."""
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
        return (GRACE if self.wait is None else self.wait) + 2 * (GRACE + 0.5) + 6 * TIMEOUT


class Lease:
    """A job that its user was told is held."""

    def __init__(self, call: Call, held: Held) -> None:
        self.call = call
        self.held = held
        self.over = False
        """Its user does not act on it any more."""
        self.ended_well = False
        self.listens = False
        self.lost_in_use = False
        """Its user found it lost before calling end."""
        self.told = 0
        """How often its user was told of the loss."""
        self.slots = slots_of(call.ticket)

    def believed(self) -> bool:
        """Whether its user, looking at the local deadline only, acts on it."""
        machine, session = self.call.machine, self.held.session
        if self.over or not machine.up or machine.asleep or not session.alive:
            return False
        return machine.clock.monotonic() < session.deadline
