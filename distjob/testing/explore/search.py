"""All runs of a script that deviate at most so often from its usual schedule.

A run that still may deviate notes what else could have happened at each of its steps; each of those
is a run of its own, from the start. What need not be run is said in the package's header.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from distjob import clock
from distjob.testing.explore.aftermath import judge_the_end
from distjob.testing.explore.deviations import Deviation, Plan, Stop
from distjob.testing.explore.judges import Judges
from distjob.testing.explore.offers import offers
from distjob.testing.explore.schedule import Schedule
from distjob.testing.explore.scripts import BY_NAME, TTL, Script
from distjob.testing.explore.users import User, connect
from distjob.testing.sim.calls import Violated

LONGEST = 300.0
"""Virtual seconds within which all users of any script are done."""


class Found(NamedTuple):
    """A schedule in which something did not hold."""

    plan: Plan
    invariant: str
    text: str


def play(
    script: Script,
    plan: Plan,
    scout: Callable[[Schedule], None] | None = None,
    told: Callable[[str], None] | None = None,
) -> Schedule:
    """One run; raises `Violated`, or `Stop` if the scout did."""
    schedule = Schedule(plan, ttl=TTL, tells_ends=script.tells_ends, scout=scout, told=told)
    judges = schedule.judges = Judges(schedule)
    for name in dict.fromkeys(name for name, _ in script.users):
        connect(schedule, name, max_queued=script.max_queued, pushed=script.pushed)
    try:
        schedule.go_on(lambda: all(at.me.session for at in schedule.controllers), 1.0)
        for number, (name, steps) in enumerate(script.users):
            user = User(judges, schedule.controller(name))
            user.task = schedule.start(user.at, f"w{number}", steps(user))
            schedule.users.append(user)
        schedule.open = True
        schedule.touched = {*schedule.controllers, schedule.net}
        schedule.go_on(lambda: all(user.done for user in schedule.users), LONGEST)
        schedule.open = False
        for user in schedule.users:
            if not user.done:
                judges.fail("lost wake-ups", f"{user.task} is not done after {LONGEST:g} s")
        judge_the_end(schedule, judges)
    except (Violated, Stop):
        raise
    except Exception as error:
        raise Violated("no surprise", f"at {schedule.now:.3f}: {error!r}") from error
    finally:
        for at in schedule.controllers:
            for task in at.tasks:
                task.op.close()
    return schedule


class Explorer:
    """The search through the schedules of one script."""

    def __init__(self, script: Script, depth: int) -> None:
        self.script = script
        self.depth = depth
        self.runs = 0
        self.stopped = 0
        """Runs that came to a state that was known."""
        self.found: list[Found] = []
        self._seen: dict[int, int] = {}
        """States, with how many deviations were left there."""

    def explore(
        self, start: list[Plan] | None = None, *, most: int = 0, first: bool = False
    ) -> None:
        """From these plans on; at most so many runs, or until the first violation."""
        todo = [()] if start is None else list(start)
        while todo and not (most and self.runs >= most) and not (first and self.found):
            todo += self.run(todo.pop())

    def run(self, plan: Plan) -> list[Plan]:
        """One run, and what is to be run because of it."""
        self.runs += 1
        left = self.depth - len(plan)
        further: list[Plan] = []

        def scout(schedule: Schedule) -> None:
            if not left and schedule.pending:
                return  # only states at rest are compared: that is most of the gain
            state = schedule.state()
            if self._seen.get(state, -1) >= left:
                raise Stop(schedule.net.could)
            self._seen[state] = left
            if left and schedule.pending:
                step = schedule.steps
                further.extend((*plan, (step, deviation)) for deviation in offers(schedule))

        late: list[tuple[int, int]] = []
        try:
            late = play(self.script, plan, scout).net.could
        except Stop as stop:
            self.stopped += 1
            late = stop.args[0]
        except Violated as violated:
            self.found.append(Found(plan, violated.invariant, str(violated)))
        further += [arriving(plan, *one) for one in late]
        return further


def arriving(plan: Plan, became: int, step: int) -> Plan:
    """The same, but that the commit that became late at one step is made at the other."""
    return tuple(
        (at, Deviation("late", number=step) if at == became else what) for at, what in plan
    )


def explore(name: str, depth: int) -> tuple[str, int, int, list[Found], float]:
    """One script: its name, runs, known states, violations and seconds."""
    started, explorer = clock.monotonic(), Explorer(BY_NAME[name], depth)
    explorer.explore()
    seconds = clock.monotonic() - started
    return name, explorer.runs, explorer.stopped, explorer.found, seconds
