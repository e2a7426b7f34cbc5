"""What may be done to jobs that are not one's own: ask to abort, discard, break by force.

Each is one commit on the record, made in the name of the caller's session. Whoever loses something
by it is woken by that commit, and its late end changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from distjob.async_job import request_abort
from distjob.errors import NotOwner, WrongJob
from distjob.jobs import Job, Slot
from distjob.protocol.begin import GRACE, begin, live_session
from distjob.protocol.change import NOBODY, Edit, SessionEnded, change, lose
from distjob.protocol.controller import Controller
from distjob.protocol.effects import Op
from distjob.protocol.held import let_go
from distjob.protocol.look import JobStatus, job_status, waiter_status
from distjob.protocol.parts import Wish
from distjob.protocol.waiting import probe
from distjob.record import JobRecord
from distjob.ticket import AbortRequest, AsyncHolder, Holder
from distjob.words import holder_facts


def abort(me: Controller, vm: str, reason: str, api: str, wait: float) -> Op[JobStatus]:
    """Begin an abort job, ask the async job to stop, and end the abort job.

    The errors of `begin` and `end`; WrongJob: no async job runs.
    """
    mine = yield from begin(me, vm, Wish(api, job=Job.ABORT), wait)
    if mine is None:
        raise AssertionError("a begin that waits is never refused as busy")
    asked = AbortRequest(me.owner, mine.ticket.asked, reason)
    running: AsyncHolder | None = None

    def edit(record: JobRecord) -> JobRecord:
        nonlocal running
        if not record.held(mine.ticket.id):
            return record  # an earlier try, its reply lost, has done it: this may be another's job
        running = record.async_
        new = request_abort(record, asked) or record
        return new.end(mine.ticket.id, today=me.clock.wall())

    yield from let_go(me, mine, edit, gives_back=False)
    if running is None:
        raise WrongJob(f"VM {vm!r}: no async job runs: there is nothing to abort")
    return job_status(running, Slot.ASYNC, me.clock.wall(), alive=not running.left)


def discard(me: Controller, vm: str) -> Op[JobStatus]:
    """End an async job that has no owner, with its steps.

    Raises WrongJob (none runs), NotOwner (its owner lives), BackendUnavailable, OutcomeUnknown.
    """
    running: AsyncHolder | None = None
    gone: AsyncHolder | None = None
    tried: AsyncHolder | None = None
    void: AsyncHolder | None = None

    def edit(record: JobRecord) -> JobRecord:
        nonlocal running, gone, tried
        running, gone = record.async_, None
        if running is None or not running.left:
            return record
        gone = tried = running
        return record.remove([running.ticket.id], today=me.clock.wall())

    ended = NOBODY
    while True:
        certain = yield from _by_hand(me, vm, edit, ended)
        adopted = running is not None and tried is not None and running.since == tried.since
        if not certain and gone is None and not adopted:
            gone = tried  # the reply to an earlier try was lost, and it was made
        today = me.clock.wall()
        if gone is not None:
            me.held.tell_evicted(vm, gone.ticket, gone.since, gone.token, "force")
        if gone := gone or void:
            return job_status(gone, Slot.ASYNC, today, alive=False)
        if running is None:
            raise WrongJob(f"VM {vm!r}: no async job runs: there is nothing to discard")
        ended, _ = yield from probe(me, frozenset((running.ticket.session,)))
        if not ended:
            facts = holder_facts(Slot.ASYNC, running, today)
            raise NotOwner(f"VM {vm!r}: the async job can't be discarded, its owner lives: {facts}")
        if not running.outlives:
            void = running  # its owner's end is its own, once that is found


def evict(me: Controller, vm: str, tickets: Collection[str]) -> Op[list[JobStatus]]:
    """Take these tickets out by force, whoever holds or waits by them; those that were there.

    Raises BackendUnavailable, OutcomeUnknown.
    """
    broken: dict[str, tuple[Holder, JobStatus]] = {}
    tried: dict[str, tuple[Holder, JobStatus]] = {}

    def edit(record: JobRecord) -> JobRecord:
        broken.clear()
        today = me.clock.wall()
        new = record.remove(tickets, today=today)
        left = {h.ticket.id for _, h in new.holders()}.union(ticket.id for ticket in new.queue)
        for slot, holder in record.holders():
            if holder.ticket.id not in left:
                status = job_status(holder, slot, today, alive=True)
                broken[holder.ticket.id] = (holder, status)
        for ticket in record.queue:
            if ticket.id not in left:
                status = waiter_status(ticket, today, alive=True)
                broken[ticket.id] = (Holder(ticket, ticket.asked), status)
        tried.update(broken)
        return new

    if not (yield from _by_hand(me, vm, edit, NOBODY)):
        broken = tried  # the reply to an earlier try was lost, and it was made
    for one, _ in broken.values():
        me.held.tell_evicted(vm, one.ticket, one.since, one.token, "force")
    return [status for _, status in broken.values()]


def _by_hand(me: Controller, vm: str, edit: Edit, ended: frozenset[str]) -> Op[bool]:
    """Whether the last try of ``edit`` says all that was done; else earlier ones may have, too."""
    until, doubted = me.clock.monotonic() + GRACE, False
    while True:
        session = yield from live_session(me, until)
        try:
            changed = yield from change(me, session, vm, edit, until=until, ended=ended)
        except SessionEnded:
            doubted = True
            yield from lose(me, session, "the store ended it")
        else:
            return not (changed.doubted or doubted)
