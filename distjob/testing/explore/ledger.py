"""What the users of a run asked for and were told. It judges nothing."""

from __future__ import annotations

from distjob.protocol.parts import HeldJob, Wish
from distjob.testing.explore.stage import Controller, Task
from distjob.testing.sim.judges.plain import PlainTicket, slots_of


class Call:
    """One begin call, or an adoption."""

    def __init__(
        self,
        name: str,
        at: Controller,
        vm: str,
        wish: Wish,
        wait: float | None,
        fails: tuple[str, ...],
    ) -> None:
        self.name = name
        self.at = at
        self.vm = vm
        self.wish = wish._replace(api=name)
        self.wait = wait
        self.fails = fails
        """The errors that it may come to without a fault."""
        self.open = True
        """It has not returned."""
        self.lease: Lease | None = None

    @property
    def slots(self) -> list[str]:
        ticket: PlainTicket = {"job": self.wish.job, "agent": self.wish.agent}
        return slots_of(ticket)


class Lease:
    """A job that its user was told is held."""

    def __init__(self, call: Call, held: HeldJob) -> None:
        self.call = call
        self.held = held
        self.parting = ""
        """``end`` or ``detach``, once its user has called that."""
        self.over = False
        """Its user does not act on it any more."""

    def believed(self) -> bool:
        """Whether its user acts on it, if it heeds the deadline of its own clock."""
        at = self.call.at
        if self.over or self.parting or not at.up or at.stopped:
            return False
        return self.held.holds(at.monotonic())


class Ledger:
    """All of it."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.leases: list[Lease] = []
        self.hands: list[tuple[Controller, str]] = []
        """Who was to take whose ticket by force; "" stands for what was left."""
        self.struck: set[str] = set()
        """Tasks that were cancelled."""

    def calls_begin(
        self, at: Controller, vm: str, wish: Wish, wait: float | None, fails: tuple[str, ...]
    ) -> Call:
        """A user calls begin. Names are counted for each controller: others' steps change none."""
        number = sum(call.at is at for call in self.calls.values()) + 1
        call = Call(f"{at.name}{number}", at, vm, wish, wait, fails)
        self.calls[call.name] = call
        return call

    def granted(self, call: Call, held: HeldJob) -> Lease:
        call.open = False
        lease = call.lease = Lease(call, held)
        self.leases.append(lease)
        return lease

    def cancelled(self, task: Task) -> None:
        self.struck.add(task.name)

    def believers(self, vm: str) -> list[Lease]:
        """The leases of a VM that their users act on."""
        return [lease for lease in self.leases if lease.call.vm == vm and lease.believed()]

    def may_take(self, author: Controller, ticket_id: str) -> bool:
        """Whether a user of this controller has laid hand on that ticket."""
        return any(at is author and named in ("", ticket_id) for at, named in self.hands)
