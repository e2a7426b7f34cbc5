"""Crowds in virtual time: many that play for one VM, and many that ask for it at one moment.

The protocol and the watch of `distjob.testing.sim.world`, without faults, on a server that serves
one request after the other, as one Redis does: who asks often holds up the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from distjob.protocol.effects import Commit, Effect, Op, Read, Wait, ask
from distjob.protocol.parts import Wish
from distjob.rules.codec import decode
from distjob.rules.jobs import Job
from distjob.testing.sim import users
from distjob.testing.sim.faults import Network
from distjob.testing.sim.machine import Machine, Task
from distjob.testing.sim.profiles import Profile
from distjob.testing.sim.request import Request
from distjob.testing.sim.workers import Worker
from distjob.testing.sim.world import World

CROWD = Profile(name="crowd")
VM = "vm0"
BEGINNING = 1.0
"""When all begin to ask."""
PATIENCE = 20.0
"""Seconds that each of them waits."""


class Speed(NamedTuple):
    service: float
    """Seconds that the server is busy with a request."""
    way: float
    """Seconds to it, or back, on average."""


SPEEDS = {"near": Speed(0.0001, 0.0002), "far": Speed(0.0001, 0.002)}


class OneByOne(Network):
    """Requests are served in the order in which they arrive, and counted."""

    def __init__(self, world: World, speed: Speed) -> None:
        super().__init__(world, world.server, CROWD)
        self.speed = speed
        self.asked: Counter[type[Effect[Any]]] = Counter()
        self._free = 0.0

    def delay(self) -> float:
        return self.speed.way * (0.5 + self.world.rng.random())

    def request(self, task: Task, effect: Effect[Any]) -> None:
        self.asked[type(effect)] += 1
        self.world.after(self.delay(), self._come, Request(self, task, effect))

    def _come(self, request: Request) -> None:
        self._free = max(self.world.now, self._free) + self.speed.service
        self.world.after(self._free - self.world.now, request.arrive)


class Turn(NamedTuple):
    held: float
    asked: float
    player: str


class Player(Worker):
    """Has the job so many times, so many seconds each; or is told that it was not to be had."""

    def __init__(self, machine: Machine, rounds: int, hold: float, turns: list[Turn]) -> None:
        super().__init__(machine)
        self.rounds = rounds
        self.seconds = hold
        self.turns = turns

    def work(self, errands: Iterator[int]) -> Op[None]:
        yield from ask(Wait(BEGINNING))
        for _ in errands:
            asked = self.world.now
            lease = yield from self.begin(VM, Wish("", job=Job.MODIFY), PATIENCE)
            if lease is not None:
                self.turns.append(Turn(self.world.now, asked, self.machine.name))
                yield from ask(Wait(self.seconds))
                yield from self.end(lease)


@pytest.fixture
def world(seed: int, speed: str, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("distjob.testing.sim.world.MAX_STEPS", 3_000_000)
    world = World(seed, CROWD)
    world.ttl, world.max_queued = 10.0, 0
    world.net = OneByOne(world, SPEEDS[speed])
    monkeypatch.setattr(world, "jitter", lambda: world.rng.random() * 0.00002)
    return world


def enter(world: World, players: int, rounds: int, hold: float) -> list[Turn]:
    """Let so many controllers play; returns their turns, of which there are none yet."""
    turns: list[Turn] = []
    for number in range(players):
        machine = users._machine(world)
        machine.name = f"player {number}"
        player = Player(machine, rounds, hold, turns)
        player.task = machine.run("play", player.work(iter(range(rounds))))
    return turns


def waiting(world: World) -> int:
    found = world.server.read(VM)
    return len(decode(VM, found.version, found.value).queue)


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("players", "rounds", "hold"), [(10, 20, 0.005), (40, 10, 0.002)])
def test_none_of_a_crowd_starves(world: World, players: int, rounds: int, hold: float) -> None:
    """A fair turn is the time in which each has the job once."""
    turns = enter(world, players, rounds, hold)
    world._go_on(1000.0, lambda: users.all_done(world))
    assert len(turns) == players * rounds
    fair = (turns[-1].held - turns[0].held) / (len(turns) - 1) * players
    assert max(turn.held - turn.asked for turn in turns) <= 2 * fair


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_herd_spreads_out(world: World) -> None:
    """A hundred get in line at one moment, and give up at another.

    Each of them would be refused some 50 times if all went on trying, and 20 times if each stepped
    aside for longer the more often it was refused.
    """
    herd = 100
    enter(world, herd + 1, 1, 2 * PATIENCE)
    for moment, left in ((BEGINNING, herd), (BEGINNING + PATIENCE, 0)):
        world._go_on(moment - 0.1)
        world.net.asked.clear()
        world._go_on(moment + 1.0, lambda left=left: waiting(world) == left)
        assert waiting(world) == left
        asked = world.net.asked
        assert asked[Commit] + asked[Read] <= 25 * herd
