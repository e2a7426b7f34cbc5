"""What can befall one controller of a simulated world, and strikes at delicate moments, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distjob.testing.sim.machine import Machine

if TYPE_CHECKING:
    from distjob.testing.sim.world import World


def crash(world: World, machine: Machine) -> None:
    """It is gone between two steps."""
    world.unclean = True
    world.disturb(world.ttl, machine)
    machine.crash()
    world.watch.crashed(machine)


def sleep(world: World, machine: Machine) -> None:
    """It is stopped, perhaps past its session's end."""
    world.unclean = True
    machine.sleep(world.rng.uniform(0.2, 2.0) * world.ttl)


def cut(world: World, machine: Machine) -> None:
    """It can't reach the store, perhaps past its session's end."""
    world.unclean = True
    world.net.cut(machine, world.rng.uniform(0.05, 1.8) * world.ttl)


def near(machine: Machine, chance: float) -> None:
    """Perhaps strike just now: something delicate is begun. Only with what the profile has."""
    world, profile = machine.world, machine.world.profile
    kinds = ((profile.crashes, "crash", crash), (profile.sleeps, "sleep", sleep))
    hits = [(name, hit) for most, name, hit in (*kinds, (profile.cuts, "cut", cut)) if most]
    if hits and world.rng.random() < chance:
        name, hit = world.rng.choice(hits)
        world.after(world.rng.random() ** 2 * 0.3, _befall, machine, name, hit)


def _befall(machine: Machine, name: str, hit: Callable[[World, Machine], None]) -> None:
    world = machine.world
    others = [other for other in world.machines if other.up and other is not machine]
    if machine.up and others and world.net.faulty and not machine.me.closing:
        world.seen[f"{name} of an owner"] += 1
        world.log(machine.name, f"{name} of an owner")
        hit(world, machine)
