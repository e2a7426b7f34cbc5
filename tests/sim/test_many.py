"""Requests for several VMs that cross, in virtual time, judged by the watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from distjob.errors import JobTimeout
from distjob.protocol import held as holding
from distjob.protocol import many
from distjob.protocol.effects import Op, Wait, ask
from distjob.protocol.many import Part, begin_many, end_many
from distjob.protocol.parts import HeldJob, Wish
from distjob.protocol.state import ClientState
from distjob.rules.jobs import AgentJob, AsyncJob, Job
from distjob.testing.sim import users
from distjob.testing.sim.machine import Machine
from distjob.testing.sim.profiles import Profile
from distjob.testing.sim.workers import Worker, begins
from distjob.testing.sim.world import World

CALM = Profile(name="crossing")
VMS = [f"vm{number}" for number in range(10)]
PLAYERS, ROUNDS = 20, 4
WAIT = 100.0
"""Seconds for three VMs."""
SLACK = 1.0
"""Seconds for what is given back at the deadline."""
WISHES = (
    Wish("", job=Job.MODIFY),
    Wish("", job=Job.ASYNC, kind=AsyncJob.BACKUP),
    Wish("", job=Job.SUSPEND, agent=AgentJob.QUERY),
)


class Player(Worker):
    """Holds three VMs together, time and again, as a client's shell would have it."""

    def __init__(self, machine: Machine, *, ordered: bool) -> None:
        super().__init__(machine)
        self.ordered = ordered
        self.told: Counter[str] = Counter()

    def work(self, errands: Iterator[int]) -> Op[None]:
        while self.me.session is None:
            yield from ask(Wait(0.05))
        for _ in errands:
            yield from self.together(self.rng.sample(VMS, 3))

    def together(self, vms: list[str]) -> Op[None]:
        asked = self.me.clock.monotonic()
        parts = [Part(vm, self.rng.choice(WISHES)) for vm in (sorted(vms) if self.ordered else vms)]
        plan = begin_many([(self, part) for part in parts], asked, WAIT)
        try:
            held = yield from self.carry_out(plan)
        except JobTimeout as error:
            held = []
            named = error.vm in vms and error.blockers
        assert self.me.clock.monotonic() - asked <= WAIT + SLACK
        self.told["done" if held else "timed out" if named else "timed out, nobody named"] += 1
        if held:
            assert [job.vm for _, job in held] == [part.vm for part in parts]
            yield from ask(Wait(self.rng.random()))
            yield from self.carry_out(end_many(held))

    def carry_out(self, plan: Any) -> Op[Any]:
        reply, error = None, None
        while True:
            try:
                runner, op = plan.send(reply) if error is None else plan.throw(error)
            except StopIteration as stop:
                return stop.value
            assert runner is self
            reply = error = None
            try:
                reply = yield from op
            except BaseException as raised:  # noqa: BLE001  the plan decides
                error = raised


@pytest.fixture
def world(seed: int, monkeypatch: pytest.MonkeyPatch) -> World:
    """One whose watch is told what the plans do."""
    world = World(seed, CALM)
    world.max_queued, world.vms = 0, VMS
    leases, leave, end = world.watch.leases, holding.leave, holding.end

    def watched_begin(me: ClientState, vm: str, wish: Wish, wait: float) -> Op[HeldJob]:
        [machine] = [one for one in world.machines if one.me is me]
        call = world.watch.calls_begin(machine, vm, wish, wait)
        try:
            held = yield from begins(me, vm, call.wish, wait)
        except JobTimeout as error:
            world.watch.raised(call, error)
            raise
        assert world.watch.returned(call, held)
        assert held
        return held

    def watched_leave(me: ClientState, held: HeldJob) -> None:
        leases[held.ticket.id].over = True
        leave(me, held)

    def watched_end(me: ClientState, held: HeldJob) -> Op[None]:
        leases[held.ticket.id].over = leases[held.ticket.id].call.ended = True
        return end(me, held)

    monkeypatch.setattr(many.beginning, "begin", watched_begin)
    monkeypatch.setattr(many.holding, "leave", watched_leave)
    monkeypatch.setattr(many.holding, "end", watched_end)
    return world


def play(world: World, *, ordered: bool) -> Counter[str]:
    players = []
    for _ in range(PLAYERS):
        machine = users._machine(world)
        machine.name = f"player {len(players)}"
        player = Player(machine, ordered=ordered)
        player.task = machine.run("play", player.work(iter(range(ROUNDS))))
        players.append(player)
    world.after(0.5, world._tick)
    world._go_on(10_000.0, lambda: users.all_done(world))
    assert users.all_done(world)
    world._go_on(world.now + world.ttl)  # what the hands have to do
    assert not list(world.server.scan())
    return sum((player.told for player in players), Counter())


@pytest.mark.parametrize("seed", range(2))
def test_requests_that_cross_are_all_served(world: World) -> None:
    assert play(world, ordered=True) == {"done": PLAYERS * ROUNDS}


@pytest.mark.parametrize("seed", [0])
def test_it_is_the_order_that_keeps_them_from_a_deadlock(world: World) -> None:
    """Else they wait in a circle until one of them gives up, and give back what they held."""
    told = play(world, ordered=False)
    assert told["timed out"]
    assert told["done"] + told["timed out"] == PLAYERS * ROUNDS
