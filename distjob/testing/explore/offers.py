"""What else could happen at a step of a run."""

from __future__ import annotations

from collections.abc import Iterator

from distjob.protocol.effects import CloseSession, Commit, KeepAlive, OpenSession, Settle
from distjob.testing.explore.deviations import Deviation
from distjob.testing.explore.schedule import Schedule
from distjob.testing.explore.stage import Controller, Pending

_CHANGES = (Commit, OpenSession, KeepAlive, CloseSession, Settle)


def offers(schedule: Schedule) -> Iterator[Deviation]:
    """All deviations of this step; the first of what is pending is what usually happens."""
    pending, touched = schedule.pending, schedule.touched
    for number in range(1, len(pending)):
        if any(pending[number].conflicts(earlier) for earlier in pending[:number]):
            yield Deviation("first", number=number)
    if schedule.timers:
        yield Deviation("early")
    yield from map(Deviation, _of(pending[0]))
    for at in schedule.controllers:
        if at in touched and at.up and not at.stopped:
            yield from _to(schedule, at)
    if schedule.net in touched:
        yield Deviation("emptied")
    touched.clear()


def _of(step: Pending) -> Iterator[str]:
    """What may become of this step."""
    if step.kind == "request":
        yield from ("refused", "lost")
        if isinstance(step.what, _CHANGES):
            yield "unheard"
        if isinstance(step.what, Commit):
            yield "late"
    elif step.kind == "mail":
        yield from ("deaf", "missed", "twice")
    elif step.answers and step.task is not None and step.task.background:
        yield "surprise"


def _to(schedule: Schedule, at: Controller) -> Iterator[Deviation]:
    """What may happen to this controller."""
    yield Deviation("crash", at.name)
    if any(step.at is at and step.kind == "request" for step in schedule.pending):
        yield Deviation("vanish", at.name)
    yield Deviation("stop", at.name)
    for user in schedule.users:
        if user.at is at and user.busy and not user.done:
            yield Deviation("cancel", user.task.name)
            leases = schedule.judges.ledger.leases
            if not any(lease.call.at is at and not lease.over for lease in leases):
                yield Deviation("drop", user.task.name)
