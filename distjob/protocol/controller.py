"""One client's side of the protocol: its session, the records it has seen, who of it waits.

Plain state, shared by all operations of the client and changed only in their atomic steps. It
decides what a session's loss means and which local waiters a new record concerns. It must not
know of stores, threads or clocks other than those it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from distjob.codec import decode
from distjob.errors import RecordError
from distjob.jobs import AgentJob, AsyncJob, Job
from distjob.line import stirred, watched
from distjob.protocol.effects import Clock, Signal
from distjob.record import JobRecord, Owner, Ticket
from distjob.store import ABSENT, Ended, Event, Missed, Woken


class View(NamedTuple):
    """A VM's record as it was at a version."""

    version: int
    record: JobRecord


IDLE = View(ABSENT, JobRecord())
KEEPER = object()
"""The keeper, as receiver."""


class Wish(NamedTuple):
    """What a begin call asks for, before it has a ticket."""

    api: str
    job: Job | None = None
    agent: AgentJob | None = None
    kind: AsyncJob | None = None
    parent: str = ""


class Session:
    """A session as its own controller sees it.

    The deadline is counted from before the last successful keep-alive was sent, and lies a tenth
    of the TTL before the moment at which the store could end the session.
    """

    __slots__ = ("_count", "alive", "deadline", "id", "next_beat", "on_lost", "ttl", "why")

    def __init__(self, session_id: str, ttl: float, sent: float) -> None:
        self.id = session_id
        self.ttl = ttl
        self.alive = True
        self.why = ""
        self.on_lost: list[Callable[[], None]] = []
        self._count = 0
        self.renewed(sent)

    def renewed(self, sent: float) -> None:
        self.deadline = sent + 0.9 * self.ttl
        self.next_beat = sent + self.ttl / 3

    def holds(self, now: float) -> bool:
        """Whether it surely lives at this moment."""
        return self.alive and now < self.deadline

    def next_ticket_id(self) -> str:
        self._count += 1
        return f"{self.id}.{self._count}"


class Held:
    """A job that was granted: what a lease is made of."""

    __slots__ = ("callbacks", "doubted", "ended", "session", "ticket", "token", "vm")

    def __init__(
        self, vm: str, ticket: Ticket, token: int, session: Session, *, doubted: bool
    ) -> None:
        self.vm = vm
        self.ticket = ticket
        self.token = token
        self.session = session
        self.doubted = doubted
        """A reply was lost on the way to it."""
        self.ended = False
        self.callbacks: tuple[Callable[[], None], ...] = ()


class Waiter:
    """One begin call that waits, on this side."""

    __slots__ = ("doubts", "missed", "signal", "ticket_id", "woken")

    def __init__(self, ticket_id: str, signal: Signal) -> None:
        self.ticket_id = ticket_id
        self.signal = signal
        self.woken = False
        self.missed = False
        """It must read the record: what it was to be told may be lost."""
        self.doubts = False
        """It must ask whether those it watches live: one of them is said to have ended."""

    def wake(self) -> None:
        self.woken = True
        self.signal.set()

    def rest(self) -> None:
        self.woken = False
        self.signal.clear()

    def look_again(self) -> None:
        self.missed = True
        self.wake()

    def doubt(self) -> None:
        self.doubts = True
        self.wake()


class Controller:
    """The state. ``session`` is None while there is none: the keeper opens the next."""

    def __init__(
        self,
        owner: Owner,
        *,
        ttl: float,
        wait: float,
        max_queued: int,
        pushed: bool,
        clock: Clock,
        signal: Callable[[], Signal],
    ) -> None:
        self.owner = owner
        self.ttl = ttl
        self.wait = wait
        self.max_queued = max_queued
        self.pushed = pushed
        """Whether the store sends wake-ups by itself, so that listening costs nothing."""
        self.clock = clock
        self.new_signal = signal
        self.session: Session | None = None
        self.ready = signal()
        """Set while there is a session, and when the client closes."""
        self.stir = signal()
        """Set when the keeper has something to do."""
        self.closing = False
        self.views: dict[str, View] = {}
        """The records that this session stands in, as last seen."""
        self.left: dict[str, int] = {}
        """Of VMs with waiters: the version at which this session stood in the record no more."""
        self.waiters: dict[str, dict[str, Waiter]] = {}
        self.receiver: Waiter | object | None = None
        """Who receives the session's messages, for all: a waiter, or `KEEPER`."""
        self.leftovers: dict[tuple[str, str], float] = {}
        """Tickets (VM, id) to be taken out of the record, and when: nobody has them any more."""
        self.fallen: list[Callable[[], None]] = []
        """Callbacks of leases that were lost, not called yet."""

    # -- session -------------------------------------------------------------------------------

    def opened(self, session_id: str, sent: float) -> Session:
        self.session = Session(session_id, self.ttl, sent)
        self.ready.set()
        return self.session

    def lose(self, session: Session, why: str) -> None:
        """The session has ended, or can't be shown to live: all that it held is void."""
        if not session.alive:
            return
        session.alive = False
        session.why = why
        self.fallen += session.on_lost
        session.on_lost = []
        if self.session is session:
            self.session = None
            self.views.clear()
            self.leftovers.clear()
            if not self.closing:
                self.ready.clear()
        for waiter in self._all_waiters():
            waiter.look_again()
        self.stir.set()

    def close(self) -> None:
        """Let everybody who waits find that the client is closed."""
        self.closing = True
        self.ready.set()
        self.stir.set()
        for waiter in self._all_waiters():
            waiter.look_again()

    # -- tickets -------------------------------------------------------------------------------

    def ticket(self, session: Session, wish: Wish) -> Ticket:
        return Ticket(
            id=session.next_ticket_id(),
            session=session.id,
            owner=self.owner,
            api=wish.api,
            asked=round(self.clock.wall(), 3),
            job=wish.job,
            agent=wish.agent,
            kind=wish.kind,
            parent=wish.parent,
        )

    def enroll(self, vm: str, ticket_id: str) -> Waiter:
        """From now on, what concerns this ticket sets its waiter's signal."""
        here = self.waiters.setdefault(vm, {})
        if ticket_id not in here:
            here[ticket_id] = Waiter(ticket_id, self.new_signal())
        return here[ticket_id]

    def leave(self, vm: str, ticket_id: str, due: float = 0.0) -> None:
        """Let the keeper take this ticket out of the record, after ``due``, by its next round."""
        self.leftovers[vm, ticket_id] = due
        self.stir.set()

    def dismiss(self, vm: str, ticket_id: str) -> None:
        here = self.waiters.get(vm)
        if here is None:
            return
        here.pop(ticket_id, None)
        if not here:
            del self.waiters[vm]
            self.left.pop(vm, None)
        self.let_receive()

    def let_receive(self) -> None:
        """If nobody receives, let one who waits do it, or else the keeper."""
        if self.receiver is not None:
            return
        if self.waiters:
            self._all_waiters()[0].wake()
        else:
            self.stir.set()

    def _all_waiters(self) -> list[Waiter]:
        return [waiter for here in self.waiters.values() for waiter in here.values()]

    # -- records -------------------------------------------------------------------------------

    def saw(self, vm: str, view: View, version: int = ABSENT) -> None:
        """Keep ``view`` while this session stands in it, and tell the waiters it concerns.

        ``version``: of the commit that removed the record, which `IDLE` does not say.
        """
        old = self.views.get(vm, IDLE)
        if ABSENT < view.version <= max(old.version, self.left.get(vm, ABSENT)):
            return  # a reply that was overtaken
        if self.session is not None and view.record.names(self.session.id):
            self.views[vm] = view
        elif old is not IDLE:
            del self.views[vm]
        if here := self.waiters.get(vm):
            if vm not in self.views:
                self.left[vm] = max(version, view.version, old.version)
            still = {ticket.id for ticket in view.record.queue}
            moved = {ticket.id for ticket in stirred(old.record, view.record)}
            for waiter in here.values():
                if waiter.ticket_id in moved or waiter.ticket_id not in still:
                    waiter.wake()

    def hear(self, event: Event) -> None:
        """A message of the store. Only a hint: what it says is checked by the next commit."""
        match event:
            case Woken(vm, version, value):
                here = self.waiters.get(vm, {})
                try:
                    if value is not None and (here or vm in self.views):
                        self.saw(vm, View(version, decode(vm, version, value)))
                        return
                except RecordError:
                    pass  # whoever waits reads it again, and raises
                for waiter in here.values():
                    waiter.look_again()
            case Ended(session):
                for vm, here in self.waiters.items():
                    record = self.views.get(vm, IDLE).record
                    for ticket_id, waiter in here.items():
                        if record.waits(ticket_id) and session in watched(record, ticket_id):
                            waiter.doubt()
            case Missed():
                for waiter in self._all_waiters():
                    waiter.look_again()
