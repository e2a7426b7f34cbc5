"""The users of a simulated world: its controllers, how they begin and close, and the last of them.

What their workers do is in workers.py and longjobs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from distjob.errors import BackendUnavailable, OutcomeUnknown
from distjob.protocol import held as holding
from distjob.protocol import outside
from distjob.protocol.closing import close
from distjob.protocol.effects import Op, Wait, ask
from distjob.protocol.hands import call_users, make_calls, work
from distjob.protocol.heart import beat, open_session
from distjob.protocol.look import orphans
from distjob.protocol.parts import Wish
from distjob.protocol.state import ClientState
from distjob.rules.jobs import AgentJob, AsyncJob, Job
from distjob.testing.sim.longjobs import LongWorker, kind_of
from distjob.testing.sim.machine import Machine, Task
from distjob.testing.sim.workers import begins

if TYPE_CHECKING:
    from distjob.testing.sim.world import World


_IN_ALL_WAYS = Wish("", job=Job.ASYNC, kind=AsyncJob.START, agent=AgentJob.QUERY)
"""What any other job of the VM keeps out."""


def populate(world: World) -> Iterator[int]:
    """Controllers and their workers; returns the errands that they share."""
    rng = world.rng
    errands = iter(range(rng.randint(10, 30)))
    for _ in range(rng.randint(2, 5)):
        start(world, errands, workers=rng.randint(1, 4))
    return errands


def all_done(world: World) -> bool:
    """Whether every worker has come to its end."""
    return all(m.crashed or m.closed or all(t.done for t in m.tasks[3:]) for m in world.machines)


def close_down(machine: Machine) -> Task:
    """Close the client as `Client.close` does."""
    return machine.run("close", _closing(machine))


def janitor(world: World) -> Machine:
    """A new controller that begins and ends a job of each VM, and closes."""
    machine = _machine(world)
    machine.run("janitor", _tidying(machine))
    return machine


# -- controllers -----------------------------------------------------------------------------------


def _machine(world: World) -> Machine:
    machine = Machine(world, chr(ord("a") + len(world.machines)))
    world.machines.append(machine)
    for name, op in (("heart", _beating), ("hands", work), ("calls", call_users)):
        machine.run(name, _in_the_background(machine, op))
    return machine


def start(world: World, errands: Iterator[int], workers: int) -> None:
    """A new controller with so many workers, unless the world comes to its end."""
    if not world.net.faulty:
        return
    machine = _machine(world)
    for number in range(workers):
        worker = LongWorker(machine)
        worker.task = machine.run(f"w{number}", worker.work(errands))


def _in_the_background(machine: Machine, op: Callable[[ClientState], Op[None]]) -> Op[None]:
    yield from op(machine.me)
    machine.running -= 1
    if not machine.running:
        machine.stopped.set()


def _beating(me: ClientState) -> Op[None]:
    while me.session is None and not me.closing:
        try:
            yield from open_session(me)
        except BackendUnavailable:
            yield from ask(Wait(0.1))
    yield from beat(me)


def _closing(machine: Machine) -> Op[None]:
    me, world = machine.me, machine.world
    if machine.pending:  # what is on its way may be applied between the last look and the end
        world.unclean = True
    me.close()
    machine.interrupted = True
    machine.rouse()
    yield from ask(Wait(60.0, machine.stopped))
    try:
        yield from close(me)
    except (BackendUnavailable, OutcomeUnknown):
        world.unclean = True
    yield from make_calls(me)
    machine.closed = True


def _tidying(machine: Machine) -> Op[None]:
    """Adopt and end, or discard, what was left; then a job of each VM shows that nothing is."""
    me, watch = machine.me, machine.world.watch
    while me.session is None:
        yield from ask(Wait(0.05))
    for found in (yield from orphans(me)):
        if machine.world.rng.random() < 0.5:
            hand = watch.force.lays_hand_on(machine, found.vm, None)
            watch.force.returned(hand, {(yield from outside.discard(me, found.vm)).ticket})
        elif found.long is not None:
            wish = Wish("", job=Job.ASYNC, kind=kind_of(found.long), adopts=True)
            yield from _begin_and_end(machine, found.vm, wish)
    for vm in machine.world.vms:
        yield from _begin_and_end(machine, vm, _IN_ALL_WAYS)
    yield from _closing(machine)


def _begin_and_end(machine: Machine, vm: str, wish: Wish) -> Op[None]:
    wait = None if wish.adopts else 20.0
    call = machine.world.watch.calls_begin(machine, vm, wish, wait)
    held = yield from begins(machine.me, vm, call.wish, wait)
    lease = machine.world.watch.returned(call, held)
    if held is not None and lease is not None:
        lease.over = call.ended = True
        yield from holding.end(machine.me, held)
