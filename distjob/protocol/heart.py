"""The heart of a client: it renews the session, and opens the next one. Nothing else.

What else is to be done in the background is the hands'. The heart outlives any error, of the store
or of ours; it declares the session lost at the local deadline, not before.
"""

from __future__ import annotations

from distjob.errors import BackendUnavailable
from distjob.hooks import RenewalFailed, Renewed
from distjob.protocol.change import lose
from distjob.protocol.effects import KeepAlive, Op, OpenSession, Report, Wait, ask
from distjob.protocol.parts import Session
from distjob.protocol.state import ClientState
from distjob.store import Void

LATE = "it could not be renewed in time"


def open_session(me: ClientState) -> Op[Session]:
    """Open a session and make it the controller's. Raises BackendUnavailable."""
    sent = me.clock.monotonic()
    owner = f"{me.owner.controller} {me.owner.host} {me.owner.pid}"
    return me.opened((yield from ask(OpenSession(me.ttl, owner))), sent)


def beat(me: ClientState) -> Op[None]:
    """Until the client closes."""
    stall = 0.0
    while not me.closing:
        me.pulse.clear()
        session, now = me.session, me.clock.monotonic()
        if session is not None and now >= session.deadline:
            yield from lose(me, session, LATE + session.trouble)
            continue
        if session is not None and now + stall > session.deadline:
            # Another try could outlast the deadline as the last one did, and leave nobody to say
            # in time that the leases are lost.
            yield from ask(Wait(session.deadline - now, me.pulse))
            continue
        try:
            if session is None:
                yield from open_session(me)
            elif now >= session.next_beat:
                yield from _renew(me, session)
            else:
                yield from ask(Wait(session.next_beat - now, me.pulse))
            stall = 0.0
        except Exception as error:  # noqa: BLE001  whatever it is, the next try may succeed
            if not isinstance(error, BackendUnavailable):
                yield from ask(Report("renewing the session", error))
            stall = me.clock.monotonic() - now
            if session is not None:
                _failed(me, session, str(error) or type(error).__name__)
            yield from ask(Wait(me.ttl / 20, me.pulse))


def _failed(me: ClientState, session: Session, error: str) -> None:
    session.trouble = f": {error}"
    session.failures += 1
    if session.alive:
        seconds = session.deadline - me.clock.monotonic()
        me.holdings.tell(
            RenewalFailed(session=session.id, error=error, times=session.failures, seconds=seconds)
        )


def _renew(me: ClientState, session: Session) -> Op[None]:
    sent, due = me.clock.monotonic(), session.next_beat
    me.early = {vm: version for vm, version in me.early.items() if vm in me.turns}
    alive = yield from ask(KeepAlive(session.id))
    late = max(0.0, me.clock.monotonic() - due)
    if not alive:
        why = alive.why if isinstance(alive, Void) else "the store ended it"
        yield from lose(me, session, why)
    elif me.clock.monotonic() < session.deadline:
        session.renewed(sent)
        session.trouble, session.failures = "", 0
        seconds = session.deadline - me.clock.monotonic()
        me.holdings.tell(Renewed(session=session.id, late=late, ttl=session.ttl, seconds=seconds))
        if not me.pushed:
            me.unread = True
            me.stir.set()
    else:  # too late: what was lost, and perhaps told to be, is never held again
        yield from lose(me, session, LATE + session.trouble)
