"""Every change of a record goes through `change`: one compare-and-set, repeated until it holds.

It starts from what this client saw last (nothing seen: an idle VM), so that the usual begin and
end are one round trip. A reply that never came is answered by the next try: tickets are unique,
an edit that finds its work done changes nothing. It knows no rule of jobs: the edit does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from distjob.async_job import detach
from distjob.codec import decode, encode
from distjob.errors import BackendUnavailable, ClientClosed, OutcomeUnknown
from distjob.hooks import Fate
from distjob.line import woken
from distjob.protocol.controller import Controller
from distjob.protocol.effects import Commit, Interrupt, Op, Read, Signal, Wait, ask
from distjob.protocol.parts import IDLE, Session, View
from distjob.record import JobRecord
from distjob.store import Committed, Reply, Settled, Stale
from distjob.ticket import AsyncHolder

Edit = Callable[[JobRecord], JobRecord]
"""From a record to the next; the same object means that there is nothing to change."""

HERD = 8
"""So many get in line, or out of it, during one change: a herd. Of a crowd in which each waits for
its turn none meets that many; of hundreds who ask at one moment each would try hundreds of times.
"""
LONGEST = 1.0
"""Seconds of a pause, at most: a process that was suspended measures a long try."""

NOBODY: frozenset[str] = frozenset()


class SessionEnded(Exception):
    """The store says that the author's own session has ended."""


def lose(me: Controller, session: Session, why: str) -> Op[None]:
    """The session has ended: let the keeper know, and who waits, whoever of them receives."""
    me.lose(session, why)
    yield from ask(Interrupt())


class Changed(NamedTuple):
    view: View
    committed: bool
    """False: the edit found nothing to change, on a record that the store gave in this call."""
    doubted: bool
    """A reply was lost on the way."""


def change(
    me: Controller,
    session: Session,
    vm: str,
    edit: Edit,
    *,
    until: float,
    ended: frozenset[str] = NOBODY,
) -> Op[Changed]:
    """Make ``edit`` of ``vm``'s record hold, and wake whom it concerns.

    ``ended``: sessions known to have ended, evicted in the same commit. While the store can't be
    reached it tries again until ``until``, at least once.

    Raises SessionEnded; BackendUnavailable, ClientClosed (nothing was changed), OutcomeUnknown,
    RecordError.
    """
    in_turn = (turn := me.my_turn(vm)) is None or (yield from _queue(me, vm, turn, until))
    try:
        return (yield from _change(me, session, vm, edit, until=until, ended=ended))
    finally:
        if in_turn:
            me.next_turn(vm)


def _queue(me: Controller, vm: str, turn: Signal, until: float) -> Op[bool]:
    """Wait for one's turn; False if it does not come in time: one goes on all the same."""
    try:
        yield from ask(Wait(max(0.0, until - me.clock.monotonic()), turn))
    except BaseException:
        if not me.given_up(vm, turn):
            me.next_turn(vm)
        raise
    return not me.given_up(vm, turn)


def _change(
    me: Controller,
    session: Session,
    vm: str,
    edit: Edit,
    *,
    until: float,
    ended: frozenset[str],
) -> Op[Changed]:
    view = me.views.get(vm, IDLE)
    certain = overtaken = False
    tries: _Tries | None = None
    while True:
        new = edit(view.record.evict(ended, today=me.clock.wall()) if ended else view.record)
        try:
            if overtaken or (new is view.record and not certain):
                view, certain, overtaken = (yield from look(me, vm)), True, False
                continue
            if new is view.record:
                return Changed(view, committed=False, doubted=tries is not None and tries.doubted)
            value = encode(new)
            wake = woken(view.record, new, session.id)
            wake = wake - ended if ended else wake
            reply: Reply = yield Commit(vm, view.version, value, session.id, wake)
        except (BackendUnavailable, ClientClosed) as error:
            tries = tries or _Tries(me, session, vm, until)
            yield from tries.failed(error)
            continue
        if isinstance(reply, Committed):
            if ended:
                _tell(me, vm, view.record, ended)
            view = IDLE if value is None else View(reply.version, new.at(reply.version))
            me.saw(vm, view, reply.version)
            return Changed(view, committed=True, doubted=tries is not None and tries.doubted)
        if isinstance(reply, Stale):
            view, certain = View(reply.version, decode(vm, reply.version, reply.value)), True
            me.saw(vm, view)
            tries = tries or _Tries(me, session, vm, until)
            overtaken = yield from tries.collided(len(view.record.queue))
        elif isinstance(reply, Settled):
            continue  # by another task of this session; nothing was changed
        elif session.id in reply.sessions:
            raise SessionEnded
        else:
            ended |= reply.sessions


def _tell(me: Controller, vm: str, record: JobRecord, ended: frozenset[str]) -> None:
    """The hooks, of each that was taken out of ``record``; one that held two slots is one."""
    holders = {holder.ticket.id: holder for holder in record.owners()}
    for holder in holders.values():
        if holder.ticket.session in ended:
            outlives = isinstance(holder, AsyncHolder) and holder.outlives
            fate: Fate = "orphaned" if outlives else "ended"
            me.held.tell_evicted(vm, holder.ticket, holder.since, holder.token, fate)
    for ticket in record.queue:
        if ticket.session in ended:
            me.held.tell_evicted(vm, ticket, ticket.asked, 0, "ended")


class _Tries:
    """How often it has failed, and what follows: the next try, a pause, or an error."""

    def __init__(self, me: Controller, session: Session, vm: str, until: float) -> None:
        self.me = me
        self.session = session
        self.vm = vm
        self.until = until
        self.failures = 0
        self.doubted = False
        self.tried = 0.0
        """When another was first, the last time."""
        self.line: int | None = None
        """How many waited when another was first, the first time since the last pause."""
        self.first = 0
        """The same, before the first pause."""
        self.pauses = 0

    def failed(self, error: BackendUnavailable | ClientClosed) -> Op[None]:
        """The store did not answer. At least one more try, as a pooled connection may be dead.

        No more, if the store was closed with its client.
        """
        if isinstance(error, BackendUnavailable):
            self.doubted = self.doubted or error.unanswered
            self.failures += 1
            if self.failures == 1:
                return
        if isinstance(error, BackendUnavailable) and self.me.clock.monotonic() < self.until:
            yield from ask(Wait(min(0.02 * 2.0**self.failures, 0.5)))
        elif self.doubted:
            raise OutcomeUnknown(f"VM {self.vm!r}: {error}", vm=self.vm) from error
        else:
            raise error

    def collided(self, line: int) -> Op[bool]:
        """Another was first, and ``line`` wait now. True after a pause: look before the next try.

        Without a pause the next try follows at once, on the record that the refusal brought: each
        refusal is another's success. A pause in between would let that record grow old, so that
        whoever pauses is refused until all others have finished. Only a herd spreads out: as many
        again as have come are taken to be on their way, and each to need the time of a try.
        """
        now = self.me.clock.monotonic()
        took, self.tried = now - self.tried, now
        if self.line is None:
            self.line = line
            if not self.pauses:
                self.first = line
        elif abs(line - self.line) > HERD and now < self.until:
            self.line = None
            self.pauses += 1
            share = zlib.crc32(f"{self.session.id}{self.vm}{self.pauses}".encode()) / 2**32
            span = min(abs(line - self.first) * took, LONGEST, self.until - now)
            yield from ask(Wait(share * span))
            return True
        return False


def dropping(me: Controller, ticket_id: str, *, gives_back: bool) -> Edit:
    """Take a ticket out that nobody has any more; what it has adopted stays, without an owner."""

    def drop(record: JobRecord) -> JobRecord:
        today = me.clock.wall()
        if gives_back:
            return detach(record, ticket_id, today=today) or record
        return record.drop(ticket_id, today=today)

    return drop


def look(me: Controller, vm: str) -> Op[View]:
    """Read ``vm``'s record. Raises BackendUnavailable, RecordError."""
    read = yield from ask(Read(vm))
    view = View(read.version, decode(vm, read.version, read.value))
    me.saw(vm, view)
    return view
