"""A controller's host in a simulated world: its clocks, its tasks, and whether it is up or asleep.

A `Task` is the simulated driver: it runs one operation of the protocol step by step, as the
scheduler resumes it. What the steps ask for is performed by the world.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from distjob.protocol.effects import Op
from distjob.protocol.state import ClientState
from distjob.rules.ticket import Owner
from distjob.store import Event, Missed

if TYPE_CHECKING:
    from distjob.testing.sim.world import World


class SimClock:
    """One controller's clocks: its own rate and zero, and a wall clock that may be set."""

    def __init__(self, world: World, rate: float) -> None:
        self._world = world
        self._rate = rate
        self._zero = world.rng.uniform(0.0, 1000.0)
        self.jump = 0.0

    def monotonic(self) -> float:
        """For deadlines."""
        return self._zero + self._rate * self._world.now

    def wall(self) -> float:
        """For people."""
        return 1.7e9 + self._world.now + self.jump

    def true_seconds(self, seconds: float) -> float:
        """The world's seconds until this clock has gone on by ``seconds``."""
        return max(0.0, seconds) / self._rate


class SimSignal:
    """A sticky flag that tasks wait for."""

    __slots__ = ("_flag", "_waiting", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._flag = False
        self._waiting: list[tuple[Task, int]] = []

    def set(self) -> None:
        """Let them go on."""
        self._flag = True
        for task, turn in self._waiting:
            self._world.after(self._world.jitter(), task.resume, turn)
        self._waiting.clear()

    def clear(self) -> None:
        """From now on they wait."""
        self._flag = False

    def wait(self, task: Task) -> bool:
        """True if it is set; else the task will be resumed when it is."""
        if not self._flag:
            self._waiting.append((task, task.turn))
        return self._flag


class Task:
    """An operation under way. ``turn`` counts its steps, so that late replies find nobody."""

    def __init__(self, machine: Machine, name: str, op: Op[Any]) -> None:
        self.machine = machine
        self.name = f"{machine.name}.{name}"
        self.op = op
        self.turn = 0
        self.done = False

    def resume(self, turn: int, reply: Any = None, error: BaseException | None = None) -> None:
        """Go on with a reply or an error, when the controller is awake."""
        if turn != self.turn or self.done or self.machine.crashed:
            return
        if self.machine.asleep:
            self.machine.backlog.append((self, turn, reply, error))
            return
        self.turn += 1
        world = self.machine.world
        try:
            effect = self.op.send(reply) if error is None else self.op.throw(error)
        except StopIteration:
            self.done = True
            world.log(self.name, "done")
        else:
            world.perform(self, effect)

    def drop(self) -> None:
        """It is never run again, as if its process were gone."""
        self.done = True
        self.turn += 1
        self.op.close()


class Machine:
    """A controller on its host: up, asleep, cut off, closed or crashed."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        drift = world.profile.drift
        self.clock = SimClock(world, 1.0 + world.rng.uniform(-drift, drift))
        self.me = ClientState(
            Owner(name, f"host-{name}", 1),
            ttl=world.ttl,
            wait=30.0,
            max_queued=world.max_queued,
            pushed=world.rng.random() < 0.7,
            clock=self.clock,
            signal=lambda: SimSignal(world),
        )
        self.tasks: list[Task] = []
        self.crashed = False
        self.closed = False
        self.asleep = False
        self.cut_until = 0.0
        self.excused = False
        """A request failed, or it slept, or the store lost data: it may be told of trouble."""
        self.disturbed = 0.0
        """The end of its last sleep or outage."""
        self.backlog: list[tuple[Task, int, Any, BaseException | None]] = []
        self.inbox: dict[str, list[Event]] = {}
        self.pending = 0
        """Requests under way."""
        self.settled = Counter[str]()
        """How often each of its sessions was settled, as far as it has heard."""
        self.interrupted = False
        self.reconnected = False
        self.receiver: tuple[Task, int, str] | None = None
        self.running = 3
        """How many operations go on in the background: heart, hands and callbacks."""
        self.stopped = SimSignal(world)
        """Set when none of them does any more."""

    def run(self, name: str, op: Op[Any]) -> Task:
        """Begin an operation."""
        task = Task(self, name, op)
        self.tasks.append(task)
        self.world.after(self.world.jitter(), task.resume, 0)
        return task

    def learn(self, settled: dict[str, int]) -> None:
        """Hear how often sessions were settled; replies may overtake each other."""
        for session, number in settled.items():
            self.settled[session] = max(self.settled[session], number)

    @property
    def up(self) -> bool:
        return not self.crashed and not self.closed

    def take(self, session: str) -> list[Event]:
        """The events that a receive returns."""
        events = self.inbox.pop(session, [])
        if self.reconnected:
            events = [Missed(), *events]
        self.interrupted = self.reconnected = False
        return events

    @property
    def receiving(self) -> bool:
        """Whether a receive is under way that was not cancelled."""
        return self.receiver is not None and self.receiver[0].turn == self.receiver[1]

    def rouse(self) -> None:
        """End a receive that is under way, if it has something to return."""
        if self.receiver is None or not self.receiving:
            return
        task, turn, session = self.receiver
        if self.interrupted or self.reconnected or self.inbox.get(session):
            self.receiver = None
            task.resume(turn, self.take(session))

    def crash(self) -> None:
        """Gone between two steps; what it has sent is on its way."""
        self.crashed = True
        for task in self.tasks:
            task.drop()

    def sleep(self, seconds: float) -> None:
        """None of its steps runs for so long."""
        if self.up and not self.asleep:
            self.asleep = True
            self.world.disturb(seconds, self)
            self.world.after(seconds, self._wake)

    def _wake(self) -> None:
        self.asleep = False
        backlog, self.backlog = self.backlog, []
        for task, turn, reply, error in backlog:
            self.world.after(self.world.jitter(), task.resume, turn, reply, error)
