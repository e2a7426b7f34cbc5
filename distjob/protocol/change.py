"""Every change of a record goes through `change`: one compare-and-set, repeated until it holds.

It starts from what this client saw last (nothing seen: an idle VM), so that the usual begin and
end are one round trip. A commit whose reply never came is settled first, by tries.py: then the
record is read, and the edit decides on what is certain. It knows no rule of jobs: the edit does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from distjob.errors import BackendUnavailable, ClientClosed, OutcomeUnknown, RecordError
from distjob.hooks import Fate
from distjob.protocol.effects import Commit, Interrupt, Op, Read, Signal, Wait, ask
from distjob.protocol.parts import IDLE, Session, View
from distjob.protocol.state import ClientState
from distjob.protocol.tries import Tries, settle
from distjob.rules.async_job import detach
from distjob.rules.codec import decode, encode
from distjob.rules.line import woken
from distjob.rules.record import JobRecord
from distjob.rules.ticket import AsyncHolder
from distjob.store import Committed, Settled, Stale

R = TypeVar("R")

Edit: TypeAlias = Callable[[JobRecord], tuple[JobRecord, R]]
"""From a record to the next, and what was found in it; the same object means: nothing to change."""

NOBODY: frozenset[str] = frozenset()

GRACE = 1.0
"""Seconds that a store which does not answer is given by a call that does not wait for its job."""


class SessionEnded(Exception):
    """The store says that the author's own session has ended."""

    def __init__(self, unheard: tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.unheard = unheard
        """As `Changed.unheard`."""


class Changed(NamedTuple, Generic[R]):
    """How a change came out."""

    view: View
    found: R
    """What the edit found in the record that it was made of, or that needs no change."""
    made: bool
    """A commit of this call made it. If not, the edit found nothing to change, on a record that
    the store gave in this call.
    """
    unheard: tuple[R, ...]
    """What the edit found in earlier tries of this call whose reply was lost, and which may have
    been made: the record has changed since.
    """


def lose(me: ClientState, session: Session, why: str) -> Op[None]:
    """The session has ended: let the heart know, and who waits, whoever of them receives."""
    me.lose(session, why)
    yield from ask(Interrupt())


def change(
    me: ClientState,
    session: Session,
    vm: str,
    edit: Edit[R],
    *,
    until: float,
    ended: frozenset[str] = NOBODY,
) -> Op[Changed[R]]:
    """Make ``edit`` of ``vm``'s record hold, and wake whom it concerns.

    ``ended``: sessions known to have ended, evicted in the same commit. While the store can't be
    reached it tries again until ``until``, at least once.

    Raises SessionEnded; BackendUnavailable, ClientClosed (nothing was changed), OutcomeUnknown,
    RecordError. A commit of which nobody knows stays in doubt (`Session.doubts`).
    """
    in_turn = (turn := me.my_turn(vm)) is None or (yield from _queue(me, vm, turn, until))
    try:
        return (yield from _change(me, session, vm, edit, until=until, ended=ended))
    finally:
        if in_turn:
            me.next_turn(vm)


def _queue(me: ClientState, vm: str, turn: Signal, until: float) -> Op[bool]:
    """Wait for one's turn; False if it does not come in time: one goes on all the same."""
    try:
        yield from ask(Wait(max(0.0, until - me.clock.monotonic()), turn))
    except BaseException:
        if not me.given_up(vm, turn):
            me.next_turn(vm)
        raise
    return not me.given_up(vm, turn)


def _change(
    me: ClientState,
    session: Session,
    vm: str,
    edit: Edit[R],
    *,
    until: float,
    ended: frozenset[str],
) -> Op[Changed[R]]:
    view = me.views.get(vm, IDLE)
    certain = overtaken = False
    tries: Tries[R] = Tries(me, session, vm, until)
    while True:
        try:
            if vm in session.doubts:
                yield from settle(session)
            if overtaken or tries.doubted:
                view, certain, overtaken = (yield from look(me, vm)), True, False
                tries.looked(view.version)
            record = view.record.evict(ended, wall=me.clock.wall()) if ended else view.record
            new, found = edit(record)
            if new is view.record:
                if certain:
                    return Changed(view, found, made=False, unheard=tries.unheard)
                overtaken = True
                continue
            value = encode(new)
            wake = woken(view.record, new, session.id)
            commit = Commit(vm, view.version, value, session.id, wake - ended)
            reply = yield from tries.send(commit, found)
        except (BackendUnavailable, ClientClosed) as error:
            yield from tries.failed(error)
            continue
        if isinstance(reply, Committed):
            if ended:
                _tell(me, vm, view.record, ended)
            view = IDLE if value is None else View(reply.version, new.at(reply.version))
            me.saw(vm, view, reply.version)
            return Changed(view, found, made=True, unheard=tries.unheard)
        if isinstance(reply, Stale):
            view, certain = View(reply.version, decode(vm, reply.version, reply.value)), True
            me.saw(vm, view)
            overtaken = yield from tries.collided(len(view.record.queue))
        elif isinstance(reply, Settled):
            continue  # by another task of this session; nothing was changed
        elif session.id in reply.sessions:
            raise SessionEnded(tries.unheard)
        else:
            ended |= reply.sessions


def _tell(me: ClientState, vm: str, record: JobRecord, ended: frozenset[str]) -> None:
    """The hooks, of each that was taken out of ``record``; one that held two slots is one."""
    holders = {holder.ticket.id: holder for holder in record.owners()}
    for holder in holders.values():
        if holder.ticket.session in ended:
            outlives = isinstance(holder, AsyncHolder) and holder.outlives
            fate: Fate = "orphaned" if outlives else "ended"
            me.holdings.tell_evicted(vm, holder.ticket, holder.since, holder.token, fate)
    for ticket in record.queue:
        if ticket.session in ended:
            me.holdings.tell_evicted(vm, ticket, ticket.asked, 0, "ended")


def dropping(me: ClientState, ticket_id: str, *, gives_back: bool) -> Edit[None]:
    """Take a ticket out that nobody has any more; what it has adopted stays, without an owner."""

    def drop(record: JobRecord) -> tuple[JobRecord, None]:
        wall = me.clock.wall()
        if gives_back:
            return detach(record, ticket_id, wall=wall) or record, None
        return record.drop(ticket_id, wall=wall), None

    return drop


def abandon(
    me: ClientState, session: Session, vm: str, ticket_id: str, *, gives_back: bool = False
) -> Op[bool]:
    """Take the ticket out, held or waiting; False if that is left to the hands."""
    drop = dropping(me, ticket_id, gives_back=gives_back)
    until = me.clock.monotonic() + GRACE
    me.leave(vm, ticket_id, gives_back=gives_back)  # for a second Ctrl-C
    try:
        yield from change(me, session, vm, drop, until=until)
    except SessionEnded:
        yield from lose(me, session, "the store ended it")
    except (BackendUnavailable, OutcomeUnknown, RecordError, ClientClosed):
        return False  # it stays among the leftovers
    else:
        me.leftovers.pop((vm, ticket_id), None)
    return True


def look(me: ClientState, vm: str) -> Op[View]:
    """Read ``vm``'s record. Raises BackendUnavailable, RecordError."""
    read = yield from ask(Read(vm))
    view = View(read.version, decode(vm, read.version, read.value))
    me.saw(vm, view)
    return view
