"""The hands of a client: what is done in the background beside renewing the session.

They take out tickets that nobody has any more, write what progress is due, read what became of
jobs that may have been taken away, and listen while nobody waits. They outlive any error; one that
hangs holds up the others, and never the heart. The users' callbacks are an operation of their own.
"""

from __future__ import annotations

from distjob.errors import BackendUnavailable, ClientClosed, OutcomeUnknown, RecordError
from distjob.protocol.change import SessionEnded, change, dropping, look, lose
from distjob.protocol.effects import Call, Interrupt, Op, Receive, Report, Wait, ask
from distjob.protocol.hearing import hear
from distjob.protocol.held import leave
from distjob.protocol.owner import say_progress
from distjob.protocol.parts import Session
from distjob.protocol.state import HANDS, ClientState
from distjob.protocol.tries import settle
from distjob.store import Missed

EXPECTED = (BackendUnavailable, OutcomeUnknown, RecordError, ClientClosed)
"""Errors of a chore that are no fault of ours: it is done later."""


def work(me: ClientState) -> Op[None]:
    """Until the client closes."""
    while not me.closing:
        me.stir.clear()
        me.hurry = False
        try:
            if me.session is None:
                yield from ask(Wait(me.ttl, me.stir))
            else:
                yield from _chores(me, me.session)
        except Exception as error:  # noqa: BLE001  whatever it is, the other chores are to be done
            if not isinstance(error, EXPECTED):
                yield from ask(Report("a chore in the background", error))
                hear(me, Missed())  # a message that was being heard is lost
            yield from ask(Wait(me.ttl / 20, me.stir))


def _chores(me: ClientState, session: Session) -> Op[None]:
    """One round."""
    yield from _tidy(me, session)
    yield from say_progress(me)
    yield from _look_after(me)
    now = me.clock.monotonic()
    due = [now + me.ttl / 3, *(leftover.due for leftover in me.leftovers.values())]
    seconds = max(0.0, min([*due, *(held.progress_due for held in me.holdings.unsaid)]) - now)
    if me.holdings.suspects or me.session is not session:
        return
    alone = me.receiver is None and not me.waiters
    if alone and (me.pushed or me.holdings.long):
        yield from _listen(me, session, seconds)
    elif alone and me.holdings.by_vm and me.unread:
        yield from _listen(me, session, 0.0)
    else:
        yield from ask(Wait(seconds, me.stir))


def _listen(me: ClientState, session: Session, seconds: float) -> Op[None]:
    """Nobody waits: hear who has got in line behind one's own jobs, so as to end them at once."""
    me.receiver = HANDS
    me.unread = False
    try:
        for event in (yield from ask(Receive(session.id, seconds))):
            hear(me, event)
    finally:
        me.receiver = None
        if me.waiters:
            me.let_receive()


def _tidy(me: ClientState, session: Session) -> Op[None]:
    """Take out tickets that nobody has any more, and settle what is in doubt besides.

    Those of an older session are void already, but for orphans. Raises BackendUnavailable,
    OutcomeUnknown.
    """
    now = me.clock.monotonic()
    for (vm, ticket_id), leftover in list(me.leftovers.items()):
        if leftover.due > now:
            continue
        me.leftovers[vm, ticket_id] = leftover._replace(due=now + me.ttl / 20)  # if it fails
        drop = dropping(me, ticket_id, gives_back=leftover.gives_back)
        try:
            yield from change(me, session, vm, drop, until=now)
        except SessionEnded:
            yield from lose(me, session, "the store ended it")
            return
        except RecordError:
            continue
        me.leftovers.pop((vm, ticket_id), None)
    if session.doubts:
        yield from settle(session)


def _look_after(me: ClientState) -> Op[None]:
    """Read what became of jobs held here of which something was said."""
    for vm in list(me.holdings.suspects):
        mine = list(me.holdings.by_vm.get(vm, {}).values())
        me.holdings.suspects.discard(vm)
        try:
            view = yield from look(me, vm)
        except BackendUnavailable:
            me.holdings.suspect(vm)
            raise
        except RecordError:
            continue  # whoever changes it next is told
        me.holdings.judge(vm, view.record, view.version)
        for held in mine:
            if not held.ended and view.record.holder_of(held.ticket.id) is None:
                me.holdings.take_away(held)


def call_users(me: ClientState) -> Op[None]:
    """Call the users' callbacks as they fall due, and end what nobody has, until it closes."""
    while not (me.closing or me.dropped):
        me.holdings.due.clear()
        yield from _end_dropped(me)
        yield from make_calls(me)
        yield from ask(Wait(me.ttl, me.holdings.due))


def _end_dropped(me: ClientState) -> Op[None]:
    """Leave to the hands, at once, the jobs whose leases are garbage, and what is left besides."""
    while me.holdings.dropped:
        leave(me, me.holdings.dropped.popleft())
    if me.leftovers and me.receiver is HANDS:
        yield from ask(Interrupt())


def make_calls(me: ClientState) -> Op[None]:
    """The users' callbacks that are due."""
    while me.holdings.calls:
        callbacks, me.holdings.calls = tuple(me.holdings.calls), []
        yield from ask(Call(callbacks))
