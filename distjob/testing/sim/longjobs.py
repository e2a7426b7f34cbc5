"""What workers of a simulated world do with async jobs: their own, and those of others.

Owners walk through phases, make steps, say progress, heed requests to abort, end or detach; others
ask to abort, adopt, discard and, now and then, break a job by force.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distjob.errors import BackendUnavailable, ClientClosed, DistjobError, LeaseLost
from distjob.protocol import outside, owner
from distjob.protocol.change import GRACE
from distjob.protocol.effects import Op
from distjob.protocol.look import JobStatus, VMStatus, status
from distjob.protocol.parts import Wish
from distjob.rules.jobs import PLAIN_JOBS, AsyncJob, Job, mask_of
from distjob.rules.ticket import AbortRequest, Progress
from distjob.testing.sim import mishaps
from distjob.testing.sim.workers import Cancelled, Worker

if TYPE_CHECKING:
    from distjob.testing.sim.calls import Hand, Lease

PHASES = ("prepare", "perform", "finish")


class LongWorker(Worker):
    """A worker that owns async jobs, too, and meddles with others'."""

    def errand(self, vm: str) -> Op[None]:
        dice = self.rng.random()
        if dice < 0.1:
            yield from self.ask_to_abort(vm)
        elif dice < 0.15:
            yield from self.salvage(vm)
        elif dice < 0.17:
            yield from self.evict(vm)
        else:
            lease = yield from self.begin(vm, self.wish(), self.patience())
            if lease:
                yield from self.hold(lease)
                yield from self.part_with(lease)
            elif self.rng.random() < 0.4:
                yield from self.salvage(vm)

    # -- its own -------------------------------------------------------------------------------

    def tend(self, lease: Lease) -> Op[bool]:
        if lease.call.wish.job is not Job.ASYNC:
            return True
        dice, held = self.rng.random(), lease.held
        if dice < 0.15:
            mask = mask_of(job for job in PLAIN_JOBS if self.rng.random() < 0.5)
            if (
                yield from self.act(lease, owner.set_job(self.me, held, mask=mask, patience=GRACE))
            ):
                self.world.seen["mask set"] += 1
        elif dice < 0.5:
            yield from self.next_phase(lease)
        elif dice < 0.6:
            progress = Progress(round(self.rng.random(), 6), 1.0)
            lease.progress = None
            said = owner.set_progress(self.me, held, progress, patience=GRACE)
            if (yield from self.act(lease, said)):
                lease.progress = progress
                self.world.seen["progress said"] += 1
        elif dice < 0.88:
            yield from self.go_on_with(lease)
        else:
            yield from self.await_abort(lease)
        if held.abort is not None:
            self.world.seen["abort heard"] += 1
        return not lease.over and (held.abort is None or self.rng.random() < 0.3)

    def act(self, lease: Lease, op: Op[None]) -> Op[bool]:
        """Change something of the job; whether that was acknowledged."""
        lease.call.acting = True
        self.may_be_cancelled(lease.call)
        try:
            yield from op
        except DistjobError as error:
            self.watch.change_refused(lease, error)
            return False
        except Cancelled:
            return False
        finally:
            lease.call.acting = False
        return True

    def next_phase(self, lease: Lease) -> Op[None]:
        held = lease.held
        done = PHASES.index(held.phase) + 1 if held.phase else 0
        phase = PHASES[done % len(PHASES)]
        mishaps.near(self.machine, 0.25 if done > 1 else 0.1)
        self.watch.long.says(lease, phase)
        if (yield from self.act(lease, owner.set_job(self.me, held, phase=phase, patience=GRACE))):
            self.watch.long.said(lease, phase)

    def await_abort(self, lease: Lease) -> Op[None]:
        def told(_: AbortRequest) -> None:
            lease.abort_told += 1

        lease.call.acting = True
        self.may_be_cancelled(lease.call)
        try:
            if self.rng.random() < 0.5 and not lease.abort_listens:
                lease.abort_listens = yield from owner.on_abort(self.me, lease.held, told)
            seconds = self.rng.uniform(0.0, 3.0)
            asked = yield from owner.wait_abort(self.me, lease.held, seconds)
        except LeaseLost:
            self.watch.told_lost(lease)
        except ClientClosed as error:
            self.watch.excused_error(lease.call, error)
        except Cancelled:
            pass
        else:
            self.world.seen["abort awaited"] += asked is not None
        finally:
            lease.call.acting = False

    def go_on_with(self, lease: Lease) -> Op[None]:
        """A step, in this thread or in another."""
        ticket = lease.held.ticket
        step = Wish("", job=Job.ASYNC_NESTED, kind=ticket.kind, parent=ticket.id)
        wait = self.rng.uniform(0.5, 10.0)
        if self.rng.random() < 0.5:
            yield from self.step(lease, step, wait)
        else:
            other = LongWorker(self.machine)
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

    def part_with(self, lease: Lease) -> Op[None]:
        """End it, or leave it to others."""
        if lease.call.wish.job is not Job.ASYNC or lease.over:
            yield from self.end(lease)
            return
        if self.rng.random() < 0.7:
            yield from self.pause(0.1)
        mishaps.near(self.machine, 0.1)
        if self.rng.random() < 0.7:
            yield from self.end(lease)
            return
        lease.call.leaving = True
        yield from self.let_go(lease, owner.give_up)
        kind = lease.held.ticket.kind
        up = [machine for machine in self.world.machines if machine.up]
        if kind is not None and up:
            for _ in range(self.rng.choice((0, 1, 2, 2))):
                LongWorker(self.rng.choice(up)).start("heir", lease.call.vm, kind)

    def start(self, name: str, vm: str, kind: AsyncJob) -> None:
        """Adopt that job in a thread of its own."""
        if not self.me.closing:
            self.task = self.machine.run(f"{name}{self.world.steps}", self.adopt(vm, kind))

    # -- others' -------------------------------------------------------------------------------

    def adopt(self, vm: str, kind: AsyncJob) -> Op[None]:
        wish = Wish("", job=Job.ASYNC, kind=kind, adopts=True)
        lease = yield from self.begin(vm, wish, None)
        if lease:
            yield from self.hold(lease)
            yield from self.part_with(lease)

    def ask_to_abort(self, vm: str) -> Op[None]:
        wait = self.rng.uniform(0.0, 10.0)
        call = self.watch.calls_begin(self.machine, vm, Wish("", job=Job.ABORT), wait)
        call.aborts = True
        self.may_be_cancelled(call)
        try:
            done = yield from outside.abort(self.me, vm, call.name, call.name, wait)
        except (DistjobError, Cancelled, GeneratorExit) as error:
            self.watch.raised(call, error)
        else:
            self.watch.aborted(call, done)

    def salvage(self, vm: str) -> Op[None]:
        """Look for an async job that was left, and adopt or discard it."""
        found = yield from self.look(vm)
        job = found.long if found else None
        if job is None or not (job.left or self.rng.random() < 0.2):
            return
        if self.rng.random() < 0.3:
            yield from self.discard(vm)
        else:
            yield from self.adopt(vm, kind_of(job))

    def discard(self, vm: str) -> Op[None]:
        hand = self.watch.force.lays_hand_on(self.machine, vm, None)
        yield from self.by_hand(hand, outside.discard(self.me, vm))

    def evict(self, vm: str) -> Op[None]:
        """Break one or two jobs of others by force."""
        found = yield from self.look(vm)
        jobs = (*found.holders, *found.waiters) if found else ()
        others = [job for job in jobs if self.watch.homes[job.session] is not self.machine]
        if not others:
            return
        tickets = frozenset(self.rng.choice(others).ticket for _ in range(2))
        hand = self.watch.force.lays_hand_on(self.machine, vm, tickets)
        yield from self.by_hand(hand, outside.evict(self.me, vm, sorted(tickets)))

    def by_hand(self, hand: Hand, op: Op[JobStatus] | Op[list[JobStatus]]) -> Op[None]:
        self.may_be_cancelled(hand)
        try:
            done = yield from op
        except (DistjobError, Cancelled, GeneratorExit) as error:
            self.watch.force.raised(hand, error)
            return
        jobs = [done] if isinstance(done, JobStatus) else done
        self.watch.force.returned(hand, {job.ticket for job in jobs})

    def look(self, vm: str) -> Op[VMStatus | None]:
        try:
            return (yield from status(self.me, vm))
        except (BackendUnavailable, ClientClosed):
            return None


def kind_of(job: JobStatus) -> AsyncJob:
    """The type of an async job, of its name."""
    return AsyncJob(job.job.removeprefix("async ").split(" + ")[0])
