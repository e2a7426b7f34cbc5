"""The one background operation of a client: renew the session, tidy up, listen while nobody waits.

It also writes what progress is due, and reads what became of jobs that may have been taken away.

Its length of breath is the session's: it outlives every error of the store, and declares the
session lost at the local deadline, not before. Then it opens the next.
"""

from __future__ import annotations

from distjob.errors import BackendUnavailable, ClientClosed, OutcomeUnknown, RecordError
from distjob.hooks import Renewed
from distjob.protocol.change import Edit, SessionEnded, change, dropping, look, lose
from distjob.protocol.controller import KEEPER, Controller
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
from distjob.protocol.owner import say_progress
from distjob.protocol.parts import Leftover, Session
from distjob.protocol.tries import settle
from distjob.record import JobRecord

MOST_READ = 20
"""VMs that are read in one round, so that the next renewal is not held up."""


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
        yield from make_calls(me)
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
        except (BackendUnavailable, OutcomeUnknown, RecordError, ClientClosed):
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
        yield from say_progress(me)
        yield from _look_after(me)
        soon = min(
            session.next_beat,
            session.deadline,
            *(leftover.due for leftover in me.leftovers.values()),
            *(held.progress_due for held in me.held.unsaid),
        )
        seconds = max(0.0, soon - me.clock.monotonic())
        if me.held.calls or me.held.suspects:
            return
        if (me.pushed or me.held.long) and me.receiver is None and not me.waiters:
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


def make_calls(me: Controller) -> Op[None]:
    """The users' callbacks that are due."""
    if me.held.calls:
        callbacks, me.held.calls = tuple(me.held.calls), []
        yield from ask(Call(callbacks))


def _look_after(me: Controller) -> Op[None]:
    """Read what became of jobs held here of which something was said."""
    for vm in list(me.held.suspects)[:MOST_READ]:
        mine = list(me.held.by_vm.get(vm, {}).values())
        me.held.suspects.discard(vm)
        try:
            view = yield from look(me, vm)
        except BackendUnavailable:
            me.held.suspect(vm)
            raise
        except RecordError:
            continue  # whoever changes it next is told
        me.held.judge(vm, view.record, view.version)
        for held in mine:
            if not held.ended and view.record.held(held.ticket.id) is None:
                me.held.take_away(held)


def close(me: Controller) -> Op[None]:
    """End the session and, at once, all that it holds and waits for. The keeper has stopped.

    Raises BackendUnavailable, OutcomeUnknown: the session then ends with its TTL.
    """
    session = me.session
    if session is None:
        return
    seen = dict(me.views)
    left = {key: leftover.gives_back for key, leftover in me.leftovers.items()}
    for held in me.held.being_ended():  # its own commit may come too late
        left[held.vm, held.ticket.id] = held.gives_back
    left.update(dict.fromkeys(me.heirs, True))
    me.lose(session, "this client was closed", "closed")
    me.views.update(seen)
    until = me.clock.monotonic() + me.ttl / 2
    try:
        for vm in dict.fromkeys([*seen, *(vm for vm, _ in left), *session.doubts]):
            edit = _leaving(me, session, {t: left[v, t] for v, t in left if v == vm})
            try:
                yield from change(me, session, vm, edit, until=until)
            except RecordError:
                continue  # with the session it is void, too
    except SessionEnded:
        return
    yield from ask(CloseSession(session.id))


def _leaving(me: Controller, session: Session, leftovers: dict[str, bool]) -> Edit[None]:
    """Void all of this session's; but an async job whose end was begun ends, and is no orphan."""

    def leave(record: JobRecord) -> tuple[JobRecord, None]:
        for ticket_id, gives_back in leftovers.items():
            record, _ = dropping(me, ticket_id, gives_back=gives_back)(record)
        return record.evict((session.id,), today=me.clock.wall()), None

    return leave


def _renew(me: Controller, session: Session) -> Op[None]:
    sent, due = me.clock.monotonic(), session.next_beat
    me.early = {vm: version for vm, version in me.early.items() if vm in me.turns}
    alive = yield from ask(KeepAlive(session.id))
    late = max(0.0, me.clock.monotonic() - due)
    if me.held.by_vm and not me.pushed and me.receiver is None and not me.waiters:
        yield from _listen(me, session, 0.0)  # what was sent since
    if not alive:
        yield from lose(me, session, "the store ended it")
    elif me.clock.monotonic() < session.deadline:
        session.renewed(sent)
        me.held.tell(Renewed(late=late, ttl=session.ttl))
    else:  # too late: what was lost, and perhaps told to be, is never held again
        yield from lose(me, session, "it could not be renewed in time")


def _tidy(me: Controller, session: Session) -> Op[None]:
    """Take out tickets that nobody has any more, and settle what is in doubt besides.

    Those of an older session are void already.

    As long as no renewal is due: there may be thousands. Raises BackendUnavailable, OutcomeUnknown,
    so that a store that is silent holds nobody up who is to be told of a loss.
    """
    now = me.clock.monotonic()
    for (vm, ticket_id), (due, gives_back) in list(me.leftovers.items()):
        if due > now:
            continue
        if me.clock.monotonic() >= session.next_beat:
            return
        drop = dropping(me, ticket_id, gives_back=gives_back)
        try:
            yield from change(me, session, vm, drop, until=now)
        except SessionEnded:
            yield from lose(me, session, "the store ended it")
            return
        except RecordError:
            again = me.clock.monotonic() + me.ttl / 20
            me.leftovers[vm, ticket_id] = Leftover(again, gives_back)
            continue
        me.leftovers.pop((vm, ticket_id), None)
    if session.doubts:
        yield from settle(session)
