"""What may happen at a step instead of the usual, and doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from distjob.testing.explore.schedule import Schedule
    from distjob.testing.explore.stage import Controller, Task

LONG_STOP = 1.2
"""TTLs that a controller stands still."""


class Cancelled(BaseException):
    """What a cancellation throws into an operation."""


class Surprise(Exception):
    """An error that no store should raise."""


class Deviation(NamedTuple):
    """What happens at a step instead of the usual."""

    kind: str
    who: str = ""
    """A controller's or a task's name."""
    number: int = 0

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.who, str(self.number or ""))))


Plan = tuple[tuple[int, Deviation], ...]


class Stop(Exception):
    """What follows was seen already."""


def deviate(schedule: Schedule, deviation: Deviation) -> None:
    """Something else than usual."""
    kind, who, number = deviation
    pending = schedule.pending
    match kind:
        case "first":
            schedule.take(pending.pop(number))
        case "early":
            schedule.pending = []
            schedule.fire()
            schedule.pending += pending
        case "refused" | "lost" | "unheard" | "late":
            schedule.net.fail(pending.pop(0), kind, number)
        case "deaf" | "missed" | "twice":
            schedule.net.mishear(pending.pop(0), kind)
        case "surprise":
            step = pending.pop(0)
            schedule.take(step._replace(what=None, error=Surprise("nobody expects this")))
        case "cancel" | "drop":
            _cancel(schedule, schedule.task(who), drop=kind == "drop")
        case "crash" | "vanish":
            _crash(schedule, schedule.controller(who), vanish=kind == "vanish")
        case "stop":
            _stop(schedule, schedule.controller(who))
        case "emptied":
            schedule.net.lose_data()
        case _:
            raise ValueError(f"no such deviation: {deviation}")


def _cancel(schedule: Schedule, task: Task, *, drop: bool) -> None:
    schedule.judges.ledger.cancelled(task)
    if not drop:
        schedule.resume(task, None, Cancelled())
        return
    schedule.touched.add(task.at)
    task.at.history = hash((task.at.history, task.name, schedule.now, "dropped"))
    schedule.timers.pop(task.name, None)
    task.turn += 1
    task.op.close()
    schedule.ended(task)


def _crash(schedule: Schedule, at: Controller, *, vanish: bool) -> None:
    at.crashed = True
    at.excuse = at.excuse or "crash"
    for task in at.tasks:
        schedule.timers.pop(task.name, None)
        task.turn += 1
        task.done = True
    for task in at.tasks:
        task.op.close()
    schedule.timers.pop(at.name, None)
    at.history = hash((at.history, "crashed"))
    schedule.pending = [
        step
        for step in schedule.pending
        if step.at is not at or (step.kind == "request" and not vanish)
    ]


def _stop(schedule: Schedule, at: Controller) -> None:
    at.stopped = True
    at.excuse = at.excuse or "stop"
    mine = [step for step in schedule.pending if step.at is at and step.kind != "request"]
    schedule.pending = [step for step in schedule.pending if step not in mine]
    at.backlog += mine
    schedule.timer(at.name, LONG_STOP * schedule.ttl, lambda: _go_on(schedule, at))


def _go_on(schedule: Schedule, at: Controller) -> None:
    at.stopped = False
    backlog, at.backlog = at.backlog, []
    for step in backlog:
        schedule.add(step)
