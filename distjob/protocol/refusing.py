"""What is said of a begin that is not granted: who is in its way, and which error that is."""

from __future__ import annotations

from typing import NoReturn

from distjob.errors import NotOwner, OutcomeUnknown, QueueFull, WrongJob
from distjob.hooks import Blocker, Refused
from distjob.protocol.state import ClientState
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.ticket import Ticket
from distjob.rules.words import full_text, job_name, libvirt_text, unadoptable_text


def blockers_of(record: JobRecord, ticket: Ticket) -> tuple[Blocker, ...]:
    """Who is in the way of this ticket, for the hooks."""
    return tuple(
        Blocker(
            slot=slot,
            job=job_name(holder.ticket),
            owner=holder.ticket.owner,
            api=holder.ticket.api,
            token=holder.token,
        )
        for slot, holder in record.blockers(ticket)
    )


def refuse(
    me: ClientState, vm: str, ticket: Ticket, record: JobRecord, verdict: Verdict
) -> NoReturn:
    """Raise what ``verdict`` on a request means that was made of ``record``."""
    name = job_name(ticket)
    if verdict is Verdict.FULL:
        me.holdings.tell(Refused(vm=vm, job=name, ticket=ticket.id, depth=record.count()))
        raise QueueFull(
            full_text(vm, record, ticket, me.max_queued, me.clock.wall()),
            vm=vm,
            job=name,
            blockers=tuple(holder for _, holder in record.blockers(ticket)),
            libvirt_text=libvirt_text(record, ticket, full=True),
        )
    if verdict is Verdict.WRONG_JOB:
        running = record.async_.ticket if record.async_ else ticket
        raise WrongJob(f"VM {vm!r}: {name}: the {job_name(running)} job runs")
    raise NotOwner(f"VM {vm!r}: {name}: that async job is not (any more) yours")


def refuse_heir(
    me: ClientState, vm: str, ticket: Ticket, record: JobRecord, verdict: Verdict
) -> NoReturn:
    """The same of a request to adopt."""
    text = unadoptable_text(vm, record, ticket, me.clock.wall())
    raise (NotOwner if verdict is Verdict.NOT_OWNER else WrongJob)(text)


def unknown(me: ClientState, vm: str, ticket: Ticket, error: Exception) -> OutcomeUnknown:
    """What is raised of a begin of which nobody knows what became of it, for ``error``."""
    name = job_name(ticket)
    at_last = (
        "or by the next session of this client"
        if ticket.stays
        else f"at the latest within {me.ttl:g} s, when this session ends without it"
    )
    return OutcomeUnknown(
        f"VM {vm!r}: {name} may be held, or granted yet, to nobody's knowledge: {error}. It is"
        f" withdrawn as soon as the store answers, {at_last}",
        vm=vm,
        job=name,
    )
