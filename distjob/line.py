"""The line: which session each waiter keeps an eye on, and whom a change of the record wakes.

The first in line watches the holders, every other waiter the one before it, as in ZooKeeper's
lock recipe: each death has one witness, and nobody watches more than three sessions. A commit
wakes the waiters that it lets in, and those that have someone else to watch from now on. While the
line is short it also tells the holders of a newcomer: they end their job against the record as it
is, at the first try. Pure: it knows the record and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from distjob.record import JobRecord, Ticket

SHORT = 8
"""A line of so many is short."""


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
        if ticket.id in was and _targets(new, before) != _targets(old, was[ticket.id]):
            yield ticket


def woken(old: JobRecord, new: JobRecord, author: str) -> frozenset[str]:
    """The sessions that the commit from ``old`` to ``new``, made by session ``author``, wakes.

    The author's own as well, if it concerns another thread of the same client.
    """
    if not old.queue and not new.queue:
        return frozenset()
    sessions = {ticket.session for ticket in stirred(old, new)}
    left = {ticket.id for ticket in new.queue}.union(h.ticket.id for _, h in new.holders())
    if any(t.session == author for t in old.queue if t.nested and t.id not in left):
        sessions.add(author)  # a step that waited has gone with its async job
    if len(old.queue) < len(new.queue) <= SHORT:
        sessions.update(h.ticket.session for _, h in new.holders() if h.ticket.session != author)
    return frozenset(sessions)


def _pairs(record: JobRecord) -> Iterator[tuple[Ticket | None, Ticket]]:
    before: Ticket | None = None
    for ticket in record.queue:
        yield before, ticket
        before = ticket


def _targets(record: JobRecord, before: Ticket | None) -> frozenset[str]:
    if before is not None:
        return frozenset((before.session,))
    return frozenset(holder.ticket.session for _, holder in record.holders())
