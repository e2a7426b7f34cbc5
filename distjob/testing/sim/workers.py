"""A worker of a simulated world: one thread of a controller, that begins jobs and ends them.

It uses the real operations of the protocol, cancelled now and then; it tells the watch what it
asked for and what it was told, and judges nothing itself. What it does with async jobs is in
longjobs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from distjob.errors import ClientClosed, DistjobError, LeaseLost, NotOwner, OutcomeUnknown
from distjob.protocol import held as holding
from distjob.protocol.begin import adopt, begin, begin_now
from distjob.protocol.effects import Op, Wait, ask
from distjob.protocol.parts import HeldJob, Wish
from distjob.protocol.state import ClientState
from distjob.rules.jobs import PLAIN_JOBS, AgentJob, AsyncJob, Job, OnOwnerLoss
from distjob.testing.sim.calls import Call
from distjob.testing.sim.machine import Machine, Task

if TYPE_CHECKING:
    from distjob.testing.sim.calls import Asking, Lease

_KINDS = [kind for kind in AsyncJob if kind is not AsyncJob.MAINTENANCE]  # a person's


class Cancelled(BaseException):
    """What a cancellation throws into an operation (KeyboardInterrupt, asyncio's)."""


def begins(me: ClientState, vm: str, wish: Wish, wait: float | None) -> Op[HeldJob | None]:
    """The operation that a client runs for this wish; it waits, unless ``wait`` is None."""
    if wish.adopts:
        return (yield from adopt(me, vm, wish))
    if wait is None:
        return (yield from begin_now(me, vm, wish))
    return (yield from begin(me, vm, wish, wait))


class Worker:
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
            yield from self.errand(self.rng.choice(self.world.vms))

    def errand(self, vm: str) -> Op[None]:
        """One job of this VM."""
        lease = yield from self.begin(vm, self.wish(), self.patience())
        if lease:
            yield from self.hold(lease)
            yield from self.end(lease)

    def wish(self) -> Wish:
        rng, dice = self.rng, self.rng.random()
        if dice < 0.25:
            policy = rng.choice(list(OnOwnerLoss))
            return Wish("", job=Job.ASYNC, kind=rng.choice(_KINDS), on_owner_loss=policy)
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
            held = yield from begins(self.me, vm, call.wish, wait)
        except (DistjobError, Cancelled, GeneratorExit) as error:
            self.watch.raised(call, error)
            return None
        return self.watch.returned(call, held)

    def may_be_cancelled(self, asking: Asking) -> None:
        moment, rng = 0.0, self.rng
        while rng.random() < self.world.profile.cancels:
            moment += rng.random() ** 2 * rng.choice((0.1, 3.0))
            self.world.after(moment, self.cancel, asking)

    def cancel(self, asking: Asking) -> None:
        acting = isinstance(asking, Call) and asking.acting
        ending = isinstance(asking, Call) and asking.ending
        if not (asking.open or ending or acting) or self.task.done or self.machine.asleep:
            return
        self.world.seen["cancel"] += 1
        self.world.log(self.task.name, f"cancel {asking.name}")
        step = isinstance(asking, Call) and asking.wish.parent
        if self.rng.random() < 0.2 and not step and not acting:
            self.task.drop()  # as Python does with a generator that nobody has any more
        else:
            self.task.resume(self.task.turn, None, Cancelled())

    def hold(self, lease: Lease) -> Op[None]:
        """Use what the job is for."""
        if self.rng.random() < 0.3:
            yield from self.listen(lease)
        for _ in range(self.rng.randint(0, 7 if lease.held.long else 4)):
            if not self.use(lease) or not (yield from self.tend(lease)):
                return
            yield from self.pause(self.rng.choice((0.1, 0.3, 0.3, self.world.ttl)))
        self.use(lease)

    def tend(self, lease: Lease) -> Op[bool]:
        """What else its holder does while it is held; False: it is to end."""
        yield from ()
        return not lease.over

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

    def end(self, lease: Lease) -> Op[None]:
        if not lease.over:
            yield from self.let_go(lease, holding.end)

    def let_go(self, lease: Lease, how: Callable[[ClientState, HeldJob], Op[None]]) -> Op[None]:
        """End or detach."""
        call = lease.call
        lease.over = call.ending = True
        call.ended = not call.leaving
        self.may_be_cancelled(call)
        forced = lease.held.ticket.id in self.watch.force.taken
        try:
            yield from how(self.me, lease.held)
        except LeaseLost:
            if lease.held.taken and call.vm in self.world.net.resent:
                lease.listens = False  # its own commit, sent twice, looks like another's hand
            else:
                self.watch.told_lost(lease)
        except NotOwner as error:
            self.watch.fail("no surprise", f"{call.name}: {error}")
        except (OutcomeUnknown, ClientClosed) as error:
            call.ended = call.ended and lease.held.ended  # not if it was closed before
            self.watch.excused_error(call, error)
            call.ended = call.ended and lease.held.ended  # or the closing client refused it at once
        except (Cancelled, GeneratorExit):
            pass
        else:
            self.watch.let_go(lease, forced=forced)
        call.ending = False

    def pause(self, most: float) -> Op[None]:
        yield from ask(Wait(self.rng.random() ** 2 * most))
