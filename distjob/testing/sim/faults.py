"""A store under faults: what goes wrong between controllers and a `MemoryServer`, drawn by seed.

`Network` carries every request of a simulated world and every wake-up; it may lose, delay or
double them on either way, and cuts controllers off. How often is said by a `Profile`. What happens
to the controllers themselves is in disasters.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distjob.errors import BackendUnavailable
from distjob.protocol.effects import (
    CloseSession,
    Commit,
    Effect,
    KeepAlive,
    OpenSession,
    Read,
    Receive,
    Remaining,
    Scan,
    Settle,
)
from distjob.store import Committed, Event, Missed, Reply, Settled
from distjob.testing.memory import MemoryServer
from distjob.testing.sim.profiles import Profile
from distjob.testing.sim.request import Request

if TYPE_CHECKING:
    from distjob.testing.sim.machine import Machine, Task
    from distjob.testing.sim.world import World

TIMEOUT = 0.5
"""Seconds after which a client gives up on a reply, at most."""
LATEST = 12.0
"""TTLs that a commit may be on its way, at most: longer than any world goes on."""


class SimServer(MemoryServer):
    """A memory server that can lose what it holds, and be asked what is left in it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.settled = Counter[str]()
        """How often each session was settled."""

    def lose_data(self) -> None:
        """All values and sessions are gone; versions and session ids go on rising."""
        self._values.clear()
        self._sessions.clear()

    def alive(self, session: str) -> bool:
        """Whether ``session`` has not ended."""
        return self._alive(session) is not None

    def living(self) -> list[str]:
        """The sessions that have not ended."""
        return [session for session in list(self._sessions) if self.alive(session)]


class Network:
    """Carries requests to the server and replies and wake-ups back, or does not."""

    def __init__(self, world: World, server: SimServer, profile: Profile) -> None:
        self.world = world
        self.server = server
        self.profile = profile
        self.faulty = True
        self.down = False
        """The store can be reached by nobody."""
        self.tells_ends = world.rng.random() < 0.5
        """Whether the store sends `Ended`; it then can't tell when that will be."""
        self.resent = set[str]()
        """VMs of which a change was sent twice, as no store of ours does, by what lies below it."""
        self._next: dict[str, float] = {}
        """By session, when the next `Ended` could have to be sent to it."""

    # -- requests ------------------------------------------------------------------------------

    def request(self, task: Task, effect: Effect[Any]) -> None:
        """Send it; the task is resumed with what becomes of it."""
        world, call = self.world, Request(self, task, effect)
        there = self.delay()
        if not self.reaches(task.machine):
            if world.rng.random() < 0.5:
                world.after(there, call.refuse)
            else:
                world.after(self.patience(), call.give_up)
            return
        match self._fate(effect):
            case "refused":
                world.after(there, call.refuse)
            case "unsent":
                world.after(self.patience(), call.give_up)
            case "unheard":
                world.after(there, call.apply)
                world.after(there + self.patience(), call.give_up)
            case "late":
                told = self.patience()
                world.after(told, call.give_up)
                if world.rng.random() < 0.3:
                    world.after(there, call.apply)  # and once more, late
                most = world.rng.choice((0.5, LATEST)) * world.ttl
                world.after(max(told, world.rng.uniform(0.0, most)), call.apply)
            case "resent" if isinstance(effect, Commit):
                self.resent.add(effect.vm)
                world.after(there, call.apply)
                world.after(there + self.delay(), call.arrive)
            case _:
                world.after(there, call.arrive)

    def _fate(self, effect: Effect[Any]) -> str:
        if not self.faulty:
            return ""
        profile, dice = self.profile, self.world.rng.random()
        shares = [
            ("refused", profile.refused),
            ("unsent", profile.unsent),
            ("unheard", profile.unheard),
        ]
        if isinstance(effect, Commit):
            shares += [("late", profile.late), ("resent", profile.resent)]
        for fate, share in shares:
            dice -= share
            if dice < 0:
                self.world.seen[fate] += 1
                return fate
        return ""

    def apply(self, machine: Machine, effect: Effect[Any], settled: int) -> Any:
        """What the store does, in one moment; ``settled``: the number that a commit carries."""
        server = self.server
        match effect:
            case Commit():
                return self._commit(effect, settled)
            case Settle(session):
                server.settled[session] += 1
                return None
            case Read(vm):
                return server.read(vm)
            case Remaining(sessions):
                return self._remaining(machine, sessions)
            case KeepAlive(session):
                return server.keep_alive(session)
            case OpenSession(ttl, owner):
                session = server.open_session(ttl, owner)
                self.world.watch.homes[session] = machine
                return session
            case CloseSession(session):
                server.close_session(session)
                for other in server.living() if self.tells_ends else ():
                    self._drain(other)
                return None
            case Scan():
                return server.scan()
        raise AssertionError(f"no such request: {effect}")

    def _commit(self, effect: Commit, settled: int) -> Reply:
        vm, author = effect.vm, effect.author
        if self.server.alive(author) and settled != self.server.settled[author]:
            self.world.seen["settled"] += 1
            return Settled()
        reply = self.server.commit(vm, effect.expected, effect.value, author, effect.wake)
        if isinstance(reply, Committed):
            self.world.watch.commits.committed(vm, author, reply.version, effect.value)
            for session in sorted(effect.wake):
                self._drain(session)
        return reply

    # -- wake-ups ------------------------------------------------------------------------------

    def receive(self, task: Task, effect: Receive) -> None:
        """Resume the task with the events of its session, when there are some."""
        machine, turn = task.machine, task.turn
        if machine.receiving:
            self.world.watch.fail("no surprise", f"{task.name}: two receive at once")
        if not self.reaches(machine):
            error = BackendUnavailable("simulated: no connection to receive from")
            self.world.after(self.delay(), task.resume, turn, None, error)
        elif machine.interrupted or machine.reconnected or machine.inbox.get(effect.session):
            self.world.after(0.0005, task.resume, turn, machine.take(effect.session))
        else:
            machine.receiver = (task, turn, effect.session)
            seconds = machine.clock.true_seconds(effect.timeout)
            self.world.after(seconds, self._quiet, machine, turn)

    def _quiet(self, machine: Machine, turn: int) -> None:
        if machine.receiver and machine.receiver[1] == turn:
            task, _, session = machine.receiver
            machine.receiver = None
            task.resume(turn, machine.take(session))

    def _drain(self, session: str) -> None:
        machine, world = self.world.watch.homes[session], self.world
        for event in self.server.take(session):
            delay, dice = self.delay(), world.rng.random() if self.faulty else 1.0
            if dice < self.profile.deaf:
                world.seen["deaf"] += 1
                if world.rng.random() < 0.5:
                    world.after(world.rng.random(), self._deliver, machine, session, Missed())
                continue
            dice -= self.profile.deaf
            if dice < self.profile.slow:
                world.seen["slow"] += 1
                delay += world.rng.random() * world.ttl
            elif dice < self.profile.slow + self.profile.doubled:
                world.seen["doubled"] += 1
                again = delay + world.rng.random() * world.ttl
                world.after(again, self._deliver, machine, session, event)
            world.after(delay, self._deliver, machine, session, event)

    def _remaining(self, machine: Machine, sessions: frozenset[str]) -> dict[str, float]:
        """Exact; or, from a store that tells, a moment that is not too early."""
        if not self.tells_ends:
            return self.server.remaining(sessions)
        watcher = machine.me.session.id if machine.me.session else ""
        left = self.server.remaining(sessions, watcher)
        if watcher:
            self._tell(watcher)
        return {name: self.world.ttl if seconds > 0 else 0.0 for name, seconds in left.items()}

    def _tell(self, watcher: str) -> None:
        """Send `Ended` of each session that ``watcher`` watches, as soon as it has ended."""
        self._drain(watcher)
        now, at = self.world.now, self.world.now + self.server.quiet_for(watcher) + 0.001
        later = now + 1e-6  # this one's own moment, but for rounding
        if at < math.inf and not later < self._next.get(watcher, 0.0) <= at:
            self._next[watcher] = at
            self.world.after(at - now, self._tell, watcher)

    def _deliver(self, machine: Machine, session: str, event: Event) -> None:
        if self.reaches(machine):
            machine.inbox.setdefault(session, []).append(event)
            machine.rouse()

    # -- outages -------------------------------------------------------------------------------

    def cut(self, machine: Machine, seconds: float) -> None:
        """Cut one controller off the store."""
        self.world.disturb(seconds, machine)
        machine.cut_until = max(machine.cut_until, self.world.now + seconds)
        self._disconnect(machine)

    def restart(self, machines: list[Machine], seconds: float, *, wipe: bool) -> None:
        """The store is away for everybody, and back with its data or without."""
        if self.down:
            return
        self.down = True
        self.world.disturb(seconds, *machines)
        for machine in machines:
            self._disconnect(machine)
        self.world.after(seconds, self._back, wipe)

    def _back(self, wipe: bool) -> None:
        self.down = False
        if wipe:
            self.server.lose_data()
            self.world.watch.wiped()

    def _disconnect(self, machine: Machine) -> None:
        machine.reconnected = True
        if machine.receiver:
            (task, turn, _), machine.receiver = machine.receiver, None
            error = BackendUnavailable("simulated: the connection broke")
            self.world.after(self.delay(), task.resume, turn, None, error)

    def reaches(self, machine: Machine) -> bool:
        """Whether the store can be reached from there now."""
        return not self.down and self.world.now >= machine.cut_until

    def delay(self) -> float:
        """Seconds on the way."""
        return 0.0005 + 0.08 * self.world.rng.random() ** 3

    def patience(self) -> float:
        """Seconds until a client gives up."""
        return self.world.rng.uniform(0.1, TIMEOUT)
