"""The one background operation of a client: renew the session, tidy up, listen while nobody waits.

Its length of breath is the session's: it outlives every error of the store, and declares the
session lost at the local deadline, not before. Then it opens the next.
"""

from __future__ import annotations

from distjob.errors import BackendUnavailable, OutcomeUnknown, RecordError
from distjob.protocol.change import SessionEnded, change, lose
from distjob.protocol.controller import KEEPER, Controller, Session
from distjob.protocol.effects import (
    Call,
    CloseSession,
    KeepAlive,
    Op,
    OpenSession,
    Receive,
    Wait,
    ask,
)
from distjob.record import JobRecord


def open_session(me: Controller) -> Op[Session]:
    """Open a session and make it the controller's. Raises BackendUnavailable."""
    sent = me.clock.monotonic()
    owner = f"{me.owner.controller} {me.owner.host} {me.owner.pid}"
    return me.opened((yield from ask(OpenSession(me.ttl, owner))), sent)


def keep(me: Controller) -> Op[None]:
    """Until the controller closes."""
    stall = 0.0
    while not me.closing:
        me.stir.clear()
        yield from tell_losses(me)
        session, now = me.session, me.clock.monotonic()
        if session is not None and now >= session.deadline:
            yield from lose(me, session, "it could not be renewed in time")
            continue
        if session is not None and now + stall > session.deadline:
            # Another try could outlast the deadline as the last one did, and leave nobody to say
            # in time that the leases are lost.
            yield from ask(Wait(session.deadline - now, me.stir))
            continue
        try:
            yield from _serve(me, session)
            stall = 0.0
        except (BackendUnavailable, OutcomeUnknown, RecordError):
            stall = me.clock.monotonic() - now
            yield from ask(Wait(me.ttl / 20, me.stir))


def _serve(me: Controller, session: Session | None) -> Op[None]:
    """One round: open the next session, or renew this one, or tidy up and listen."""
    if session is None:
        yield from open_session(me)
    elif me.clock.monotonic() >= session.next_beat:
        yield from _renew(me, session)
    else:
        yield from _tidy(me, session)
        soon = min([session.next_beat, session.deadline, *me.leftovers.values()])
        seconds = max(0.0, soon - me.clock.monotonic())
        if me.pushed and me.receiver is None and not me.waiters:
            yield from _listen(me, session, seconds)
        else:
            yield from ask(Wait(seconds, me.stir))


def _listen(me: Controller, session: Session, seconds: float) -> Op[None]:
    """Nobody waits: hear who has got in line behind one's own jobs, so as to end them at once."""
    me.receiver = KEEPER
    try:
        for event in (yield from ask(Receive(session.id, seconds))):
            me.hear(event)
    finally:
        me.receiver = None
        if me.waiters:
            me.let_receive()


def tell_losses(me: Controller) -> Op[None]:
    if me.fallen:
        callbacks, me.fallen = tuple(me.fallen), []
        yield from ask(Call(callbacks))


def close(me: Controller) -> Op[None]:
    """End the session and, at once, all that it holds and waits for. The keeper has stopped.

    Raises BackendUnavailable, OutcomeUnknown: the session then ends with its TTL.
    """
    session = me.session
    if session is None:
        return
    gone = frozenset((session.id,))

    def leave(record: JobRecord) -> JobRecord:
        return record.evict(gone, today=me.clock.wall())

    seen, left = dict(me.views), list(me.leftovers)
    me.lose(session, "this client was closed")
    me.views.update(seen)
    until = me.clock.monotonic() + me.ttl / 2
    try:
        for vm in dict.fromkeys([*seen, *(vm for vm, _ in left)]):
            yield from change(me, session, vm, leave, until=until)
    except SessionEnded:
        return
    yield from ask(CloseSession(session.id))


def _renew(me: Controller, session: Session) -> Op[None]:
    sent = me.clock.monotonic()
    alive = yield from ask(KeepAlive(session.id))
    if not alive:
        yield from lose(me, session, "the store ended it")
    elif me.clock.monotonic() < session.deadline:
        session.renewed(sent)
    else:  # too late: what was lost, and perhaps told to be, is never held again
        yield from lose(me, session, "it could not be renewed in time")


def _tidy(me: Controller, session: Session) -> Op[None]:
    """Take out tickets that nobody has any more; those of an older session are void already."""
    now = me.clock.monotonic()
    for (vm, ticket_id), due in list(me.leftovers.items()):
        if due > now:
            continue

        def drop(record: JobRecord, ticket_id: str = ticket_id) -> JobRecord:
            return record.drop(ticket_id, today=me.clock.wall())

        try:
            yield from change(me, session, vm, drop, until=now)
        except SessionEnded:
            yield from lose(me, session, "the store ended it")
            return
        except (BackendUnavailable, OutcomeUnknown, RecordError):
            me.leftovers[vm, ticket_id] = me.clock.monotonic() + me.ttl / 20
            continue
        if due:
            me.leftovers.pop((vm, ticket_id), None)
        else:  # once more, when a commit that was given up must have arrived
            me.leftovers[vm, ticket_id] = me.clock.monotonic() + me.ttl / 2
