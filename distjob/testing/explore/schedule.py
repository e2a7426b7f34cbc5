"""One run of a script: virtual time, the steps that are pending, and what each deviation does.

The usual schedule takes the pending steps in the order in which they came about; when none is left,
time goes on to the next timer. A plan says at which steps something else happens. The same script
and plan are always the same run. What else could happen is offers.py's, what must hold the judges'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from distjob.errors import BackendUnavailable
from distjob.protocol.effects import Call, Commit, Effect, Interrupt, Op, Receive, Report, Wait
from distjob.testing.explore.deviations import (
    Cancelled,
    Deviation,
    Plan,
    Surprise,
    deviate,
)
from distjob.testing.explore.network import Network
from distjob.testing.explore.stage import Controller, Flag, Pending, Task, frozen

if TYPE_CHECKING:
    from distjob.testing.explore.judges import Judges
    from distjob.testing.explore.users import User

PATIENCE = 0.5
"""Seconds after which a client gives up on an answer."""
MAX_STEPS = 5_000
"""More steps than any script needs."""


class Schedule:
    """A run. ``scout`` is called before each step that the plan leaves open, and when all rest."""

    def __init__(
        self,
        plan: Plan,
        *,
        ttl: float,
        tells_ends: bool,
        scout: Callable[[Schedule], None] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.plan: Mapping[int, Deviation] = dict(plan)
        self.last = max(self.plan, default=0)
        self.ttl = ttl
        self.now = 0.0
        self.steps = 0
        self.pending: list[Pending] = []
        self.timers: dict[object, tuple[float, int, Callable[[], None]]] = {}
        self._timed = 0
        self.controllers: list[Controller] = []
        self.net = Network(self, tells_ends=tells_ends)
        self.judges: Judges
        self.users: list[User] = []
        self.open = False
        """Deviations may happen: all have started, and not all are done."""
        self.touched: set[object] = set()
        """Controllers, and the store, that something has happened to since that was asked last."""
        self._scout = scout
        self._told = told

    # -- what is pending -----------------------------------------------------------------------

    def add(self, step: Pending) -> None:
        """It can be taken from now on."""
        if step.kind != "request" and step.at.stopped:
            step.at.backlog.append(step)
        elif not step.at.crashed or step.kind == "request":
            self.pending.append(step)

    def timer(self, key: object, seconds: float, do: Callable[[], None]) -> None:
        """In so many seconds; one for each key."""
        self._timed += 1
        self.timers[key] = (self.now + max(0.0, seconds), self._timed, do)

    def next_timer(self) -> float:
        return min(at for at, _, _ in self.timers.values())

    def fire(self) -> None:
        """Go on to the next timer."""
        self.now = max(self.now, self.next_timer())
        due = sorted((t[:2], key) for key, t in self.timers.items() if t[0] <= self.now)
        for _, key in due:
            _, _, do = self.timers.pop(key)
            do()

    # -- tasks ---------------------------------------------------------------------------------

    def start(self, at: Controller, name: str, op: Op[Any], *, background: bool = False) -> Task:
        task = Task(at, name, op, background=background)
        at.tasks.append(task)
        self.add(Pending("go", at, task, 0))
        return task

    def resume(self, task: Task, reply: Any = None, error: BaseException | None = None) -> None:
        """The task goes on."""
        at = task.at
        at.history = hash((at.history, task.name, self.now, frozen(reply), repr(error)))
        self.touched.add(at)
        self.timers.pop(task.name, None)
        task.turn += 1
        task.patient = False
        try:
            effect = task.op.send(reply) if error is None else task.op.throw(error)
        except StopIteration:
            self.ended(task)
        except (Cancelled, Surprise):
            self.ended(task)
        else:
            self._perform(task, effect)

    def ended(self, task: Task) -> None:
        """It came to its end, or is dropped."""
        task.done = True
        if task.at.me.leftovers:  # as the drivers do
            task.at.me.holdings.due.set()
        if task.background:
            task.at.background -= 1
            if not task.at.background:
                task.at.at_rest.set()

    def _perform(self, task: Task, effect: Effect[Any]) -> None:
        at, turn = task.at, task.turn
        go = Pending("go", at, task, turn)
        match effect:
            case Wait(seconds, signal):
                if isinstance(signal, Flag) and signal.wait(task):
                    self.add(go)
                else:
                    self.timer(task.name, seconds, lambda: self.add(go))
            case Receive(session, timeout):
                if at.receiving:
                    self.judges.fail("no surprise", f"{task.name}: two receive at once")
                at.receiver = (task, turn, session)
                take = Pending("take", at, task, turn)
                if at.sent(session):
                    self.add(take)
                else:
                    self.timer(task.name, timeout, lambda: self.add(take))
            case Interrupt():
                at.interrupted = True
                self.net.rouse(at)
                self.add(go)
            case Call(callbacks):
                for callback in callbacks:
                    callback()
                self.add(go)
            case Report(what, error):
                if not isinstance(error, Surprise):
                    self.judges.fail("no surprise", f"{task.name}: {what}: {error!r}")
                self.add(go)
            case _:
                mark = self.net.server.settled[effect.author] if isinstance(effect, Commit) else 0
                self.add(Pending("request", at, task, turn, effect, mark=mark))

    def answer(
        self, request: Pending, reply: Any = None, error: BaseException | None = None
    ) -> None:
        """What the request came to is on its way back."""
        if request.task is not None and request.task.turn == request.turn:
            step = Pending("go", request.at, request.task, request.turn, reply, error, answers=True)
            self.add(step)

    def give_up(self, request: Pending, *, unanswered: bool) -> None:
        """The client is told after a while that there is no answer."""
        task = request.task
        assert task is not None
        if task.turn != request.turn or request.at.crashed:
            return
        error = BackendUnavailable("no answer", unanswered=unanswered)
        task.patient = True
        self.timer(task.name, PATIENCE, lambda: self.answer(request, None, error))

    # -- going on ------------------------------------------------------------------------------

    def take(self, step: Pending) -> None:
        """Take this step."""
        if self._told:
            self._told(f"{self.now:9.3f} {self.steps:5} {step}")
        match step.kind:
            case "request":
                self.net.arrive(step)
            case "mail":
                self.touched.add(step.at)
                self.net.deliver(step)
            case _:
                task = step.task
                assert task is not None
                if step.vain:
                    return
                if step.kind == "take":
                    assert step.at.receiver is not None
                    session = step.at.receiver[2]
                    step.at.receiver = None
                    self.resume(task, step.at.take(session))
                else:
                    self.resume(task, step.what, step.error)

    def go_on(self, done: Callable[[], bool], most: float) -> None:
        """Until it is done, and nothing is pending; or for so many seconds."""
        end = self.now + most
        while True:
            self.pending = [step for step in self.pending if not step.vain]
            if not self.pending:
                self.judges.rest()
                if self.open and self._scout and self.steps > self.last:
                    self._scout(self)
                if done() or not self.timers or self.next_timer() > end:
                    if not done():
                        self.now = end
                    return
                self.fire()
                continue
            if self.steps >= MAX_STEPS:
                self.judges.fail("no spinning", f"{MAX_STEPS} steps and no end")
            self.steps += self.open
            self.net.arrive_late()
            deviation = self.plan.get(self.steps) if self.open else None
            if deviation is not None:
                if self._told:
                    self._told(f"{self.now:9.3f} {self.steps:5} -- {deviation}")
                deviate(self, deviation)
                continue
            if self.open and self._scout and self.steps > self.last:
                self._scout(self)
            self.take(self.pending.pop(0))

    def controller(self, name: str) -> Controller:
        return next(one for one in self.controllers if one.name == name)

    def task(self, name: str) -> Task:
        return next(t for one in self.controllers for t in one.tasks if t.name == name)

    # -- its state -----------------------------------------------------------------------------

    def state(self) -> int:
        """A hash of all that what follows depends on."""
        return hash(
            (
                self.now,
                self.net.state(),
                tuple(
                    (
                        c.history,
                        c.crashed,
                        c.stopped,
                        c.excuse,
                        c.deaf,
                        c.interrupted,
                        c.missed,
                        frozen({s: tuple(e) for s, e in c.inbox.items()}),
                        tuple(step.key for step in c.backlog),
                    )
                    for c in self.controllers
                ),
                tuple(step.key for step in self.pending),
                tuple(sorted((t[0], str(key)) for key, t in self.timers.items())),
                self.judges.state(),
            )
        )
