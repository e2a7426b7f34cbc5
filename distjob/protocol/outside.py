"""What may be done to jobs that are not one's own: ask to abort, discard, break by force.

Each is one commit on the record, made in the name of the caller's session. Whoever loses something
by it is woken by that commit, and its late end changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from distjob.errors import NotOwner, WrongJob
from distjob.protocol.begin import begin, live_session
from distjob.protocol.change import GRACE, NOBODY, Changed, Edit, SessionEnded, change, lose
from distjob.protocol.effects import Op
from distjob.protocol.held import let_go
from distjob.protocol.look import JobStatus, job_status, waiter_status
from distjob.protocol.parts import Wish
from distjob.protocol.state import ClientState
from distjob.protocol.waiting import probe
from distjob.rules.async_job import request_abort
from distjob.rules.jobs import Job, Slot
from distjob.rules.record import JobRecord
from distjob.rules.ticket import AbortRequest, AsyncHolder, Holder
from distjob.rules.words import holder_facts

R = TypeVar("R")


def abort(me: ClientState, vm: str, reason: str, api: str, wait: float) -> Op[JobStatus]:
    """Begin an abort job, ask the async job to stop, and end the abort job.

    The errors of `begin` and `end`; WrongJob: no async job runs.
    """
    mine = yield from begin(me, vm, Wish(api, job=Job.ABORT), wait)
    asked = AbortRequest(me.owner, mine.ticket.asked, reason)

    def edit(record: JobRecord) -> tuple[JobRecord, AsyncHolder | None]:
        if not record.holder_of(mine.ticket.id):
            return record, None  # an earlier try has done it: this may be another's job
        new = request_abort(record, asked) or record
        return new.end(mine.ticket.id, wall=me.clock.wall()), record.async_

    changed = yield from let_go(me, mine, edit, gives_back=False)
    running = changed.found if changed.made else changed.unheard[-1]
    if running is None:
        raise WrongJob(f"VM {vm!r}: no async job runs: there is nothing to abort")
    return job_status(running, Slot.ASYNC, me.clock.wall(), alive=not running.owner_gone)


def discard(me: ClientState, vm: str) -> Op[JobStatus]:
    """End an async job that has no owner, with its steps.

    Raises WrongJob (none runs), NotOwner (its owner lives), BackendUnavailable, OutcomeUnknown.
    """

    def edit(record: JobRecord) -> tuple[JobRecord, AsyncHolder | None]:
        running = record.async_
        if running is None or not running.owner_gone:
            return record, running
        return record.remove([running.ticket.id], wall=me.clock.wall()), running

    void: AsyncHolder | None = None
    ended = NOBODY
    while True:
        changed = yield from _by_hand(me, vm, edit, ended)
        running, wall = changed.found, me.clock.wall()
        if gone := _discarded(changed):
            me.holdings.tell_evicted(vm, gone.ticket, gone.since, gone.token, "force")
        if gone := gone or void:
            return job_status(gone, Slot.ASYNC, wall, alive=False)
        if running is None:
            raise WrongJob(f"VM {vm!r}: no async job runs: there is nothing to discard")
        ended, _ = yield from probe(me, frozenset((running.ticket.session,)))
        if not ended:
            facts = holder_facts(Slot.ASYNC, running, wall)
            raise NotOwner(f"VM {vm!r}: the async job can't be discarded, its owner lives: {facts}")
        if not running.outlives:
            void = running  # its owner's end is its own, once that is found


def _discarded(changed: Changed[AsyncHolder | None]) -> AsyncHolder | None:
    """What was discarded: by the commit that was made, or else by one whose reply was lost.

    Not by that one if a job that began at the same moment runs: it is the same, and was adopted.
    """
    found = changed.found
    if changed.made:
        return found if found is not None and found.owner_gone else None
    for tried in reversed(changed.unheard):
        if tried is not None and tried.owner_gone and (found is None or found.since != tried.since):
            return tried
    return None


def evict(me: ClientState, vm: str, tickets: Collection[str]) -> Op[list[JobStatus]]:
    """Take these tickets out by force, whoever holds or waits by them; those that were there.

    Raises BackendUnavailable, OutcomeUnknown.
    """

    def edit(record: JobRecord) -> tuple[JobRecord, dict[str, tuple[Holder, JobStatus]]]:
        wall = me.clock.wall()
        new = record.remove(tickets, wall=wall)
        still = {h.ticket.id for _, h in new.holders()}.union(ticket.id for ticket in new.queue)
        broken = {
            holder.ticket.id: (holder, job_status(holder, slot, wall, alive=True))
            for slot, holder in record.holders()
            if holder.ticket.id not in still
        }
        for ticket in record.queue:
            if ticket.id not in still:
                status = waiter_status(ticket, wall, alive=True)
                broken[ticket.id] = (Holder(ticket, ticket.asked), status)
        return new, broken

    changed = yield from _by_hand(me, vm, edit, NOBODY)
    broken: dict[str, tuple[Holder, JobStatus]] = {}
    for found in (*changed.unheard, changed.found):
        broken |= found
    for one, _ in broken.values():
        me.holdings.tell_evicted(vm, one.ticket, one.since, one.token, "force")
    return [status for _, status in broken.values()]


def _by_hand(me: ClientState, vm: str, edit: Edit[R], ended: frozenset[str]) -> Op[Changed[R]]:
    """Change the record in the name of the session that is there, or of the next one."""
    until = me.clock.monotonic() + GRACE
    unheard: tuple[R, ...] = ()
    while True:
        session = yield from live_session(me, until)
        try:
            changed = yield from change(me, session, vm, edit, until=until, ended=ended)
        except SessionEnded as lost:
            unheard += lost.unheard
            yield from lose(me, session, "the store ended it")
        else:
            return changed._replace(unheard=unheard + changed.unheard)
