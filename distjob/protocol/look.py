"""Looking without a job: what a VM's record says, and whether those in it live."""

from __future__ import annotations

import msgspec

from distjob.protocol.effects import Op, Read, Remaining, Scan, ask
from distjob.protocol.state import ClientState
from distjob.rules.codec import decode
from distjob.rules.jobs import Mask, OnOwnerLoss, Slot
from distjob.rules.record import JobRecord
from distjob.rules.ticket import AbortRequest, AsyncHolder, Holder, Left, Progress, Ticket
from distjob.rules.words import job_name
from distjob.store import Versioned


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is held or waited for."""

    job: str
    """``modify``, ``agent query``, ``async migration out``, ``nested step of backup``, ..."""
    slot: Slot | None
    """The slot it holds; None while it waits."""
    token: int
    """0 while it waits."""
    api: str
    controller: str
    host: str
    pid: int
    session: str
    seconds: float
    """Since it was granted or, while it waits, asked for; by the wall clocks involved."""
    alive: bool
    """Whether its session lives; if not, the job is freed by whoever comes next."""
    ticket: str
    phase: str = ""
    """Of an async job, as what follows; set by its owner."""
    progress: Progress | None = None
    abort: AbortRequest | None = None
    """Somebody has asked it to stop."""
    on_owner_loss: OnOwnerLoss | None = None
    """What becomes of it when its owner's session ends."""
    left: Left | None = None
    """It has no owner: it was detached, or is an orphan. Then ``alive`` is False."""
    waits_for: tuple[str, ...] = ()
    """While it waits: the tickets that hold what it needs."""


class VMStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All jobs of one VM at one version of its record."""

    vm: str
    version: int
    holders: tuple[JobStatus, ...]
    waiters: tuple[JobStatus, ...]
    """Oldest first."""
    mask: Mask | None
    """The sync jobs that the running async job lets in; None if none runs."""

    @property
    def idle(self) -> bool:
        return not self.holders and not self.waiters

    @property
    def long(self) -> JobStatus | None:
        """The async job, if one runs or was left."""
        return next((job for job in self.holders if job.slot is Slot.ASYNC), None)


def status(me: ClientState, vm: str) -> Op[VMStatus]:
    """Raises BackendUnavailable, RecordError, ClientClosed."""
    me.check_open()
    value = yield from ask(Read(vm))
    return (yield from _judge(me, [(vm, value)]))[0]


def statuses(me: ClientState) -> Op[list[VMStatus]]:
    """Of every VM that is not idle, by name. Raises as `status`."""
    me.check_open()
    return (yield from _judge(me, sorted((yield from ask(Scan())), key=lambda item: item[0])))


def orphans(me: ClientState) -> Op[list[VMStatus]]:
    """Of every VM whose async job has no owner. Raises as `status`."""
    found = yield from statuses(me)
    return [vm for vm in found if vm.long is not None and vm.long.left]


def _judge(me: ClientState, values: list[tuple[str, Versioned]]) -> Op[list[VMStatus]]:
    records = [(vm, v.version, decode(vm, v.version, v.value)) for vm, v in values]
    sessions = frozenset[str]().union(*(record.sessions() for _, _, record in records))
    remaining = (yield from ask(Remaining(sessions))) if sessions else {}
    alive = {session for session, seconds in remaining.items() if seconds > 0}
    wall = me.clock.wall()
    return [_status(vm, version, record, alive, wall) for vm, version, record in records]


def job_status(holder: Holder, slot: Slot, wall: float, *, alive: bool) -> JobStatus:
    """Of a job that is held."""
    status = _of(holder.ticket, holder.since, wall, alive=alive)
    status = msgspec.structs.replace(status, slot=slot, token=holder.token)
    if not isinstance(holder, AsyncHolder):
        return status
    gone = holder.owner_gone or (Left.ORPHANED if holder.outlives and not alive else None)
    return msgspec.structs.replace(
        status,
        alive=alive and not gone,
        phase=holder.phase,
        progress=holder.progress,
        abort=holder.abort,
        on_owner_loss=holder.ticket.on_owner_loss,
        left=gone,
    )


def waiter_status(
    ticket: Ticket, wall: float, *, alive: bool, waits_for: tuple[str, ...] = ()
) -> JobStatus:
    """Of one that waits."""
    status = _of(ticket, ticket.asked, wall, alive=alive)
    return msgspec.structs.replace(status, waits_for=waits_for)


def _of(ticket: Ticket, since: float, wall: float, *, alive: bool) -> JobStatus:
    return JobStatus(
        job=job_name(ticket),
        slot=None,
        token=0,
        api=ticket.api,
        controller=ticket.owner.controller,
        host=ticket.owner.host,
        pid=ticket.owner.pid,
        session=ticket.session,
        seconds=max(0.0, wall - since),
        alive=alive,
        ticket=ticket.id,
    )


def _status(vm: str, version: int, record: JobRecord, alive: set[str], wall: float) -> VMStatus:
    return VMStatus(
        vm=vm,
        version=int(version),  # whatever it carries besides
        holders=tuple(
            job_status(holder, slot, wall, alive=holder.ticket.session in alive)
            for slot, holder in record.holders()
        ),
        waiters=tuple(
            waiter_status(
                ticket,
                wall,
                alive=ticket.session in alive,
                waits_for=tuple(holder.ticket.id for _, holder in record.blockers(ticket)),
            )
            for ticket in record.queue
        ),
        mask=record.async_.mask if record.async_ else None,
    )
