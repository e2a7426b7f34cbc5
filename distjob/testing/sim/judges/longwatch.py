"""What must hold of async jobs in a simulated world: who owns them, what is kept, who is told.

Told of commits by commits.py, and by the users of what they say and hear. As the rest of the watch
it draws nothing and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.protocol.look import JobStatus
from distjob.testing.sim.calls import Call, Lease
from distjob.testing.sim.judges.commits import Parts
from distjob.testing.sim.judges.plain import Plain, PlainTicket, outlives

if TYPE_CHECKING:
    from distjob.testing.sim.judges.invariants import Watch


class LongWatch:
    """Judges the life of async jobs."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._saying: dict[str, set[str]] = {}
        """By ticket, the phases that its owner may be setting."""
        self._born: dict[str, str] = {}
        """By ticket of an owner, that of the first owner of the same job."""
        self._found: dict[str, tuple[str, str]] = {}
        """By ticket of one who has adopted: phase and request to abort at that moment."""

    # -- commits -------------------------------------------------------------------------------

    def freed(self, vm: str, running: PlainTicket, parts: Parts) -> None:
        """A job was freed while it had an owner, and not by force."""
        call = self.watch.calls[running["api"]]
        again = len(self.watch.commits.granted[running["id"]]) > 1  # its begin was applied twice
        given_up = call.lease is None or call.ended or again
        if outlives(running) and (running["id"] in parts.dead or not given_up):
            self.watch.fail("owner loss", f"{vm}: {running['id']} was to stay when its owner went")
        if running["id"] in parts.own and call.wish.adopts and call.lease is None:
            self.watch.fail("owner loss", f"{vm}: {call.name} adopted, was cancelled, and ended it")

    def check(self, vm: str, old: Plain, new: Plain, parts: Parts) -> None:
        """What the author has changed of the async job was its to change."""
        was, now = old.running, new.running
        if now is not None:
            first: str = was["id"] if was and parts.heir is now else now["id"]
            self._born.setdefault(now["id"], self._born.get(first, first))
        if now is None:
            self._count_loss(old, parts)
        elif was is not None and was["id"] == now["id"]:
            self._check_changes(vm, old, new, parts)
        elif parts.heir is now:
            self._check_heir(vm, old, new, parts)
        elif not new.fresh:
            self.watch.fail("phase kept", f"{vm}: a new job has what was said of another: {new}")
        for ticket_id in parts.own:
            call = self._call(old, ticket_id)
            if call is not None and call.aborts and now is not None and new.long["abort"]:
                call.asked = now["id"]

    def _check_changes(self, vm: str, old: Plain, new: Plain, parts: Parts) -> None:
        watch, running = self.watch, new.running
        assert running is not None
        home, call = watch.homes[running["session"]], watch.calls[running["api"]]
        changed = {name for name, said in new.long.items() if old.long[name] != said}
        if changed & {"mask", "phase", "progress"} and (home is not parts.here or old.left):
            watch.fail("phase kept", f"{vm}: {parts.author} changed {old} into {new}")
        said = new.long["phase"]
        if "phase" in changed and said not in self._saying.get(running["id"], ()):
            watch.fail("phase kept", f"{vm}: it became {said!r}, which its owner did not say")
        if "abort" in changed:
            asked = new.long["abort"]
            calls = [self._call(old, ticket_id) for ticket_id in parts.own]
            names = [call.name for call in calls if call is not None and call.aborts]
            if old.long["abort"] or asked is None or asked["reason"] not in names:
                watch.fail("abort heard", f"{vm}: {asked} was not asked of this job: {old}")
            watch.world.seen["asked to abort"] += 1
        if "left" not in changed:
            return
        lives = watch.world.server.alive(running["session"])
        closes = home is parts.here and home.me.closing
        late = call.ended and not call.ending and running["session"] == parts.author
        given_back = call.wish.adopts and (call.lease is None or call.lease.over)
        if old.left or not new.left:
            watch.fail("owner loss", f"{vm}: {old} became {new}")
        elif new.left == "orphaned" and (not outlives(running) or (lives and not closes)):
            watch.fail("owner loss", f"{vm}: it was orphaned, and should not have been: {old}")
        elif new.left == "orphaned" and late:
            watch.fail("owner loss", f"{vm}: its owner had called end, and left an orphan: {old}")
        elif new.left == "detached" and not (home is parts.here and (call.leaving or given_back)):
            watch.fail("owner loss", f"{vm}: it was detached, and its owner did not want that")
        else:
            watch.world.seen[f"{new.left} in phase {said or 'none'}"] += 1
            watch.world.seen["given back"] += new.left == "detached" and not call.leaving

    def _check_heir(self, vm: str, old: Plain, new: Plain, parts: Parts) -> None:
        watch, was, now = self.watch, old.running, new.running
        if was is None or now is None:
            watch.fail("owner loss", f"{vm}: {parts.heir} adopted nothing")
        if not old.left and not outlives(was):
            watch.fail("owner loss", f"{vm}: {was['id']} has ended with its owner, not been left")
        kept = {**old.long, "left": ""}
        policies = [ticket.get("on_owner_loss", "release") for ticket in (was, now)]
        if new.long != kept or was["kind"] != now["kind"] or policies[0] != policies[1]:
            watch.fail("phase kept", f"{vm}: adopted, {old} became {new}")
        self._found[now["id"]] = new.long["phase"], (new.long["abort"] or {}).get("reason", "")
        watch.world.seen[f"{old.left or 'of the dead'}, adopted"] += 1

    def _count_loss(self, old: Plain, parts: Parts) -> None:
        running = old.running
        if running and not old.left and running["id"] in parts.dead:
            self.watch.world.seen[f"released in phase {old.long['phase'] or 'none'}"] += 1

    def _call(self, state: Plain, ticket_id: str) -> Call | None:
        name = next((t["api"] for t in state.seats.values() if t["id"] == ticket_id), "")
        return self.watch.calls.get(name)

    # -- what users say and are told -----------------------------------------------------------

    def says(self, lease: Lease, phase: str) -> None:
        """An owner sets the phase."""
        self._saying.setdefault(lease.held.ticket.id, set()).add(phase)

    def said(self, lease: Lease, phase: str) -> None:
        """It was acknowledged: no other can come late."""
        self._saying[lease.held.ticket.id] = set()
        state = self._state(lease)
        if state is not None and state.long["phase"] != phase:
            self.watch.fail("phase kept", f"{lease.call.name} set {phase!r}: {state}")
        self.watch.world.seen["phase set"] += 1

    def adopted(self, lease: Lease) -> None:
        """An adoption has returned: it has found the job as it was."""
        held, found = lease.held, self._found.get(lease.held.ticket.id)
        asked = held.abort.reason if held.abort else ""
        if found is None or found[0] != held.phase or (found[1] and found[1] != asked):
            self.watch.fail("phase kept", f"{lease.call.name} adopted, and found {held.phase!r}")
        self.watch.world.seen["adopted"] += 1

    def parted(self, lease: Lease) -> None:
        """A detach was acknowledged."""
        state = self._state(lease)
        if state is not None and not state.left:
            self.watch.fail("owner loss", f"{lease.call.name} was detached: {state}")
        said = lease.progress
        if said and state and (state.long["progress"] or {}).get("done") != said.done:
            self.watch.fail("phase kept", f"{lease.call.name} had come to {said}: {state.long}")
        self.watch.world.seen["detached"] += 1

    def aborted(self, call: Call, status: JobStatus) -> None:
        """A request to abort was acknowledged."""
        excused = call.vm in self.watch.world.net.resent or (
            call.machine.excused and self.watch.force.hit(call)  # and the reply was lost, too
        )
        if call.asked != status.ticket and not excused:
            said = f"asked {status.ticket} to abort, and the store says {call.asked or 'nobody'}"
            self.watch.fail("abort heard", f"{call.name} {said}")
        self.watch.world.seen["abort"] += 1

    def born(self, ticket_id: str) -> str:
        """The ticket of the first owner of this one's job."""
        return self._born.get(ticket_id, "")

    def _state(self, lease: Lease) -> Plain | None:
        """The record, if the async job in it is this ticket's."""
        state = self.watch.states.get(lease.call.vm, Plain())
        running = state.running
        return state if running and running["id"] == lease.held.ticket.id else None
