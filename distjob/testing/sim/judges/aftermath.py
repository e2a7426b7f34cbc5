"""What must hold when a simulated world has come to rest, when all have closed, and in the end.

As the rest of the watch it draws nothing and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.testing.sim.calls import Lease
from distjob.testing.sim.judges.plain import Plain

if TYPE_CHECKING:
    from distjob.testing.sim.judges.invariants import Watch
    from distjob.testing.sim.world import World


class Aftermath:
    """Judges what stays behind."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def at_rest(self) -> None:
        """All users have gone home, and everybody had time to tidy up. Who was left may stay."""
        server, world = self.watch.world.server, self.watch.world
        lost = [session for session in self.watch.authors if not server.alive(session)]
        world.unclean = world.unclean or any(self.watch.homes[session].up for session in lost)
        for vm, calls in self.watch.open.items():
            if calls:
                self.watch.fail("in time", f"{vm}: {calls[0].name} never returned")
        for vm, version in server.scan():
            state = Plain(version.value)
            living = [t["id"] for t in state.owned() if server.alive(t["session"])]
            if living or not (world.unclean or state.left):
                self.watch.fail("nothing left", f"{vm}: {state}, of which alive: {living}")
        for machine in world.machines:
            me = machine.me
            if machine.up and (
                me.waiters or me.leftovers or me.holdings.by_vm or me.holdings.unsaid
            ):
                left = f"{me.waiters} {me.leftovers} {me.holdings.by_vm} {me.holdings.unsaid}"
                self.watch.fail("nothing left", f"controller {machine.name}: {left}")
            world.seen["old view kept"] += len(me.views) if machine.up else 0
        for lease in self.watch.leases.values():
            self._check_told(lease)

    def _check_told(self, lease: Lease) -> None:
        machine = lease.call.machine
        if lease.told > 1 or (lease.told and lease.ended_well):
            self.watch.fail("no false alarm", f"{lease.call.name} was told of its loss wrongly")
        if lease.listens and lease.lost_in_use and not lease.told and machine.up:
            self.watch.fail("no false alarm", f"{lease.call.name} was not told of its loss")
        if lease.abort_told > 1:
            self.watch.fail("abort heard", f"{lease.call.name} was told twice")

    def closed(self, world: World) -> None:
        """All controllers have closed or crashed."""
        if open_ := [machine.name for machine in world.machines if machine.up]:
            self.watch.fail("in time", f"close never returned: {open_}")
        values = {vm: Plain(version.value) for vm, version in world.server.scan()}
        world.orphans = any(state.running for state in values.values())
        owned = [f"{vm}: {state}" for vm, state in values.items() if any(state.owned())]
        if not world.unclean and (left := [*owned, *world.server.living()]):
            self.watch.fail("nothing left", f"{left}")

    def clean(self, world: World) -> None:
        """The janitor has gone, too."""
        for vm, version in world.server.scan():
            self.watch.fail("nothing left", f"{vm}: {Plain(version.value)}")
        if left := world.server.living():
            self.watch.fail("nothing left", f"sessions: {left}")
