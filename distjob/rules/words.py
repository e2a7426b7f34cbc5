"""What a caller is told about who is in the way: libvirt's sentence, then distjob's facts.

The sentence is libvirt's own, so that an operator recognises it; everything else follows on the
same line. Pure: facts come from the record, times from the caller.
"""

from __future__ import annotations

from distjob.rules.jobs import Job, Slot
from distjob.rules.record import LONGEST_LINE, JobRecord
from distjob.rules.ticket import AsyncHolder, Holder, Owner, Ticket


def job_name(ticket: Ticket) -> str:
    """``modify``, ``agent query``, ``async migration out``, ``nested step of backup``, ..."""
    if ticket.job is Job.ASYNC:
        names = [f"async {ticket.kind}"]
    elif ticket.job is Job.ASYNC_NESTED:
        names = [f"nested step of {ticket.kind}"]
    else:
        names = [str(ticket.job)] if ticket.job else []
    if ticket.agent:
        names.append(f"agent {ticket.agent}")
    return " + ".join(names)


def libvirt_text(record: JobRecord, ticket: Ticket, *, full: bool = False) -> str:
    """libvirt's sentence (``virDomainObjBeginJobInternal``, label ``error``)."""
    held = [
        f"{'agent' if slot is Slot.AGENT else 'monitor'}={shown(holder.ticket.api)}"
        for slot, holder in record.blockers(ticket)
    ]
    text = "cannot acquire state change lock"
    if held:
        text += f" (held by {' '.join(held)})"
    return text + (" due to max_queued limit" if full else "")


def holder_facts(slot: Slot, holder: Holder, wall: float) -> str:
    """One who is in the way: ``modify of ctl-a (host1, pid 7), held 3.1 s, token 17``."""
    ticket = holder.ticket
    seconds = max(0.0, wall - holder.since)
    facts = (
        f"the {slot} slot holds {job_name(ticket)} of {owner_name(ticket.owner)}, api"
        f" {shown(ticket.api)}, held {seconds:.1f} s, token {holder.token}"
    )
    if isinstance(holder, AsyncHolder):
        if holder.phase:
            facts += f", phase {shown(holder.phase)}"
        if holder.abort:
            facts += f", asked to abort by {owner_name(holder.abort.by)}"
        if holder.owner_gone:
            facts += f", {holder.owner_gone}: nobody owns it until it is adopted or discarded"
    return facts


def owner_name(owner: Owner) -> str:
    """``ctl-a (host1, pid 7)``."""
    return f"{shown(owner.controller)} ({shown(owner.host)}, pid {owner.pid})"


def taken_text(vm: str, job: str, token: int) -> str:
    """Why a lease is lost whose session lives."""
    return (
        f"VM {vm!r}: the lease of {job} (token {token}) is lost: the job was taken away by force"
        " (evicted by an operator, or discarded with its async job). Another may hold it by now"
    )


def timeout_text(vm: str, record: JobRecord, ticket: Ticket, waited: float, wall: float) -> str:
    """The message of `JobTimeout`."""
    facts = [
        holder_facts(slot, holder, wall) + _if_own(slot, holder, ticket)
        for slot, holder in record.blockers(ticket)
    ]
    return (
        f"{libvirt_text(record, ticket)}: VM {vm!r}: {job_name(ticket)} waited {waited:.1f} s; "
        + ("; ".join(facts) or "others were let in first")
    )


def _if_own(slot: Slot, holder: Holder, ticket: Ticket) -> str:
    """What to do if it is the asker itself that is in its way."""
    if holder.ticket.session != ticket.session:
        return ""
    if slot is Slot.ASYNC:
        advice = "begin its steps by nested(), or let other jobs in by allow()"
    else:
        advice = "was its lease not ended, or should it be passed on instead of a second begin?"
    return f" (this same client's: {advice})"


def full_text(vm: str, record: JobRecord, ticket: Ticket, limit: int, wall: float) -> str:
    """The message of `QueueFull`."""
    facts = [holder_facts(slot, holder, wall) for slot, holder in record.blockers(ticket)]
    reached = 0 < limit <= record.count()
    bound = f"max_queued is {limit}" if reached else f"more than {LONGEST_LINE} can't wait for a VM"
    count = f"{record.count()} jobs are held or waited for, {bound}"
    return (
        f"{libvirt_text(record, ticket, full=True)}: VM {vm!r}: {job_name(ticket)} refused:"
        f" {'; '.join([count, *facts])}"
    )


def unadoptable_text(vm: str, record: JobRecord, ticket: Ticket, wall: float) -> str:
    """Why there is nothing to adopt."""
    running = record.async_
    if running is None:
        return f"VM {vm!r}: no async job runs: there is nothing to adopt"
    facts = holder_facts(Slot.ASYNC, running, wall)
    if running.ticket.kind is not ticket.kind:
        return f"VM {vm!r}: there is no {job_name(ticket)} to adopt: {facts}"
    return f"VM {vm!r}: {job_name(ticket)} can't be adopted, its owner lives: {facts}"


def shown(text: str) -> str:
    """As it is, if it can't move a terminal's cursor: others may have written it."""
    return text if text.isprintable() else ascii(text)[1:-1]
