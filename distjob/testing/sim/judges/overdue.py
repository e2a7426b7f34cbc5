"""Who is forgotten in a simulated world: looked for every half second.

Whoever has been in the same bad way for longer than the protocol may take, counted from the last
disturbance, fails the watch. It draws nothing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from distjob.protocol.owner import PACE
from distjob.testing.sim.calls import Lease
from distjob.testing.sim.judges.plain import Plain, PlainTicket

if TYPE_CHECKING:
    from distjob.testing.sim.judges.invariants import Watch


class _Stuck(NamedTuple):
    invariant: str
    why: str
    most: float
    """Seconds, beside what everything takes."""


class Overdue:
    """Remembers since when who is stuck."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._since: dict[str, float] = {}

    def tick(self) -> None:
        """Every half second: is anybody forgotten?"""
        watch, world = self.watch, self.watch.world
        for calls in watch.open.values():
            for call in calls:
                if not call.machine.asleep:
                    watch.on_time(call)
        stuck = dict(self._all())
        self._since = {key: self._since.get(key, world.now) for key in stuck}
        slack = 1.0 + 0.5 + (3.0 if world.profile.lossy else 0.0)
        for key, (invariant, why, most) in stuck.items():
            if world.now - max(self._since[key], world.disturbed) > slack + most:
                watch.fail(invariant, f"{key}: {why}")

    def _all(self) -> Iterator[tuple[str, _Stuck]]:
        for vm, state in self.watch.states.items():
            would = self.watch.commits.alive_only(vm)
            for ticket in state.owned():
                if found := self._forgotten(vm, ticket, state, would):
                    yield ticket["id"], found
        for leases in self.watch.held.values():
            for lease in leases:
                if lease.believed():
                    yield from self._untold(lease)

    def _forgotten(self, vm: str, ticket: PlainTicket, state: Plain, would: Plain) -> _Stuck | None:
        world, call = self.watch.world, self.watch.calls[ticket["api"]]
        nobodys = _Stuck("in time", f"nobody has it any more, {vm}: {state}", world.ttl)
        most = world.ttl if world.profile.deaf or world.profile.slow else 0.0
        if not world.server.alive(ticket["session"]):
            return None
        if not call.open and (call.lease is None or not call.lease.believed()):
            return nobodys
        mine = call.machine.me.session
        if mine is None or mine.id != ticket["session"]:
            return nobodys
        seated = any(seat["id"] == ticket["id"] for seat in state.seats.values())
        if seated and call.open and call.wait is not None and not call.aborts:
            return _Stuck("in time", f"it was let in and does not know, {vm}: {state}", most)
        if not seated and any(seat["id"] == ticket["id"] for seat in would.seats.values()):
            return _Stuck("in time", f"it waits for the dead, {vm}: {state}", most)
        return None

    def _untold(self, lease: Lease) -> Iterator[tuple[str, _Stuck]]:
        """What a holder should have heard. Wake-ups that are lost in silence are made up for by
        nothing: no store of ours loses them so.
        """
        watch, world, machine = self.watch, self.watch.world, lease.call.machine
        mine, vm = lease.held.ticket.id, lease.call.vm
        taken = watch.force.taken.get(mine)
        if world.profile.deaf:
            return
        late = world.ttl if world.profile.slow else 0.0
        if taken is not None and (lease.held.long or machine.disturbed < taken):
            listens = machine.me.pushed or lease.held.long
            most = late + (0.0 if listens else world.ttl)
            yield f"{mine} taken", _Stuck("force told", f"{lease.call.name} was not told", most)
        state = watch.states.get(vm, Plain())
        running = state.running
        if running is None or running["id"] != mine or state.left:
            return
        if state.long["abort"] and lease.held.abort is None:
            why = f"{lease.call.name} has not heard, {vm}: {state}"
            yield f"{mine} to abort", _Stuck("abort heard", why, late)
        said = lease.progress
        if said is not None and (state.long["progress"] or {}).get("done") != said.done:
            why = f"{lease.call.name} has come to {said}, {vm} has {state.long['progress']}"
            yield f"{mine} {said}", _Stuck("phase kept", why, PACE + world.ttl)
