"""What the holder of a job does with it: see that it is held, end it, be told that it is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from distjob.errors import BackendUnavailable, ClientClosed, LeaseLost, NotOwner, OutcomeUnknown
from distjob.hooks import Ended
from distjob.protocol.change import Changed, Edit, SessionEnded, change, lose
from distjob.protocol.effects import KeepAlive, Op, ask
from distjob.protocol.parts import HeldJob
from distjob.protocol.state import ClientState
from distjob.rules.jobs import OnOwnerLoss
from distjob.rules.record import JobRecord
from distjob.rules.words import job_name, taken_text

R = TypeVar("R")


def check(me: ClientState, held: HeldJob) -> None:
    """Raises NotOwner if the job was ended, LeaseLost if it can't be shown to be held."""
    if held.ended:
        raise refusal(held)
    if not held.holds(me.clock.monotonic()):
        raise _loss(held)


def claim(me: ClientState, held: HeldJob) -> None:
    """As `check`, for what needs the store: ClientClosed if the job went with its client."""
    if held.ended or not held.holds(me.clock.monotonic()):
        raise refusal(held)


def refusal(held: HeldJob) -> NotOwner | LeaseLost | ClientClosed:
    """Why nothing can be asked for a job that is not held."""
    name = f"VM {held.vm!r}: {job_name(held.ticket)} (token {held.token})"
    if held.ended:
        return NotOwner(f"{name} was ended already")
    if held.taken or held.session.how != "closed":
        return _loss(held)
    return ClientClosed(f"{name} was given up when this client was closed")


def _loss(held: HeldJob) -> LeaseLost:
    session, job = held.session, job_name(held.ticket)
    if held.taken:
        text = taken_text(held.vm, job, held.token)
    else:
        why = session.why or f"it was not renewed in time{session.trouble}"
        text = (
            f"VM {held.vm!r}: the lease of {job} (token {held.token}) is lost: its session has"
            f" ended ({why}). Another controller may hold the job by now"
        )
    return LeaseLost(text, vm=held.vm, job=job, token=held.token)


def end(me: ClientState, held: HeldJob) -> Op[None]:
    """End the job and let waiters in.

    Raises NotOwner (ended already), LeaseLost, ClientClosed; OutcomeUnknown if the store does not
    answer for half a TTL: it is ended in the background then, or with the session.
    """

    def finish(record: JobRecord) -> tuple[JobRecord, None]:
        return record.end(held.ticket.id, wall=me.clock.wall()), None

    yield from let_go(me, held, finish, gives_back=False)


def let_go(me: ClientState, held: HeldJob, finish: Edit[R], *, gives_back: bool) -> Op[Changed[R]]:
    """Hold the job no more, once ``finish`` has changed the record so; the errors of `end`."""
    claim(me, held)
    session, ticket = held.session, held.ticket
    held.ended, held.gives_back = True, gives_back
    held.callbacks = ()  # from here on the caller itself is told
    until = min(me.clock.monotonic() + me.ttl / 2, session.deadline)
    try:
        changed = yield from change(me, session, held.vm, finish, until=until)
        yield from _confirm(me, held, changed)
        return changed
    except SessionEnded:
        held.ended = False
        yield from lose(me, session, "the store ended it")
        raise refusal(held) from None
    except (BackendUnavailable, OutcomeUnknown) as error:
        me.leave(held.vm, ticket.id, gives_back=gives_back)
        stays = held.long and ticket.on_owner_loss is OnOwnerLoss.ORPHAN
        if_not = (
            "stays as an orphan if this session ends before that"
            if stays
            else f"with this session, {me.ttl:g} s after its last renewal"
        )
        raise OutcomeUnknown(
            f"VM {held.vm!r}: it is not known whether {job_name(ticket)} (token {held.token}) has"
            f" ended: {error}. It is ended as soon as the store answers, or {if_not}",
            vm=held.vm,
            job=job_name(ticket),
        ) from error
    except BaseException:  # taken away; or cancelled, perhaps before the commit was sent
        me.leave(held.vm, ticket.id, gives_back=gives_back)
        raise
    finally:
        me.holdings.part(held)
        if not held.ended:
            me.holdings.fall(held, session.why, session.how)  # if it was found in the meantime
        else:
            _tell_ended(me, held)


def leave(me: ClientState, held: HeldJob) -> None:
    """Hold the job no more, and let the hands end it; nothing if it is not held any more."""
    if held.ended or held.taken or not held.session.alive:
        return
    held.ended = True
    me.leave(held.vm, held.ticket.id)
    me.holdings.part(held)
    _tell_ended(me, held)


def _tell_ended(me: ClientState, held: HeldJob) -> None:
    if me.holdings.hooked:
        seconds = me.clock.monotonic() - held.begun
        job, ticket = job_name(held.ticket), held.ticket.id
        me.holdings.tell(Ended(vm=held.vm, job=job, ticket=ticket, token=held.token, held=seconds))


def _confirm(me: ClientState, held: HeldJob, changed: Changed[R]) -> Op[None]:
    """Nothing to end: an earlier try, its reply lost, has done it; or it was not held any more."""
    if changed.made:
        return
    if not (yield from ask(KeepAlive(held.session.id))):
        raise SessionEnded
    if not changed.unheard:
        held.ended = False
        me.holdings.take_away(held)
        raise refusal(held)


def on_lost(me: ClientState, held: HeldJob, callback: Callable[[], None]) -> Op[bool]:
    """Have ``callback`` called if the job is lost; False if it is, so that the caller does it."""
    yield from ()
    try:
        check(me, held)
    except LeaseLost:
        return False
    held.callbacks += (callback,)
    return True
