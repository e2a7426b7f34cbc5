"""The resource that a simulated world's jobs guard, and who should have been let in there.

The resource itself does as `distjob.fencing.Guard` does, by the fences that leases carry. It is
judged by what the store granted: who held what at the commit of each grant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.rules.fence import Fence
from distjob.rules.jobs import Slot
from distjob.testing.sim.calls import Lease
from distjob.testing.sim.judges.plain import Plain

if TYPE_CHECKING:
    from distjob.testing.sim.judges.invariants import Watch

Grant = tuple[str, int]
"""A ticket, and the version at which it was granted: one that is applied twice grants twice."""


class Resource:
    """Takes writes to all VMs, and knows whom it should have refused."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._marks: dict[str, dict[Slot, int]] = {}
        self._beside: dict[Grant, set[str]] = {}
        """Per grant, the tickets that held a job when it was made, itself among them."""
        self._wrote: dict[str, list[Grant]] = {}
        """Per VM, whose writes were taken."""

    def granted(self, ticket_id: str, version: int, new: Plain) -> None:
        """A commit has granted a job."""
        nobodys = new.running if new.left else None
        beside = {ticket["id"] for ticket in new.seats.values() if ticket is not nobodys}
        self._beside[ticket_id, version] = beside

    def write(self, lease: Lease) -> bool:
        """A holder writes; whether it was let in."""
        vm, fence = lease.call.vm, lease.held.fence
        marks = self._marks.setdefault(vm, {})
        if self.refuses(marks, fence):
            return False
        self.learn(marks, fence)
        mine = lease.held.ticket.id, lease.held.token
        wrote = self._wrote.setdefault(vm, [])
        for other, token in wrote:
            if mine[1] < token and mine[0] not in self._beside[other, token]:
                said = f"{lease.call.name} was let in after {other}, to which it was void"
                self._watch.fail("guard", said)
        if mine not in wrote:
            wrote.append(mine)
        return True

    @staticmethod
    def refuses(marks: dict[Slot, int], fence: Fence) -> bool:
        """The guard's rule."""
        return fence.passed(marks) is not None

    @staticmethod
    def learn(marks: dict[Slot, int], fence: Fence) -> None:
        """What the guard does with a fence that is good."""
        for slot, floor in fence.floors.items():
            marks[slot] = max(marks.get(slot, 0), floor)
