"""Controllers, their tasks and flags, as a schedule drives them. What is next is decided there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from distjob.protocol.effects import Op
from distjob.protocol.state import ClientState
from distjob.rules.ticket import Owner
from distjob.store import Event, Missed

if TYPE_CHECKING:
    from distjob.testing.explore.schedule import Schedule

WALL = 1.7e9
"""What wall clocks show at the start."""


class Pending(NamedTuple):
    """One step that can be taken now."""

    kind: str
    """``go``: a task goes on; ``take``: with what its session was sent; ``request``: one reaches
    the store; ``mail``: a wake-up reaches a controller.
    """
    at: Controller
    task: Task | None
    turn: int
    """Of the task when it was made: if that has gone on since, this finds nobody."""
    what: Any = None
    """The reply, the effect or the event."""
    error: BaseException | None = None
    answers: bool = False
    """It goes on with the answer to a request."""
    mark: int = 0
    """Of a commit: how often its session had been settled when it was sent."""

    @property
    def vain(self) -> bool:
        """Whether it would do nothing: its task has gone on."""
        if self.kind == "request" or self.task is None:
            return False
        return self.task.turn != self.turn or self.task.done

    @property
    def key(self) -> int:
        """The same for two that do the same."""
        name = self.task.name if self.task else self.at.name
        return hash((self.kind, name, self.turn, self.mark, frozen(self.what), repr(self.error)))

    def conflicts(self, other: Pending) -> bool:
        """Whether it matters which of the two is first."""
        return self.at is other.at or (self.kind == other.kind == "request")

    def __str__(self) -> str:
        who = self.task.name if self.task else self.at.name
        if self.error is not None:
            return f"{self.kind} {who}: {self.error!r}"
        return f"{self.kind} {who}" + (f": {self.what}" if self.what is not None else "")


def frozen(what: Any) -> Any:
    """Something that can be hashed, for what a task may be told."""
    if isinstance(what, dict):
        return tuple(sorted(what.items()))
    return tuple(what) if isinstance(what, list) else what


class Flag:
    """A sticky flag that tasks wait for: the protocol's signal."""

    __slots__ = ("_schedule", "_set", "_waiting")

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._set = False
        self._waiting: list[tuple[Task, int]] = []

    def set(self) -> None:
        """Let those who wait go on."""
        self._set = True
        for task, turn in self._waiting:
            if task.turn == turn:
                self._schedule.add(Pending("go", task.at, task, turn))
        self._waiting.clear()

    def clear(self) -> None:
        """From now on they wait."""
        self._set = False

    def wait(self, task: Task) -> bool:
        """True if it is set; else the task goes on when it is."""
        if not self._set:
            self._waiting.append((task, task.turn))
        return self._set


class Task:
    """An operation under way. ``turn`` counts its steps, so that late replies find nobody."""

    __slots__ = ("at", "background", "done", "name", "op", "patient", "turn")

    def __init__(self, at: Controller, name: str, op: Op[Any], *, background: bool) -> None:
        self.at = at
        self.name = f"{at.name}.{name}"
        self.op = op
        self.background = background
        self.turn = 0
        self.done = False
        self.patient = False
        """It waits for an answer that will not come."""


class Controller:
    """One client of the protocol: up, stopped, closed or crashed."""

    def __init__(self, schedule: Schedule, name: str, *, max_queued: int, pushed: bool) -> None:
        self.schedule = schedule
        self.name = name
        self.me = ClientState(
            Owner(name, f"host-{name}", 1),
            ttl=schedule.ttl,
            wait=30.0,
            max_queued=max_queued,
            pushed=pushed,
            clock=self,
            signal=lambda: Flag(schedule),
        )
        self.tasks: list[Task] = []
        self.crashed = False
        self.closed = False
        self.stopped = False
        self.backlog: list[Pending] = []
        """Its steps that wait for it to go on."""
        self.inbox: dict[str, list[Event]] = {}
        self.interrupted = False
        self.missed = False
        self.receiver: tuple[Task, int, str] | None = None
        self.background = 0
        """How many tasks in the background have not ended."""
        self.at_rest = Flag(schedule)
        """Set when none of them is left."""
        self.excuse = ""
        """The first thing that went wrong here: from then on it may be told of trouble."""
        self.deaf = False
        """A wake-up was lost."""
        self.history = 0
        """A hash of what its tasks were told, in order: the state is a function of it."""

    def monotonic(self) -> float:
        """For deadlines."""
        return self.schedule.now

    def wall(self) -> float:
        """For people."""
        return WALL + self.schedule.now

    @property
    def up(self) -> bool:
        return not self.crashed and not self.closed

    @property
    def hindered(self) -> bool:
        """Whether it can't do now what it should."""
        return self.stopped or any(task.patient for task in self.tasks)

    @property
    def receiving(self) -> bool:
        """Whether a receive is under way that was not cancelled."""
        return self.receiver is not None and self.receiver[0].turn == self.receiver[1]

    def take(self, session: str) -> list[Event]:
        """The events that a receive returns."""
        events = self.inbox.pop(session, [])
        if self.missed:
            events = [Missed(), *events]
        self.interrupted = self.missed = False
        return events

    def sent(self, session: str) -> bool:
        """Whether a receive would return at once."""
        return self.interrupted or self.missed or bool(self.inbox.get(session))
