"""Looking without a job: what a VM's record says, and whether those in it live."""

from __future__ import annotations

import msgspec

from distjob.codec import decode
from distjob.jobs import Mask, Slot
from distjob.protocol.controller import Controller
from distjob.protocol.effects import Op, Read, Remaining, Scan, ask
from distjob.record import JobRecord, Ticket
from distjob.store import Versioned
from distjob.words import job_name


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


def status(me: Controller, vm: str) -> Op[VMStatus]:
    """Raises BackendUnavailable, RecordError."""
    value = yield from ask(Read(vm))
    return (yield from _judge(me, [(vm, value)]))[0]


def statuses(me: Controller) -> Op[list[VMStatus]]:
    """Of every VM that is not idle, by name. Raises BackendUnavailable, RecordError."""
    return (yield from _judge(me, sorted((yield from ask(Scan())), key=lambda item: item[0])))


def _judge(me: Controller, values: list[tuple[str, Versioned]]) -> Op[list[VMStatus]]:
    records = [(vm, v.version, decode(vm, v.version, v.value)) for vm, v in values]
    sessions = frozenset[str]().union(*(record.sessions() for _, _, record in records))
    left = (yield from ask(Remaining(sessions))) if sessions else {}
    alive = {session for session, seconds in left.items() if seconds > 0}
    today = me.clock.wall()
    return [_status(vm, version, record, alive, today) for vm, version, record in records]


def _status(vm: str, version: int, record: JobRecord, alive: set[str], today: float) -> VMStatus:
    def job(ticket: Ticket, since: float, slot: Slot | None = None, token: int = 0) -> JobStatus:
        return JobStatus(
            job=job_name(ticket),
            slot=slot,
            token=token,
            api=ticket.api,
            controller=ticket.owner.controller,
            host=ticket.owner.host,
            pid=ticket.owner.pid,
            session=ticket.session,
            seconds=max(0.0, today - since),
            alive=ticket.session in alive,
            ticket=ticket.id,
        )

    return VMStatus(
        vm=vm,
        version=version,
        holders=tuple(job(h.ticket, h.since, slot, h.token) for slot, h in record.holders()),
        waiters=tuple(job(ticket, ticket.asked) for ticket in record.queue),
        mask=record.async_.mask if record.async_ else None,
    )
