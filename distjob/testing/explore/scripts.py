"""The scripts: what a few users do, short enough that all its schedules can be run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from distjob.protocol.effects import Op
from distjob.rules.jobs import AgentJob, AsyncJob, Job, OnOwnerLoss
from distjob.testing.explore.users import User

Steps = Callable[[User], Op[None]]
TTL = 10.0


class Script(NamedTuple):
    """Users by controller, and what the store and the controllers are like."""

    name: str
    users: tuple[tuple[str, Steps], ...]
    main: bool = False
    max_queued: int = 0
    pushed: bool = True
    tells_ends: bool = False


def _begins(vm: str, after: float, seconds: float, *, job: Job = Job.MODIFY) -> Steps:
    """One job, held for so long."""

    def steps(user: User) -> Op[None]:
        yield from user.pause(after)
        lease = yield from user.begin(vm, job)
        yield from user.hold(lease, seconds)
        yield from user.end(lease)

    return steps


def _twice(user: User) -> Op[None]:
    """Two jobs, one after the other, without a pause."""
    for _ in range(2):
        lease = yield from user.begin("vm", Job.MODIFY)
        yield from user.end(lease)


def _impatient(user: User) -> Op[None]:
    yield from user.pause(0.1)
    lease = yield from user.begin("vm", Job.MODIFY, wait=1.0, fails=("JobTimeout",))
    yield from user.end(lease)


def _both_ways(user: User) -> Op[None]:
    yield from user.pause(0.2)
    lease = yield from user.begin("vm", Job.QUERY, agent=AgentJob.QUERY)
    yield from user.hold(lease, 0.1)
    yield from user.end(lease)


def _agent(user: User) -> Op[None]:
    lease = yield from user.begin("vm", agent=AgentJob.MODIFY)
    yield from user.hold(lease, 0.5)
    yield from user.end(lease)


def _tries(user: User) -> Op[None]:
    yield from user.pause(0.1)
    lease = yield from user.begin("vm", Job.QUERY, wait=None)
    yield from user.end(lease)


def _migrates(user: User) -> Op[None]:
    job = yield from user.begin("vm", kind=AsyncJob.MIGRATION_OUT)
    if (yield from user.hold(job, 0.2)) and job is not None:
        step = yield from user.begin("vm", parent=job)
        yield from user.hold(step, 0.2)
        yield from user.end(step)
        yield from user.allow(job, Job.MODIFY)
        yield from user.hold(job, 0.5)
    yield from user.end(job)


def _leaves(user: User) -> Op[None]:
    job = yield from user.begin("vm", kind=AsyncJob.BACKUP, loss=OnOwnerLoss.ORPHAN)
    yield from user.say(job, "copied")
    yield from user.hold(job, 0.3)
    yield from user.detach(job)


def _keeps(user: User) -> Op[None]:
    """An async job that outlives its owner, ended by its owner."""
    job = yield from user.begin("vm", kind=AsyncJob.BACKUP, loss=OnOwnerLoss.ORPHAN)
    yield from user.hold(job, 0.3)
    yield from user.end(job)


def _adopts(user: User) -> Op[None]:
    yield from user.pause(0.5)
    fails = ("NotOwner", "WrongJob")
    kind = AsyncJob.BACKUP
    job = yield from user.begin("vm", kind=kind, adopts=True, wait=None, fails=fails)
    yield from user.hold(job, 0.2)
    yield from user.end(job)


def _discards(user: User) -> Op[None]:
    yield from user.pause(0.5)
    yield from user.discard("vm")


def _heeds(user: User) -> Op[None]:
    job = yield from user.begin("vm", kind=AsyncJob.SAVE)
    yield from user.hears_abort(job, 3.0)
    yield from user.end(job)


def _aborts(user: User) -> Op[None]:
    yield from user.pause(0.3)
    yield from user.abort("vm", "WrongJob")


def _evicts(user: User) -> Op[None]:
    yield from user.pause(0.5)
    yield from user.evict("vm")


def _crosses(first: str, second: str) -> Steps:
    def steps(user: User) -> Op[None]:
        for vm in (first, second):
            lease = yield from user.begin(vm, Job.MODIFY)
            yield from user.hold(lease, 0.1)
            yield from user.end(lease)

    return steps


def _limited(user: User) -> Op[None]:
    lease = yield from user.begin("vm", Job.MODIFY, fails=("QueueFull",))
    yield from user.hold(lease, 0.3)
    yield from user.end(lease)


def _closes(user: User) -> Op[None]:
    yield from user.pause(0.3)
    yield from user.close()


_IN_TURN = (
    ("a", _begins("vm", 0.0, 1.0)),
    ("b", _begins("vm", 0.1, 0.3)),
    ("c", _begins("vm", 0.2, 0.1, job=Job.QUERY)),
)

SCRIPTS = (
    Script("handover", _IN_TURN, main=True),
    Script("long", (("a", _migrates), ("b", _begins("vm", 0.1, 0.1)), ("c", _tries)), main=True),
    Script(
        "impatient",
        (("a", _begins("vm", 0.0, 2.0)), ("b", _impatient), ("c", _both_ways)),
        main=True,
    ),
    Script("heir", (("a", _leaves), ("b", _adopts), ("c", _begins("vm", 0.1, 0.1))), main=True),
    Script("told", _IN_TURN, tells_ends=True),
    Script("polled", _IN_TURN, pushed=False),
    Script("collision", (("a", _twice), ("b", _twice))),
    Script("agent", (("a", _agent), ("b", _both_ways))),
    Script(
        "threads", (("a", _begins("vm", 0.0, 0.3)), ("a", _begins("vm", 0.1, 0.1)), ("b", _twice))
    ),
    Script("two VMs", (("a", _crosses("vm1", "vm2")), ("b", _crosses("vm2", "vm1")))),
    Script("limit", (("a", _limited), ("b", _limited), ("c", _limited)), max_queued=2),
    Script("orphan", (("a", _keeps), ("b", _begins("vm", 0.1, 0.1)))),
    Script("discard", (("a", _leaves), ("b", _discards))),
    Script("abort", (("a", _heeds), ("b", _aborts))),
    Script(
        "evict", (("a", _begins("vm", 0.0, 2.0)), ("b", _begins("vm", 0.1, 0.1)), ("c", _evicts))
    ),
    Script(
        "close", (("a", _begins("vm", 0.0, 1.0)), ("a", _closes), ("b", _begins("vm", 0.1, 0.1)))
    ),
)
BY_NAME = {script.name: script for script in SCRIPTS}
