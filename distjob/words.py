"""What a caller is told about who is in the way: libvirt's sentence, then distjob's facts.

The sentence is libvirt's own, so that an operator recognises it; everything else follows on the
same line. Pure: facts come from the record, times from the caller.
"""

from __future__ import annotations

from distjob.jobs import Job, Slot
from distjob.record import Holder, JobRecord, Ticket


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
        f"{'agent' if slot is Slot.AGENT else 'monitor'}={_shown(holder.ticket.api)}"
        for slot, holder in record.blockers(ticket)
    ]
    text = "cannot acquire state change lock"
    if held:
        text += f" (held by {' '.join(held)})"
    return text + (" due to max_queued limit" if full else "")


def holder_facts(slot: Slot, holder: Holder, today: float) -> str:
    """One who is in the way: ``modify of ctl-a (host1, pid 7), held 3.1 s, token 17``."""
    ticket = holder.ticket
    owner = ticket.owner
    who = f"{_shown(owner.controller)} ({_shown(owner.host)}, pid {owner.pid})"
    seconds = max(0.0, today - holder.since)
    return (
        f"the {slot} slot holds {job_name(ticket)} of {who}, api {_shown(ticket.api)},"
        f" held {seconds:.1f} s, token {holder.token}"
    )


def timeout_text(vm: str, record: JobRecord, ticket: Ticket, waited: float, today: float) -> str:
    """The message of `JobTimeout`."""
    facts = [holder_facts(slot, holder, today) for slot, holder in record.blockers(ticket)]
    return (
        f"{libvirt_text(record, ticket)}: VM {vm!r}: {job_name(ticket)} waited {waited:.1f} s; "
        + ("; ".join(facts) or "others were let in first")
    )


def full_text(vm: str, record: JobRecord, ticket: Ticket, limit: int, today: float) -> str:
    """The message of `QueueFull`."""
    facts = [holder_facts(slot, holder, today) for slot, holder in record.blockers(ticket)]
    count = f"{record.count()} jobs are held or waited for, max_queued is {limit}"
    return (
        f"{libvirt_text(record, ticket, full=True)}: VM {vm!r}: {job_name(ticket)} refused:"
        f" {'; '.join([count, *facts])}"
    )


def _shown(text: str) -> str:
    """As it is, if it can't move a terminal's cursor: others may have written it."""
    return text if text.isprintable() else ascii(text)[1:-1]
