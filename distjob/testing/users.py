"""The users of a simulated world: workers that begin jobs, use what they guard, and end them.

Each worker is one generator on the real operations of the protocol, cancelled now and then. It
tells the watch what it asked for and what it was told, and judges nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distjob.errors import (
    BackendUnavailable,
    ClientClosed,
    DistjobError,
    LeaseLost,
    NotOwner,
    OutcomeUnknown,
)
from distjob.jobs import PLAIN_JOBS, AgentJob, AsyncJob, Job, mask_of
from distjob.protocol import held as holding
from distjob.protocol.begin import GRACE, begin
from distjob.protocol.controller import Wish
from distjob.protocol.effects import Op, Wait, ask
from distjob.protocol.keeper import close, keep, open_session, tell_losses
from distjob.protocol.look import status
from distjob.testing.machine import Machine, Task

if TYPE_CHECKING:
    from distjob.testing.calls import Call, Lease
    from distjob.testing.world import World


_IN_ALL_WAYS = Wish("", job=Job.ASYNC, kind=AsyncJob.START, agent=AgentJob.QUERY)
"""What any other job of the VM keeps out."""


class Cancelled(BaseException):
    """What a cancellation throws into an operation (KeyboardInterrupt, asyncio's)."""


def populate(world: World) -> Iterator[int]:
    """Controllers and their workers; returns the errands that they share."""
    rng = world.rng
    errands = iter(range(rng.randint(10, 30)))
    for _ in range(rng.randint(2, 5)):
        start(world, errands, workers=rng.randint(1, 4))
    return errands


def all_done(world: World) -> bool:
    """Whether every worker has come to its end."""
    return all(m.crashed or m.closed or all(t.done for t in m.tasks[1:]) for m in world.machines)


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
    machine.run("keep", _keeping(machine))
    return machine


def start(world: World, errands: Iterator[int], workers: int) -> None:
    """A new controller with so many workers, unless the world comes to its end."""
    if not world.net.faulty:
        return
    machine = _machine(world)
    for number in range(workers):
        worker = _Worker(machine)
        worker.task = machine.run(f"w{number}", worker.work(errands))


def _keeping(machine: Machine) -> Op[None]:
    me = machine.me
    while me.session is None and not me.closing:
        try:
            yield from open_session(me)
        except BackendUnavailable:
            yield from ask(Wait(0.1))
    yield from keep(me)
    machine.kept.set()


def _closing(machine: Machine) -> Op[None]:
    me, world = machine.me, machine.world
    if machine.pending:  # what is on its way may be applied between the last look and the end
        world.unclean = True
    me.close()
    machine.interrupted = True
    machine.rouse()
    yield from ask(Wait(60.0, machine.kept))
    try:
        yield from close(me)
    except (BackendUnavailable, OutcomeUnknown):
        world.unclean = True
    yield from tell_losses(me)
    machine.closed = True


def _tidying(machine: Machine) -> Op[None]:
    while machine.me.session is None:
        yield from ask(Wait(0.05))
    for vm in machine.world.vms:
        call = machine.world.watch.calls_begin(machine, vm, _IN_ALL_WAYS, 20.0)
        held = yield from begin(machine.me, vm, call.wish, 20.0)
        lease = machine.world.watch.returned(call, held)
        if held is not None and lease is not None:
            lease.over = True
            yield from holding.end(machine.me, held)
    yield from _closing(machine)


# -- workers ---------------------------------------------------------------------------------------


class _Worker:
    """One thread of a controller."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.me = machine.me
        self.world = machine.world
        self.rng = machine.world.rng
        self.watch = machine.world.watch
        self.task: Task

    def work(self, errands: Iterator[int]) -> Op[None]:
        """Job after job, while there are some."""
        while self.me.session is None:  # a user has no client before it is connected
            yield from ask(Wait(0.05))
        for _ in errands:
            yield from self.pause(0.4)
            if self.me.closing:
                return
            vm = self.rng.choice(self.world.vms)
            lease = yield from self.begin(vm, self.wish(), self.patience())
            if lease:
                yield from self.hold(lease)
                yield from self.end(lease)
            elif self.rng.random() < 0.1:
                yield from self.look(vm)

    def wish(self) -> Wish:
        rng, dice = self.rng, self.rng.random()
        if dice < 0.25:
            return Wish("", job=Job.ASYNC, kind=rng.choice(list(AsyncJob)))
        agent = rng.choice(list(AgentJob))
        if dice < 0.35:
            return Wish("", agent=agent)
        job = rng.choice(PLAIN_JOBS)
        return Wish("", job=job, agent=agent if dice < 0.45 else None)

    def patience(self) -> float | None:
        dice = self.rng.random()
        if dice < 0.2:
            return None
        return self.rng.uniform(0.0, 1.5) if dice < 0.45 else self.rng.uniform(2.0, 25.0)

    def begin(self, vm: str, wish: Wish, wait: float | None) -> Op[Lease | None]:
        call = self.watch.calls_begin(self.machine, vm, wish, wait)
        self.may_be_cancelled(call)
        try:
            held = yield from begin(self.me, vm, call.wish, wait)
        except (DistjobError, Cancelled, GeneratorExit) as error:
            self.watch.raised(call, error)
            return None
        return self.watch.returned(call, held)

    def may_be_cancelled(self, call: Call) -> None:
        moment, rng = 0.0, self.rng
        while rng.random() < self.world.profile.cancels:
            moment += rng.random() ** 2 * rng.choice((0.1, 3.0))
            self.world.after(moment, self.cancel, call)

    def cancel(self, call: Call) -> None:
        if (call.open or call.ending) and not self.task.done and not self.machine.asleep:
            self.world.seen["cancel"] += 1
            self.world.log(self.task.name, f"cancel {call.name}")
            if self.rng.random() < 0.2 and not call.wish.parent:
                self.task.drop()  # as Python does with a generator that nobody has any more
            else:
                self.task.resume(self.task.turn, None, Cancelled())

    def hold(self, lease: Lease) -> Op[None]:
        """Use what the job is for; an async job's owner also makes steps and sets the mask."""
        if self.rng.random() < 0.3:
            yield from self.listen(lease)
        for _ in range(self.rng.randint(0, 4)):
            if not self.use(lease):
                return
            if lease.call.wish.job is Job.ASYNC:
                yield from self.go_on_with(lease)
            yield from self.pause(self.rng.choice((0.1, 0.3, 0.3, self.world.ttl)))
        self.use(lease)

    def use(self, lease: Lease) -> bool:
        """Write to the guarded resource; False if the holder has found that it is lost."""
        if self.world.polite:
            try:
                holding.check(self.me, lease.held)
            except LeaseLost:
                self.watch.told_lost(lease)
                return False
        self.watch.writes(lease)
        return True

    def listen(self, lease: Lease) -> Op[None]:
        def told() -> None:
            lease.told += 1

        lease.listens = yield from holding.on_lost(self.me, lease.held, told)

    def go_on_with(self, lease: Lease) -> Op[None]:
        dice, held = self.rng.random(), lease.held
        if dice < 0.3:
            mask = mask_of(job for job in PLAIN_JOBS if self.rng.random() < 0.5)
            try:
                yield from holding.set_mask(self.me, held, mask, patience=GRACE)
            except DistjobError as error:
                self.watch.mask_refused(lease, error)
            else:
                self.world.seen["mask set"] += 1
        elif dice < 0.8:
            step = Wish("", job=Job.ASYNC_NESTED, kind=held.ticket.kind, parent=held.ticket.id)
            wait = self.rng.uniform(0.5, 10.0)
            if dice < 0.65:
                yield from self.step(lease, step, wait)
            else:
                other = _Worker(self.machine)
                other.task = self.machine.run(f"n{self.world.steps}", other.step(lease, step, wait))

    def step(self, parent: Lease, wish: Wish, wait: float) -> Op[None]:
        """A nested job; the call is the parent's business as long as that is held."""
        lease = yield from self.begin(parent.held.vm, wish, wait)
        if lease:
            self.world.seen["nested"] += 1
            if self.use(lease):
                yield from self.pause(0.2)
                self.use(lease)
            yield from self.end(lease)

    def end(self, lease: Lease) -> Op[None]:
        call = lease.call
        if call.wish.job is Job.ASYNC and self.rng.random() < 0.7:
            yield from self.pause(0.1)
        lease.over = call.ending = True
        self.may_be_cancelled(call)
        try:
            yield from holding.end(self.me, lease.held)
        except LeaseLost:
            self.watch.told_lost(lease)
        except NotOwner as error:
            self.watch.fail("no surprise", f"{call.name}: {error}")
        except (OutcomeUnknown, ClientClosed) as error:
            self.watch.excused_error(call, error)
        except (Cancelled, GeneratorExit):
            pass
        else:
            lease.ended_well = True
        call.ending = False

    def look(self, vm: str) -> Op[None]:
        try:
            yield from status(self.me, vm)
        except BackendUnavailable:
            return

    def pause(self, most: float) -> Op[None]:
        yield from ask(Wait(self.rng.random() ** 2 * most))
