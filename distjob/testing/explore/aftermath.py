"""What must hold when all users of a run are done, when all clients are closed, and in the end.

nobody's       a ticket in the store of a session that lives, which nobody has
orphans        an async job was left that nobody was ever told is held, or whose end was begun
record empty   a newcomer is kept out, or something stays in the store behind it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.protocol import outside
from distjob.protocol.effects import Op, Wait, ask
from distjob.rules.jobs import AgentJob, AsyncJob, Job
from distjob.testing.explore.judges import outlives
from distjob.testing.explore.users import User, closing, connect
from distjob.testing.sim.judges.plain import Plain

if TYPE_CHECKING:
    from distjob.testing.explore.judges import Judges
    from distjob.testing.explore.schedule import Schedule

CALM = 1.0
"""Seconds in which what was left is taken out: hands that listen are roused."""


def judge_the_end(schedule: Schedule, judges: Judges) -> None:
    """Let all come to rest, close all, and let a newcomer look."""
    schedule.go_on(lambda: not any(at.stopped for at in schedule.controllers), 2 * schedule.ttl)
    schedule.go_on(lambda: False, CALM)
    _at_rest(schedule, judges)
    for at in schedule.controllers:
        if at.up:
            schedule.start(at, "close", closing(at))
    schedule.go_on(lambda: not any(at.up for at in schedule.controllers), 60.0)
    orphans = _closed(schedule, judges)
    if not schedule.net.server.scan():
        return
    schedule.go_on(lambda: False, schedule.ttl)
    at = connect(schedule, "z")
    schedule.start(at, "w", _newcomer(schedule, User(judges, at), orphans))
    schedule.go_on(lambda: at.closed, 60.0)
    for vm, value in schedule.net.server.scan():
        judges.fail("record empty", f"{vm}: {Plain(value.value)}")


def _at_rest(schedule: Schedule, judges: Judges) -> None:
    for vm, state in judges.states.items():
        for ticket in state.owned():
            at = schedule.net.homes[ticket["session"]]
            if at.up and at.me.session is not None and at.me.session.id == ticket["session"]:
                judges.fail("nobody's", f"{vm}: {ticket['id']}, and all are done: {state}")
    for at in schedule.controllers:
        me = at.me
        if at.up and (me.waiters or me.leftovers or me.holdings.by_vm or me.turns.taken()):
            left = f"{me.waiters} {me.leftovers} {me.holdings.by_vm} {me.turns.taken()}"
            judges.fail("nobody's", f"controller {at.name}: {left}")


def _closed(schedule: Schedule, judges: Judges) -> dict[str, str]:
    """The VMs whose async job was left, with its ticket."""
    orphans = dict[str, str]()
    for vm, state in judges.states.items():
        running = state.running
        if running is not None and (state.left or outlives(state)):
            orphans[vm] = running["id"]
            if not _known(schedule, judges, vm, state):
                judges.fail("orphans", f"{vm}: nobody has {running['id']}: {state}")
        for ticket in state.owned():
            at = schedule.net.homes[ticket["session"]]
            if at.closed and not at.excuse:
                judges.fail("nobody's", f"{vm}: {at.name} was closed: {state}")
    return orphans


def _known(schedule: Schedule, judges: Judges, vm: str, state: Plain) -> bool:
    """Whether somebody was told of the async job that was left, and had not ended it."""
    assert state.running is not None
    ticket = state.running["id"]
    leases = [one for one in judges.ledger.leases if one.call.vm == vm]
    if state.left == "detached":
        return any(lease.parting == "detach" for lease in leases)
    mine = [lease for lease in leases if lease.held.ticket.id == ticket]
    if schedule.net.homes[state.running["session"]].excuse:
        return bool(mine) or bool(state.long.get("outlives"))  # confirmed by its owner
    return any(lease.parting != "end" for lease in mine)


def _newcomer(schedule: Schedule, user: User, orphans: dict[str, str]) -> Op[None]:
    """One who begins and ends a job of each VM that any other would keep out."""
    while user.me.session is None:
        yield from ask(Wait(0.01))
    for vm in [vm for vm, _ in schedule.net.server.scan()]:
        if vm in orphans:
            user.judges.ledger.hands.append((user.at, ""))
            yield from outside.discard(user.me, vm)
        all_ways = user.begin(vm, kind=AsyncJob.START, agent=AgentJob.QUERY, wait=1.0)
        lease = yield from all_ways
        if lease is None:
            user.judges.fail("record empty", f"{vm}: a newcomer is kept out")
        yield from user.end(lease)
        step = yield from user.begin(vm, Job.MODIFY, wait=1.0)
        yield from user.end(step)
    yield from closing(user.at)
