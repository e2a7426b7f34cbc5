"""What the holder of a job does with it: end it, and as an async job's owner change its mask."""

from __future__ import annotations

from collections.abc import Callable

from distjob.errors import BackendUnavailable, LeaseLost, NotOwner, OutcomeUnknown
from distjob.jobs import Mask
from distjob.protocol.change import SessionEnded, change, lose
from distjob.protocol.controller import Controller, Held
from distjob.protocol.effects import KeepAlive, Op, ask
from distjob.record import JobRecord
from distjob.words import job_name


def check(me: Controller, held: Held) -> None:
    """Raises NotOwner if the job was ended, LeaseLost if its session can't be shown to live."""
    session = held.session
    if held.ended:
        raise NotOwner(
            f"VM {held.vm!r}: {job_name(held.ticket)} (token {held.token}) was ended already"
        )
    if session.holds(me.clock.monotonic()):
        return
    why = session.why or "it was not renewed in time"
    raise LeaseLost(
        f"VM {held.vm!r}: the lease of {job_name(held.ticket)} (token {held.token}) is lost: its"
        f" session has ended ({why}). Another controller may hold the job by now",
        vm=held.vm,
        job=job_name(held.ticket),
        token=held.token,
    )


def end(me: Controller, held: Held) -> Op[None]:
    """End the job and let waiters in.

    Raises NotOwner (ended already), LeaseLost; OutcomeUnknown if the store does not answer for
    half a TTL: it is ended in the background then, or with the session.
    """
    check(me, held)
    session, ticket = held.session, held.ticket
    held.ended = True
    for callback in held.callbacks:
        session.on_lost.remove(callback)

    def finish(record: JobRecord) -> JobRecord:
        return record.end(ticket.id, today=me.clock.wall())

    until = min(me.clock.monotonic() + me.ttl / 2, session.deadline)
    try:
        changed = yield from change(me, session, held.vm, finish, until=until)
        # Nobody else ends a job while its session lives: if it is not there, an earlier try of
        # this call, its reply lost, has ended it.
        if not changed.committed and not (yield from ask(KeepAlive(session.id))):
            raise SessionEnded
    except SessionEnded:
        held.ended = False
        yield from lose(me, session, "the store ended it")
        check(me, held)
    except (BackendUnavailable, OutcomeUnknown) as error:
        me.leave(held.vm, ticket.id)
        raise OutcomeUnknown(
            f"VM {held.vm!r}: it is not known whether {job_name(ticket)} (token {held.token}) has"
            f" ended: {error}. It is ended as soon as the store answers, or with this session,"
            f" {me.ttl:g} s after its last renewal",
            vm=held.vm,
            job=job_name(ticket),
        ) from error
    except BaseException:  # cancelled, perhaps before the commit was sent
        me.leave(held.vm, ticket.id)
        raise
    if held.doubted:  # a commit of begin that was believed lost could still arrive
        me.leave(held.vm, ticket.id, me.clock.monotonic() + me.ttl / 2)


def on_lost(me: Controller, held: Held, callback: Callable[[], None]) -> Op[bool]:
    """Have ``callback`` called if the job is lost; False if it is, so that the caller does it."""
    yield from ()
    try:
        check(me, held)
    except LeaseLost:
        return False
    held.callbacks += (callback,)
    held.session.on_lost.append(callback)
    return True


def set_mask(me: Controller, held: Held, mask: Mask, *, patience: float) -> Op[None]:
    """Set the mask of one's own async job; waiters that it lets in start at once.

    Raises LeaseLost, NotOwner, BackendUnavailable (nothing changed), OutcomeUnknown.
    """
    check(me, held)

    def edit(record: JobRecord) -> JobRecord:
        new = record.set_mask(held.ticket.id, mask, today=me.clock.wall())
        return record if new is None else new

    until = min(me.clock.monotonic() + patience, held.session.deadline)
    try:
        changed = yield from change(me, held.session, held.vm, edit, until=until)
        if changed.view.record.held(held.ticket.id):
            return
        if not (yield from ask(KeepAlive(held.session.id))):
            raise SessionEnded
    except SessionEnded:
        yield from lose(me, held.session, "the store ended it")
        check(me, held)
    raise NotOwner(f"VM {held.vm!r}: {job_name(held.ticket)} has ended: it has no mask any more")
