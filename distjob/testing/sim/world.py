"""A simulated world: controllers that run the real protocol, in virtual time, drawn from a seed.

Every step of every operation is one entry of one queue, ordered by virtual time; requests take a
random time there and back, so that thousands of interleavings are met. No thread, no real clock:
the same seed and profile give the same world. To see one world again:

    python -m distjob.testing.sim.world --seed 7 --profile storm --trace
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from distjob.protocol.effects import Call, Effect, Interrupt, Receive, Report, Wait
from distjob.testing.sim import disasters, users
from distjob.testing.sim.calls import Violated
from distjob.testing.sim.faults import Network, SimServer
from distjob.testing.sim.judges.invariants import Watch
from distjob.testing.sim.judges.plain import Plain
from distjob.testing.sim.machine import Machine, Task
from distjob.testing.sim.profiles import PROFILES, Profile

MAX_STEPS = 60_000
"""More steps than any world needs: somebody is spinning."""


class World:
    """All of it. `run` raises `Violated` if something did not hold."""

    def __init__(self, seed: int, profile: Profile, *, trace: bool = False) -> None:
        self.seed = seed
        self.profile = profile
        self.rng = rng = random.Random(f"{profile.name} {seed}")
        self.now = 0.0
        self.steps = 0
        self.seen: Counter[str] = Counter()
        """How often what happened: the tests ask that everything did."""
        self.disturbed = 0.0
        """The end of the last outage, sleep or crash; nobody promises speed before it."""
        self.unclean = False
        """Some session ended, or may have ended, with jobs in it."""
        self.orphans = False
        """In the end async jobs are there that were left."""
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._entries = 0
        self._history: deque[tuple[float, str, Any, Any]] = deque(maxlen=None if trace else 60)
        self._trace = trace
        self.ttl = rng.choice((2.0, 4.0, 10.0))
        self.max_queued = rng.choice((0, 0, 2, 3, 5))
        self.polite = rng.random() < 0.6
        self.vms = [f"vm{n}" for n in range(rng.randint(1, 3))]
        self.server = SimServer(lambda: self.now)
        self.watch = Watch(self)
        self.net = Network(self, self.server, profile)
        self.machines: list[Machine] = []

    # -- the scheduler -------------------------------------------------------------------------

    def after(self, seconds: float, do: Callable[..., None], *args: Any) -> None:
        """Do it in so many virtual seconds."""
        self._entries += 1
        heapq.heappush(self._queue, (self.now + seconds, self._entries, do, args))

    def jitter(self) -> float:
        """A short time, so that what is due at once happens in any order."""
        return self.rng.random() * 0.001

    def perform(self, task: Task, effect: Effect[Any]) -> None:
        """What the operation asked for, matched by type."""
        match effect:
            case Wait(seconds, signal):
                if signal is not None and signal.wait(task):
                    self.after(self.jitter(), task.resume, task.turn)
                else:
                    true = task.machine.clock.true_seconds(seconds)
                    self.after(true + self.jitter(), task.resume, task.turn)
            case Receive():
                self.net.receive(task, effect)
            case Interrupt():
                task.machine.interrupted = True
                self.after(0.0, task.machine.rouse)
                self.after(self.jitter(), task.resume, task.turn)
            case Call(callbacks):
                for callback in callbacks:
                    callback()
                self.after(self.jitter(), task.resume, task.turn)
            case Report(what, error):
                raise AssertionError(f"{task.name}: {what}: {error!r}") from error
            case _:
                self.net.request(task, effect)

    def log(self, who: str, what: Any, result: Any = "") -> None:
        """Remember it for the history of a failure."""
        self._history.append((self.now, who, what, result))

    def disturb(self, seconds: float, *machines: Machine) -> None:
        """Until then things are not as they should be."""
        self.disturbed = max(self.disturbed, self.now + seconds)
        for machine in machines:
            machine.excused = True
            machine.disturbed = max(machine.disturbed, self.now + seconds)

    def _go_on(self, until: float, done: Callable[[], bool] = bool) -> None:
        while self._queue and self._queue[0][0] <= until and not done():
            self.steps += 1
            self.now, _, do, args = heapq.heappop(self._queue)
            do(*args)
            if self.steps > MAX_STEPS:
                self.watch.fail("no spinning", f"{MAX_STEPS} steps and no end")
        if not done():
            self.now = until

    # -- a world's life ------------------------------------------------------------------------

    def run(self) -> World:
        """All of it, to the end; raises `Violated`."""
        try:
            self._run()
        except Violated as broken:
            raise Violated(broken.invariant, f"{broken}\n{self.story()}") from broken
        except Exception as error:
            what = f"{type(error).__name__}: {error}\n{self.story()}"
            raise Violated("no surprise", what) from error
        finally:
            for machine in self.machines:
                machine.crash()
        return self

    def _run(self) -> None:
        disasters.strike(self, users.populate(self))
        self.after(0.5, self._tick)
        self._go_on(300.0, lambda: self.now > disasters.SPAN and users.all_done(self))
        self.net.faulty = False
        self._go_on(max(self.now, self.disturbed) + 2.2 * self.ttl + 4.0)
        self.watch.end.at_rest()
        for machine in self.machines:
            if machine.up:
                users.close_down(machine)
        self._go_on(self.now + 2 * self.ttl + 5.0, lambda: not any(m.up for m in self.machines))
        self.watch.end.closed(self)
        self._go_on(self.now + 2 * self.ttl)
        if self.unclean or self.orphans:
            janitor = users.janitor(self)
            self._go_on(self.now + 30.0, lambda: janitor.closed)
        self.watch.end.clean(self)

    def _tick(self) -> None:
        self.watch.overdue.tick()
        self.after(0.5, self._tick)

    def story(self) -> str:
        """The last steps, and how to see them all."""
        lines = [_line(*entry) for entry in self._history]
        replay = "python -m distjob.testing.sim.world"
        return "\n".join(
            [
                f"seed {self.seed}, profile {self.profile.name}, TTL {self.ttl:g}",
                f"max_queued {self.max_queued}, polite {self.polite}; the last steps:",
                *lines,
                f"replay: {replay} --seed {self.seed} --profile {self.profile.name} --trace",
            ]
        )


def _line(now: float, who: str, what: Any, result: Any) -> str:
    value = getattr(what, "value", None)
    if value is not None or hasattr(what, "expected"):
        text = f"Commit {what.vm} {what.expected} -> {Plain(value)} wake={sorted(what.wake)}"
    else:
        text = str(what)
    if isinstance(value := getattr(result, "value", None), bytes):
        result = f"{type(result).__name__} {result.version} {Plain(value)}"
    return f"{now:10.4f} {who:14} {text}" + (f"  =>  {result}" if result != "" else "")


def run(seed: int, profile: str) -> World:
    """One world; raises `Violated`, which says how to see it again."""
    return World(seed, PROFILES[profile]).run()


def main() -> int:
    """Replay worlds from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m distjob.testing.sim.world", description=__doc__
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1, help="how many seeds, from --seed on")
    parser.add_argument("--profile", choices=[*PROFILES, "all"], default="all")
    parser.add_argument("--trace", action="store_true", help="print every step")
    asked = parser.parse_args()
    names = list(PROFILES) if asked.profile == "all" else [asked.profile]
    failed, seen = 0, Counter[str]()
    for name in names:
        for seed in range(asked.seed, asked.seed + asked.count):
            world = World(seed, PROFILES[name], trace=asked.trace)
            try:
                world.run()
            except Violated as broken:
                failed += 1
                text = (
                    str(broken) if asked.trace or asked.count == 1 else str(broken).split("\n")[0]
                )
                sys.stdout.write(f"{name} {seed}: {broken.invariant}: {text}\n")
            else:
                if asked.trace:
                    sys.stdout.write(f"{world.story()}\n")
            seen += world.seen
    sys.stdout.write(f"{dict(sorted(seen.items()))}\n{failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
