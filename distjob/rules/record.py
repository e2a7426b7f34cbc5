"""The rules: a VM's jobs as one immutable record, every change a pure function on it.

A VM has three slots (sync, agent, async), each empty or holding one job, and a queue of the tickets
that wait, oldest first. Every function here takes a record and returns the next one; none knows
of stores, time, threads or other VMs. Whatever frees something also lets in, in the same step,
the oldest tickets that may start: a record that is at rest has no waiter that could.

An async job has an owner, or was left by it: detached, or orphaned by the end of its owner's
session. A job that was left is nobody's: it keeps the slot and its mask until somebody adopts or
discards it. What only its owner may change is in async_job.py.

Source: libvirt 9.0.0 ``virDomainObjBeginJobInternal``, ``virDomainNestedJobAllowed``,
``virDomainObjCanSetJob``, ``virDomainObjEndJob``; differences are in docs/reference/semantics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from enum import Enum, auto
from typing import TypeVar

import msgspec

from distjob.rules.jobs import Job, Slot
from distjob.rules.ticket import AsyncHolder, Holder, Left, Ticket

LONGEST_LINE = 10_000
"""So many wait for a VM at most, exempt or not: each begin and end reads the whole record."""

H = TypeVar("H", bound=Holder)
_Test = Callable[[Ticket], bool]


class Verdict(Enum):
    """What became of a request."""

    GRANTED = auto()
    WAITING = auto()
    BUSY = auto()
    """It can't start now and does not want to wait."""
    FULL = auto()
    """``max_queued`` holders and waiters are there already, or `LONGEST_LINE` waiters."""
    NOT_OWNER = auto()
    """A step of an async job that is not the asker's; adopting one that has an owner."""
    WRONG_JOB = auto()
    """A step of an async job of another type; none to adopt, or another."""


class JobRecord(
    msgspec.Struct,
    frozen=True,
    gc=False,
    omit_defaults=True,
    rename={"async_": "async"},
    forbid_unknown_fields=True,
):
    """All of one VM's jobs. The empty record is an idle VM, and is not kept in the store."""

    sync: Holder | None = None
    agent: Holder | None = None
    async_: AsyncHolder | None = None
    queue: tuple[Ticket, ...] = ()

    # -- looking -------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        return not (self.sync or self.agent or self.async_ or self.queue)

    def holders(self) -> Iterator[tuple[Slot, Holder]]:
        """The slots that are taken. A request for a sync and an agent job holds two."""
        if self.sync:
            yield Slot.SYNC, self.sync
        if self.agent:
            yield Slot.AGENT, self.agent
        if self.async_:
            yield Slot.ASYNC, self.async_

    def owners(self) -> Iterator[Holder]:
        """The slots that somebody holds: all that are taken, but for an async job that was left."""
        if self.sync:
            yield self.sync
        if self.agent:
            yield self.agent
        if self.async_ and not self.async_.owner_gone:
            yield self.async_

    def holder_of(self, ticket_id: str) -> Holder | None:
        """The slot that this ticket holds (the sync one, if it holds two)."""
        for holder in (self.sync, self.agent):
            if holder is not None and holder.ticket.id == ticket_id:
                return holder
        return self.owned(ticket_id)

    def owned(self, ticket_id: str) -> AsyncHolder | None:
        """The async job, if this ticket owns it."""
        running = self.async_
        if running is None or running.owner_gone or running.ticket.id != ticket_id:
            return None
        return running

    def waits(self, ticket_id: str) -> bool:
        return bool(self.queue) and any(ticket.id == ticket_id for ticket in self.queue)

    def sessions(self) -> frozenset[str]:
        """All sessions that hold or wait."""
        held = {holder.ticket.session for holder in self.owners()}
        return frozenset(held.union(ticket.session for ticket in self.queue))

    def names(self, session: str) -> bool:
        """Whether this session holds or waits."""
        for holder in self.owners():
            if holder.ticket.session == session:
                return True
        return bool(self.queue) and any(ticket.session == session for ticket in self.queue)

    def of(self, session: str) -> list[Ticket]:
        """The tickets by which this session holds or waits; one that holds two slots is one."""
        held = {h.ticket.id: h.ticket for h in self.owners() if h.ticket.session == session}
        return [*held.values(), *(ticket for ticket in self.queue if ticket.session == session)]

    def just_let_in(self, ticket: Ticket, parent: str) -> bool:
        """Whether it is a step of that async job which has its slot by the commit being made."""
        if ticket.parent != parent or self.sync is None:
            return False
        return self.sync.ticket is ticket and not self.sync.token

    def masked(self, ticket: Ticket) -> bool:
        """Rule 2: an async job runs and keeps this one out."""
        if self.async_ is None or ticket.job is None or ticket.nested:
            return False
        return ticket.job not in self.async_.mask

    def admits(self, ticket: Ticket) -> bool:
        """Rules 2 and 3: may it start now? The async slot needs the sync slot free, too."""
        if ticket.job is not None and (self.sync is not None or self.masked(ticket)):
            return False
        return ticket.agent is None or self.agent is None

    def blockers(self, ticket: Ticket) -> tuple[tuple[Slot, Holder], ...]:
        """Who is named as being in its way: for the monitor at most one, and for the agent.

        The async job if its mask is what blocks, else the sync job (libvirt: ``blocker``).
        """
        found: list[tuple[Slot, Holder]] = []
        if ticket.job is not None:
            if self.async_ is not None and self.masked(ticket):
                found.append((Slot.ASYNC, self.async_))
            elif self.sync is not None:
                found.append((Slot.SYNC, self.sync))
        if ticket.agent is not None and self.agent is not None:
            found.append((Slot.AGENT, self.agent))
        return tuple(found)

    def count(self) -> int:
        """Holders and waiters; a ticket in two slots counts once."""
        return len({holder.ticket.id for _, holder in self.holders()}) + len(self.queue)

    # -- changing ------------------------------------------------------------------------------

    def request(
        self, ticket: Ticket, *, wall: float, max_queued: int = 0, wait: bool = True
    ) -> tuple[Verdict, JobRecord]:
        """Rules 1 to 5. A refusal returns this same record; so does a ticket that is known already.

        ``wall`` is the wall clock, for people.
        """
        if self.holder_of(ticket.id):
            return Verdict.GRANTED, self
        if self.waits(ticket.id):
            return Verdict.WAITING, self
        if ticket.nested and (refusal := self._refuses_step(ticket)):
            return refusal, self
        if 0 < max_queued <= self.count() and not ticket.exempt:
            return Verdict.FULL, self
        if self.admits(ticket):
            return Verdict.GRANTED, self._grant(ticket, wall)
        if not wait:
            return Verdict.BUSY, self
        if len(self.queue) >= LONGEST_LINE:
            return Verdict.FULL, self
        return Verdict.WAITING, msgspec.structs.replace(self, queue=(*self.queue, ticket))

    def end(self, ticket_id: str, *, wall: float) -> JobRecord:
        """End the job of this ticket; the same record if it holds none.

        With an async job end those of its steps that still wait, or that this same commit let in;
        a step that is under way keeps the sync slot until its own end.
        """
        if not self.holder_of(ticket_id):
            return self
        return self.without(
            lambda ticket: ticket.id == ticket_id or self.just_let_in(ticket, ticket_id),
            lambda ticket: ticket.parent == ticket_id,
        ).promote(wall)

    def withdraw(self, ticket_id: str, *, wall: float) -> JobRecord:
        """Take a waiting ticket out of the queue; the same record if it does not wait."""
        if not self.waits(ticket_id):
            return self
        queue = tuple(ticket for ticket in self.queue if ticket.id != ticket_id)
        return msgspec.structs.replace(self, queue=queue).promote(wall)

    def drop(self, ticket_id: str, *, wall: float) -> JobRecord:
        """`end` or `withdraw`, whichever this ticket needs; the same record if neither."""
        held = self.end(ticket_id, wall=wall)
        return held if held is not self else self.withdraw(ticket_id, wall=wall)

    def evict(self, ended: Collection[str], *, wall: float) -> JobRecord:
        """Void all that these sessions hold and wait for; the same record if that is nothing.

        An async job that is to outlive its owner is orphaned instead.
        """
        if self.sessions().isdisjoint(ended):
            return self
        rest = self
        running = self.async_
        if (
            running
            and not running.owner_gone
            and running.ticket.session in ended
            and running.outlives
        ):
            orphan = msgspec.structs.replace(running, owner_gone=Left.ORPHANED)
            rest = msgspec.structs.replace(self, async_=orphan)
        gone = {holder.ticket.id for holder in rest.owners() if holder.ticket.session in ended}
        return rest.without(
            lambda ticket: ticket.id in gone,
            lambda ticket: ticket.session in ended or ticket.parent in gone,
        ).promote(wall)

    def remove(self, ticket_ids: Collection[str], *, wall: float) -> JobRecord:
        """Take these tickets out by force, held or waiting, owned or left, with all their steps.

        The same record if it has none of them.
        """

        def falls(ticket: Ticket) -> bool:
            return ticket.id in ticket_ids or ticket.parent in ticket_ids

        held = (holder.ticket for _, holder in self.holders())
        if not any(map(falls, (*held, *self.queue))):
            return self
        return self.without(falls, falls).promote(wall)

    def at(self, version: int) -> JobRecord:
        """This record as the value of ``version``: fresh grants get their token."""

        return JobRecord(
            _mint(self.sync, version),
            _mint(self.agent, version),
            _mint(self.async_, version),
            self.queue,
        )

    def promote(self, wall: float) -> JobRecord:
        """Let in the oldest that may start, then the oldest of the rest: no grant frees another.

        All of it happens at one moment. So an async request that came later than the sync job
        let in, and would let it in, starts before it took the slot (libvirt's trace 2113); unless
        it would shut out somebody older, who waits for that slot, too.
        """
        if not self.queue:
            return self
        record, rest = self, []
        for ticket in self.queue:
            if record.admits(ticket):
                record = record._grant(ticket, wall)
            else:
                rest.append(ticket)
        if len(rest) == len(self.queue):
            return record
        let_in = record.sync if record.sync is not self.sync else None
        later = next((ticket for ticket in rest if ticket.job is Job.ASYNC), None)
        if let_in and later and not record.async_ and let_in.ticket.job in later.lets_in:
            with_it = record._grant(later, wall)
            if not any(with_it.masked(older) for older in rest[: rest.index(later)]):
                record = with_it
                rest.remove(later)
        return msgspec.structs.replace(record, queue=tuple(rest))

    def without(self, free: _Test, drop: _Test) -> JobRecord:
        """Free the slots whose ticket passes ``free``, drop the waiters that pass ``drop``."""

        sync, agent, async_ = self.sync, self.agent, self.async_
        return JobRecord(
            None if sync is None or free(sync.ticket) else sync,
            None if agent is None or free(agent.ticket) else agent,
            None if async_ is None or free(async_.ticket) else async_,
            tuple(ticket for ticket in self.queue if not drop(ticket)) if self.queue else (),
        )

    # -- the steps they are made of ------------------------------------------------------------

    def _refuses_step(self, ticket: Ticket) -> Verdict | None:
        """Rule 5: a nested job is the async job's owner's, and names its type."""
        running = self.owned(ticket.parent)
        if running is None or running.ticket.session != ticket.session:
            return Verdict.NOT_OWNER
        return Verdict.WRONG_JOB if running.ticket.kind is not ticket.kind else None

    def _grant(self, ticket: Ticket, wall: float) -> JobRecord:
        sync, agent, async_ = self.sync, self.agent, self.async_
        if ticket.job is Job.ASYNC:
            async_ = AsyncHolder(ticket, wall, mask=ticket.lets_in)
        elif ticket.job is not None:
            sync = Holder(ticket, wall)
        if ticket.agent is not None:
            agent = Holder(ticket, wall)
        return JobRecord(sync, agent, async_, self.queue)


def _mint(holder: H | None, version: int) -> H | None:
    if holder is None or holder.token:
        return holder
    return msgspec.structs.replace(holder, token=int(version))  # whatever it carries besides
