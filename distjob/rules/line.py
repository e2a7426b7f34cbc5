"""The line: which session each waiter keeps an eye on, and whom a change of the record wakes.

The first in line watches the holders, every other waiter the one before it, as in ZooKeeper's
lock recipe: each death has one witness, and nobody watches more than three sessions. A commit
wakes the waiters that it lets in, and those that have someone else to watch from now on. It also
tells those from whom it takes something by force, and the owner of an async job that is to abort.
While the line is short it tells the holders of a newcomer, too: they end their job against the
record as it is, at the first try. Pure: it knows the record and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from distjob.rules.record import JobRecord
from distjob.rules.ticket import Holder, Ticket

SHORT = 16
"""A line of so many is short: that the holder's end is not refused is worth a message from each."""


def watched(record: JobRecord, ticket_id: str) -> frozenset[str]:
    """The sessions whose end this waiter must notice; its own is left out."""
    before: Ticket | None = None
    for ticket in record.queue:
        if ticket.id == ticket_id:
            return _targets(record, before) - {ticket.session}
        before = ticket
    return frozenset()


def stirred(old: JobRecord, new: JobRecord) -> Iterator[Ticket]:
    """The waiters of ``old`` that have been let in, or that watch others in ``new``."""
    if not old.queue:
        return
    admitted = {holder.ticket.id for _, holder in new.holders()}
    yield from (ticket for ticket in old.queue if ticket.id in admitted)
    was = {ticket.id: before for before, ticket in _pairs(old)}
    for before, ticket in _pairs(new):
        if ticket.id not in was:
            continue
        earlier = was[ticket.id]
        if before is not None and earlier is not None:
            if before.session != earlier.session:
                yield ticket
        elif _targets(new, before) != _targets(old, earlier):
            yield ticket


def woken(old: JobRecord, new: JobRecord, author: str) -> frozenset[str]:
    """The sessions that the commit from ``old`` to ``new``, made by session ``author``, wakes.

    The author's own as well, if it concerns another thread of the same client.
    """
    alone = not (old.queue or new.queue or old.async_)
    if alone and _is_of(old.sync, author) and _is_of(old.agent, author):
        return frozenset()  # as at nearly every begin and end
    sessions = bereft(old, new, author)
    running = new.async_
    if running and running.abort and not running.owner_gone and old.async_ and not old.async_.abort:
        sessions.add(running.ticket.session)
    if not old.queue and not new.queue:
        return frozenset(sessions)
    sessions.update(ticket.session for ticket in stirred(old, new))
    still = {ticket.id for ticket in new.queue}.union(h.ticket.id for _, h in new.holders())
    if any(t.session == author for t in old.queue if t.nested and t.id not in still):
        sessions.add(author)  # a step that waited has gone with its async job
    if len(old.queue) < len(new.queue) <= SHORT:
        sessions.update(h.ticket.session for h in new.owners() if h.ticket.session != author)
    return frozenset(sessions)


def _is_of(holder: Holder | None, session: str) -> bool:
    return holder is None or holder.ticket.session == session


def bereft(old: JobRecord, new: JobRecord, author: str) -> set[str]:
    """Sessions other than the author's from which ``new`` takes what they held or waited for."""
    taken = {
        holder.ticket.session
        for holder in old.owners()
        if holder.ticket.session != author and not new.holder_of(holder.ticket.id)
    }
    if len(new.queue) < len(old.queue):
        still = {ticket.id for ticket in new.queue}.union(h.ticket.id for _, h in new.holders())
        taken.update(t.session for t in old.queue if t.session != author and t.id not in still)
    return taken


def _pairs(record: JobRecord) -> Iterator[tuple[Ticket | None, Ticket]]:
    before: Ticket | None = None
    for ticket in record.queue:
        yield before, ticket
        before = ticket


def _targets(record: JobRecord, before: Ticket | None) -> frozenset[str]:
    if before is not None:
        return frozenset((before.session,))
    return frozenset(holder.ticket.session for holder in record.owners())
