"""What happens to the controllers of a simulated world: crashes, sleeps, outages, clocks set.

Each strikes a controller that is up, at a moment drawn from the seed. All disasters are over before
a world comes to its end. What befalls one controller alone is in mishaps.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from distjob.testing.sim import mishaps, users
from distjob.testing.sim.machine import Machine

if TYPE_CHECKING:
    from distjob.testing.sim.world import World

_Hit: TypeAlias = Callable[["World", Machine, Iterator[int]], None]

SPAN = 6.0
"""Virtual seconds in which disasters happen."""


def strike(world: World, errands: Iterator[int]) -> None:
    """Draw what will happen, and when."""
    rng, profile = world.rng, world.profile
    kinds: list[tuple[int, str, _Hit]] = [
        (profile.crashes, "crash", _crash),
        (profile.sleeps, "sleep", _sleep),
        (profile.cuts, "cut", _cut),
        (profile.restarts, "restart", _restart),
        (profile.jumps, "jump", _jump),
        (profile.closes, "close", _close),
    ]
    for most, name, hit in kinds:
        for _ in range(rng.randint(min(1, most), most)):
            world.after(rng.uniform(0.0, SPAN), _befall, world, errands, name, hit)


def _befall(world: World, errands: Iterator[int], name: str, hit: _Hit) -> None:
    up = [machine for machine in world.machines if machine.up and not machine.me.closing]
    if up and world.net.faulty:
        machine = world.rng.choice(up)
        world.seen[name] += 1
        world.log(machine.name, name)
        hit(world, machine, errands)


def _crash(world: World, machine: Machine, errands: Iterator[int]) -> None:
    mishaps.crash(world, machine)
    if world.rng.random() < 0.7:
        pause = world.rng.random() * world.ttl
        world.after(pause, users.start, world, errands, world.rng.randint(1, 2))


def _sleep(world: World, machine: Machine, errands: Iterator[int]) -> None:
    del errands
    mishaps.sleep(world, machine)


def _cut(world: World, machine: Machine, errands: Iterator[int]) -> None:
    del errands
    mishaps.cut(world, machine)


def _restart(world: World, machine: Machine, errands: Iterator[int]) -> None:
    del machine, errands
    wipe = world.rng.random() < world.profile.wipes / max(1, world.profile.restarts)
    world.unclean = True
    world.seen["wipe"] += wipe
    up = [machine for machine in world.machines if machine.up]
    world.net.restart(up, world.rng.uniform(0.05, 0.6) * world.ttl, wipe=wipe)


def _jump(world: World, machine: Machine, errands: Iterator[int]) -> None:
    del errands
    machine.clock.jump += world.rng.choice((-3600.0, 3600.0))


def _close(world: World, machine: Machine, errands: Iterator[int]) -> None:
    del errands
    machine.excused = True
    world.disturb(world.ttl, machine)
    users.close_down(machine)
