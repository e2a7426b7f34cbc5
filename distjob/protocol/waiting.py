"""Waiting in line.

A waiter is woken by whoever lets it in, in this process or another. It looks by itself only where
no message could come: when the session it watches (see line.py) should have ended, and after half
a TTL of silence.
"""

from __future__ import annotations

from distjob.errors import BackendUnavailable, ClientClosed
from distjob.protocol.change import NOBODY, SessionEnded, change, look
from distjob.protocol.effects import Interrupt, Op, Receive, Remaining, Wait, ask
from distjob.protocol.parts import Session, View, Waiter
from distjob.protocol.state import HANDS, ClientState
from distjob.rules.line import watched

RETRY = 0.25
"""Seconds until a waiter tries again what the store did not answer."""
AFTER = 0.005
"""Seconds past the moment at which a session should have ended, to find it ended."""


def wait_in_line(
    me: ClientState, session: Session, vm: str, ticket_id: str, view: View, *, until: float
) -> Op[View]:
    """Until the ticket does not wait any more, or ``until``; returns the view that says so.

    Raises SessionEnded, ClientClosed, RecordError; OutcomeUnknown of an eviction.
    """
    waiter = me.enroll(vm, ticket_id)
    watching, probe_at, read_at = NOBODY, 0.0, me.clock.monotonic() + me.ttl / 2
    while view.record.waits(ticket_id):
        now = me.clock.monotonic()
        if me.closing:
            raise ClientClosed(f"VM {vm!r}: this client was closed while it waited")
        if not session.holds(now):
            raise SessionEnded
        if now >= until:
            return view
        latest = me.views.get(vm)
        if latest is not None and latest.version > view.version:
            view, read_at = latest, now + me.ttl / 2
            continue
        watch = watched(view.record, ticket_id)
        try:
            if watch != watching or now >= probe_at or waiter.doubts:
                waiter.doubts = False
                ended, soonest = yield from probe(me, watch)
                watching, probe_at = watch, me.clock.monotonic() + soonest + AFTER
                if ended:
                    view = yield from _evict(me, session, vm, ended, until)
                continue
            if waiter.missed or now >= read_at:
                waiter.missed = False
                try:
                    view = yield from look(me, vm)
                except BaseException:
                    waiter.missed = True  # for another, if this one gives up
                    raise
                read_at = me.clock.monotonic() + me.ttl / 2
                continue
            yield from _listen(me, session, waiter, min(until, probe_at, read_at, session.deadline))
        except BackendUnavailable:
            waiter.missed = True
            yield from ask(Wait(min(RETRY, until - now)))
            continue
        waiter.rest()
        if vm not in me.views:
            waiter.missed = True
    return view


def _listen(me: ClientState, session: Session, waiter: Waiter, until: float) -> Op[None]:
    """Until something may have changed for this waiter, or ``until``.

    Of those who wait in this client, whoever finds nobody receiving receives, for all: so the
    usual waiter hears itself that it was let in, and no thread has to wake another.
    """
    if me.receiver is not None:
        if me.receiver is HANDS:
            yield from ask(Interrupt())  # it makes room for one who waits
        yield from ask(Wait(until - me.clock.monotonic(), waiter.signal))
        return
    me.receiver = waiter
    try:
        while not waiter.woken and (seconds := until - me.clock.monotonic()) > 0:
            events = yield from ask(Receive(session.id, seconds))
            for event in events:
                me.hear(event)
            if not events:
                return
    finally:
        me.receiver = None


def probe(me: ClientState, sessions: frozenset[str]) -> Op[tuple[frozenset[str], float]]:
    """Which of them have ended, and the seconds until the first of the others could."""
    if not sessions:
        return NOBODY, me.ttl
    remaining = yield from ask(Remaining(sessions))
    ended = frozenset(session for session in sessions if remaining.get(session, 0.0) <= 0)
    return ended, min((remaining[session] for session in sessions - ended), default=0.0)


def _evict(
    me: ClientState, session: Session, vm: str, ended: frozenset[str], until: float
) -> Op[View]:
    changed = yield from change(
        me, session, vm, lambda record: (record, None), until=until, ended=ended
    )
    return changed.view
