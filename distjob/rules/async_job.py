"""The rules of an async job's life: what its owner may change, and how it passes to another.

Pure functions on a record, as record.py's; those that need the owner take its ticket's id, and
return None if that ticket does not own the async job (any more): it ended, was left or was removed.

Source: libvirt 9.0.0 ``virDomainObjSetAsyncJobMask``, ``qemuDomainObjSetJobPhase``,
``qemuDomainObjReleaseAsyncJob``, ``qemuDomainObjStartJobPhase``; orphans are what its daemon
recovers from the status file after a restart.
"""

from __future__ import annotations

from typing import Any

import msgspec

from distjob.rules.jobs import Mask
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.ticket import AbortRequest, AsyncHolder, Left, Progress, Ticket


def amend(
    record: JobRecord,
    ticket_id: str,
    *,
    wall: float,
    mask: Mask | None = None,
    phase: str | None = None,
    progress: Progress | None = None,
) -> JobRecord | None:
    """The owner sets what is given; waiters that a new mask lets in start at once.

    The same record if nothing changes.
    """
    running = record.owned(ticket_id)
    if running is None:
        return None
    given = {"mask": mask, "phase": phase, "progress": progress}
    new = {name: value for name, value in given.items() if value is not None}
    if all(getattr(running, name) == value for name, value in new.items()):
        return record
    return _with(record, running, **new).promote(wall)


def request_abort(record: JobRecord, abort: AbortRequest) -> JobRecord | None:
    """Ask the owner to stop, or the next one if it has none; None if no async job runs.

    The first request stands: the same record if there is one already.
    """
    if record.async_ is None:
        return None
    return record if record.async_.abort else _with(record, record.async_, abort=abort)


def detach(record: JobRecord, ticket_id: str, *, wall: float) -> JobRecord | None:
    """The owner gives the job up without ending it; its steps that still wait are dropped.

    So is one that this same commit let in. A step that is under way keeps the sync slot until its
    own end, as at the job's end. The same record if this owner has done it already.
    """
    running = record.async_
    if running is None or running.ticket.id != ticket_id or running.owner_gone is Left.ORPHANED:
        return None
    if running.owner_gone:
        return record
    detached = _with(record, running, owner_gone=Left.DETACHED)
    return detached.without(
        lambda ticket: record.just_let_in(ticket, ticket_id),
        lambda ticket: ticket.parent == ticket_id,
    ).promote(wall)


def adopt(record: JobRecord, ticket: Ticket) -> tuple[Verdict, JobRecord]:
    """Become the owner of a job that was left; phase, progress, mask and what was asked of it stay.

    A refusal returns this same record; so does a ticket that owns it already.
    """
    if record.owned(ticket.id):
        return Verdict.GRANTED, record
    running = record.async_
    if running is None or running.ticket.kind is not ticket.kind:
        return Verdict.WRONG_JOB, record
    if not running.owner_gone:
        return Verdict.NOT_OWNER, record
    heir = msgspec.structs.replace(ticket, on_owner_loss=running.ticket.on_owner_loss)
    return Verdict.GRANTED, _with(record, running, ticket=heir, token=0, owner_gone=None)


def _with(record: JobRecord, running: AsyncHolder, **changes: Any) -> JobRecord:
    return msgspec.structs.replace(record, async_=msgspec.structs.replace(running, **changes))
