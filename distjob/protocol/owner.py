"""What an async job's owner does with it: mask, phase, progress, heeding an abort, detaching."""

from __future__ import annotations

from collections.abc import Callable

from distjob.errors import LeaseLost, NotOwner, RecordError
from distjob.protocol.change import SessionEnded, change, lose
from distjob.protocol.effects import KeepAlive, Op, Wait, ask
from distjob.protocol.held import check, claim, let_go, refusal
from distjob.protocol.parts import HeldJob
from distjob.protocol.state import ClientState
from distjob.rules.async_job import amend, detach
from distjob.rules.jobs import Mask
from distjob.rules.record import JobRecord
from distjob.rules.ticket import AbortRequest, Progress

PACE = 1.0
"""Seconds between two writes of a job's progress, at least."""


def set_job(
    me: ClientState,
    held: HeldJob,
    *,
    patience: float,
    mask: Mask | None = None,
    phase: str | None = None,
) -> Op[None]:
    """Set what is given, and the progress that was not written yet, in one commit.

    Raises LeaseLost, NotOwner, ClientClosed, BackendUnavailable (nothing changed), OutcomeUnknown.
    """
    claim(me, held)
    progress = held.unsaid

    def edit(record: JobRecord) -> tuple[JobRecord, None]:
        wall = me.clock.wall()
        ticket = held.ticket.id
        new = amend(record, ticket, wall=wall, mask=mask, phase=phase, progress=progress)
        return new or record, None

    until = min(me.clock.monotonic() + patience, held.session.deadline)
    try:
        changed = yield from change(me, held.session, held.vm, edit, until=until)
        if not changed.view.record.owned(held.ticket.id):
            if not (yield from ask(KeepAlive(held.session.id))):
                raise SessionEnded
            if held.ended:
                raise NotOwner(f"VM {held.vm!r}: the async job has ended meanwhile")
            me.holdings.take_away(held)
            raise refusal(held)
    except SessionEnded:
        yield from lose(me, held.session, "the store ended it")
        raise refusal(held) from None
    if phase is not None:
        held.phase = phase
    if progress is not None:
        held.progress_due = me.clock.monotonic() + PACE
        if held.unsaid is progress:
            held.unsaid = None
            me.holdings.unsaid.discard(held)


def set_progress(
    me: ClientState, held: HeldJob, progress: Progress, *, patience: float
) -> Op[None]:
    """Write it, at most once in `PACE` seconds: what comes in between is written by the hands."""
    claim(me, held)
    held.progress = held.unsaid = progress
    if held not in me.holdings.unsaid:
        me.holdings.unsaid.add(held)
        me.stir.set()
    if me.clock.monotonic() >= held.progress_due:
        held.progress_due = me.clock.monotonic() + PACE
        yield from set_job(me, held, patience=patience)


def say_progress(me: ClientState) -> Op[None]:
    """The hands' part of it. Raises BackendUnavailable, OutcomeUnknown: it is said later."""
    for held in tuple(me.holdings.unsaid):
        if held.progress_due <= me.clock.monotonic():
            held.progress_due = me.clock.monotonic() + PACE
            try:
                yield from set_job(me, held, patience=0.0)
            except (LeaseLost, NotOwner):
                me.holdings.unsaid.discard(held)
            except RecordError:
                pass  # again, then


def give_up(me: ClientState, held: HeldJob) -> Op[None]:
    """Leave the job to whoever adopts it; it is not held any more. The errors of `end`."""
    progress = held.unsaid

    def leave(record: JobRecord) -> tuple[JobRecord, None]:
        wall = me.clock.wall()
        said = amend(record, held.ticket.id, wall=wall, progress=progress) or record
        return detach(said, held.ticket.id, wall=wall) or record, None

    yield from let_go(me, held, leave, gives_back=True)


def wait_abort(me: ClientState, held: HeldJob, seconds: float | None) -> Op[AbortRequest | None]:
    """Until the job is asked to abort; None after ``seconds``.

    Raises LeaseLost, NotOwner, ClientClosed.
    """
    until = None if seconds is None else me.clock.monotonic() + seconds
    signal = me.new_signal()
    held.watchers += (signal,)
    try:
        while held.abort is None:
            claim(me, held)
            now = me.clock.monotonic()
            if until is not None and now >= until:
                return None
            signal.clear()
            seconds = held.session.deadline - now
            if until is not None:
                seconds = min(seconds, until - now)
            yield from ask(Wait(seconds, signal))
        return held.abort
    finally:
        held.watchers = tuple(other for other in held.watchers if other is not signal)


def on_abort(me: ClientState, held: HeldJob, callback: Callable[[AbortRequest], None]) -> Op[bool]:
    """Have ``callback`` called with the request; False if there is one, so that the caller does."""
    yield from ()
    check(me, held)
    if held.abort is not None:
        return False
    held.on_abort += (callback,)
    return True
