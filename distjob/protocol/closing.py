"""The end of a client: its session ends, and with it, at once, all that it holds and waits for."""

from __future__ import annotations

from distjob.errors import RecordError
from distjob.protocol.change import Edit, SessionEnded, change, dropping
from distjob.protocol.effects import CloseSession, Op, ask
from distjob.protocol.parts import Session
from distjob.protocol.state import ClientState
from distjob.rules.record import JobRecord


def close(me: ClientState) -> Op[None]:
    """End the session and all that is in its name. Heart and hands have stopped.

    Raises BackendUnavailable, OutcomeUnknown: the session then ends with its TTL.
    """
    session = me.session
    if session is None:
        return
    seen = dict(me.views)
    nobodys = {key: leftover.gives_back for key, leftover in me.leftovers.items()}
    nobodys.update(dict.fromkeys(me.heirs, True))
    for held in me.holdings.being_ended():  # its own commit may come too late
        nobodys[held.vm, held.ticket.id] = held.gives_back
    me.lose(session, "this client was closed", "closed")
    me.views.update(seen)
    until = me.clock.monotonic() + me.ttl / 2
    try:
        for vm in dict.fromkeys([*seen, *(vm for vm, _ in nobodys), *session.doubts]):
            edit = _leaving(me, session, {t: nobodys[v, t] for v, t in nobodys if v == vm})
            try:
                yield from change(me, session, vm, edit, until=until)
            except RecordError:
                continue  # with the session it is void, too
    except SessionEnded:
        return
    yield from ask(CloseSession(session.id))


def _leaving(me: ClientState, session: Session, leftovers: dict[str, bool]) -> Edit[None]:
    """Void all of this session's; but an async job whose end was begun ends, and is no orphan."""

    def leave(record: JobRecord) -> tuple[JobRecord, None]:
        for ticket_id, gives_back in leftovers.items():
            record, _ = dropping(me, ticket_id, gives_back=gives_back)(record)
        return record.evict((session.id,), wall=me.clock.wall()), None

    return leave
