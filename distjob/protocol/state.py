"""The state of one client: its session, the records it has seen, who of it waits.

Plain, shared by all operations of the client and changed only in their atomic steps. It
decides what a session's loss means, and which local waiters and leases a new record concerns. It
must not know of stores, threads or clocks other than those it was given.
"""

from __future__ import annotations

from collections.abc import Callable

from distjob.errors import ClientClosed
from distjob.hooks import How, SessionLost, SessionOpened
from distjob.protocol.effects import Clock, Signal
from distjob.protocol.holdings import Holdings
from distjob.protocol.parts import IDLE, HeldJob, Leftover, Session, View, Waiter, Wish
from distjob.protocol.turns import Turns
from distjob.rules.line import stirred
from distjob.rules.record import JobRecord
from distjob.rules.ticket import Owner, Ticket
from distjob.store import ABSENT

HANDS = object()
"""The hands, as receiver."""
REMEMBERED = 1000
"""VMs of which it is remembered when this session left them: what is under way is of the last."""
CLOSED = "this client is closed: connect anew"


class ClientState:
    """What the operations of one client share; each step between two effects finds it at rest.

    What the client was made with: ``owner``, ``ttl``, ``wait``, ``max_queued``, ``pushed``,
    ``clock``, ``new_signal``. What changes, who writes it, and which race it closes:

    ==========  ====================================  =============================================
    session     heart (opens), whoever finds it       an operation goes on with the session that it
                ended (`lose`)                        began with, and sees by it that another is on
    ready       `opened`, `lose`, `close`             a begin between two sessions waits for one
    pulse       `lose`, `close`                       a loss is found while the heart waits for its
                                                      next beat
    stir        whoever leaves something to do        it comes while the hands wait
    unread      heart (a renewal came through),       a store that pushes nothing has messages that
                hands                                 nobody waits for
    dropped     a finalizer, without a lock           nobody has the client any more
    closing     `close`                               what is under way while the client closes
    over        the shells, with the store            errors of a closed store are no outage
    views       `saw`, closing                        the next commit starts from what was seen
    out_at      `saw`                                 a reply, or a message, that is overtaken, of a
                                                      record that this session stands in no more
    waiters     `enroll`, `dismiss`                   a wake-up that comes before the reply to the
                                                      commit that got in line
    receiver    waiters and hands, while they listen  two of one client receive at a time
    turns       `change`                              operations of one client collide on a VM
    early       hearing, begin, heart                  a wake-up that comes before the reply to the
                                                      commit that granted the job
    leftovers   `leave`, hands, begin                 a cancellation that is cancelled
    hurry       `saw`, hands                          somebody sees what the hands, which listen,
                                                      have to do
    asking      begins, while under way               the client closes before they return; what it
                                                      sees in a record is theirs, or nobody's
    holdings    see `Holdings`                        a job is lost while it is being ended
    ==========  ====================================  =============================================
    """

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
        bell: Callable[[], Signal] | None = None,
        hooked: bool = False,
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
        self.pulse = signal()
        """Set when the heart has something to do before the next beat."""
        self.stir = signal()
        """Set when the hands have something to do."""
        self.unread = False
        """A renewal has come through: messages that are not pushed are to be looked for."""
        self.closing = False
        self.dropped = False
        """The client is garbage: it closes itself."""
        self.over = False
        """The store was closed, too: what it says from now on is no outage."""
        self.views: dict[str, View] = {}
        """The records that this session stands in, as last seen."""
        self.out_at: dict[str, int] = {}
        """Of the VMs last seen so: at which version this session stood in the record no more."""
        self.waiters: dict[str, dict[str, Waiter]] = {}
        self.receiver: Waiter | object | None = None
        """Who receives the session's messages, for all: a waiter, or `HANDS`."""
        self.turns = Turns(signal)
        """VMs that an operation is changing now, and those that come after it."""
        self.early: dict[str, int] = {}
        """VMs that were being changed: the version of a wake-up that came before the reply."""
        self.leftovers: dict[tuple[str, str], Leftover] = {}
        """Tickets (VM, id) to be taken out of the record: nobody has them any more."""
        self.hurry = False
        """There are leftovers of which the hands, if they listen, do not know."""
        self.asking: dict[tuple[str, str], bool] = {}
        """Tickets (VM, id) of begins under way; True of adoptions, which closing gives back."""
        self.holdings = Holdings(clock, self.stir, (bell or signal)(), hooked=hooked)
        """What this session holds."""

    # -- session -------------------------------------------------------------------------------

    def opened(self, session_id: str, sent: float) -> Session:
        session = self.session = Session(session_id, self.ttl, sent)
        seconds = session.deadline - self.clock.monotonic()
        opened = SessionOpened(session=session_id, ttl=self.ttl, seconds=seconds)
        self.holdings.tell(opened)
        self.ready.set()
        self.stir.set()
        return session

    def lose(self, session: Session, why: str, how: How = "session") -> None:
        """The session has ended, or can't be shown to live: all that it held is void."""
        if not session.alive:
            return
        session.alive = False
        session.why, session.how = why, how
        if self.session is session:
            self.session = None
            self.holdings.lose_all(why, how)
            self.holdings.tell(SessionLost(session=session.id, why=why, how=how))
            self.views.clear()
            self.out_at.clear()
            self.leftovers = {
                key: one._replace(due=0.0) for key, one in self.leftovers.items() if one.outlives
            }
            if not self.closing:
                self.ready.clear()
        for waiter in self._all_waiters():
            waiter.look_again()
        self.pulse.set()
        self.stir.set()

    def check_open(self) -> None:
        """Raises ClientClosed from the moment on at which `close` was called."""
        if self.closing:
            raise ClientClosed(CLOSED)

    def drop(self, held: HeldJob) -> bool:
        """Leave to the background a job whose lease is garbage; whether it was held.

        Called by finalizers, which run between any two bytecodes of any thread: not an atomic step.
        """
        if self.closing or not held.holds(self.clock.monotonic()):
            return False
        self.holdings.dropped.append(held)
        return True

    def close(self) -> None:
        """Let everybody who waits find that the client is closed."""
        self.closing = True
        for signal in (self.ready, self.pulse, self.stir, self.holdings.due):
            signal.set()
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
            mask=wish.mask,
            on_owner_loss=wish.on_owner_loss,
        )

    def enroll(self, vm: str, ticket_id: str) -> Waiter:
        """From now on, what concerns this ticket sets its waiter's signal."""
        here = self.waiters.setdefault(vm, {})
        if ticket_id not in here:
            here[ticket_id] = Waiter(ticket_id, self.new_signal())
        return here[ticket_id]

    def leave(
        self, vm: str, ticket_id: str, *, gives_back: bool = False, outlives: bool = False
    ) -> None:
        """Let the hands take this ticket out of the record, by its next round.

        ``gives_back``: the async job that it has adopted goes on without an owner. ``outlives``: it
        may have become an orphan.
        """
        self.leftovers[vm, ticket_id] = Leftover(0.0, gives_back, outlives and not gives_back)
        self.stir.set()

    def dismiss(self, vm: str, ticket_id: str) -> None:
        here = self.waiters.get(vm)
        if here is None:
            return
        gone = here.pop(ticket_id, None)
        if not here:
            del self.waiters[vm]
        elif gone is not None and gone.missed:
            self.look_again(vm)
        self.let_receive()

    def look_again(self, vm: str) -> None:
        """Let one who waits for ``vm`` read its record, for all of them."""
        for waiter in self.waiters.get(vm, {}).values():
            waiter.look_again()
            return

    def let_receive(self) -> None:
        """If nobody receives, let one who waits do it, or else the hands."""
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
        out_at = self.out_at.get(vm, ABSENT) if vm in self.waiters else ABSENT
        if ABSENT < view.version <= max(old.version, out_at):
            return  # a reply that was overtaken
        if self.session is not None and view.record.names(self.session.id):
            self.views[vm] = view
            self.disown(vm, view.record)
        else:
            self.views.pop(vm, None)
            self._out(vm, max(version, view.version, old.version))
        if vm in self.holdings.by_vm and (at := max(version, view.version)):
            self.holdings.judge(vm, view.record, at)
        if here := self.waiters.get(vm):
            still = {ticket.id for ticket in view.record.queue}
            moved = {ticket.id for ticket in stirred(old.record, view.record)}
            for waiter in here.values():
                if waiter.ticket_id in moved or waiter.ticket_id not in still:
                    waiter.wake()

    def disown(self, vm: str, record: JobRecord) -> None:
        """Leave to the hands what this session has in ``record`` and nobody here asks for or holds.

        A store that has lost an acknowledged end, or was sent a commit twice, brings it back.
        """
        session = self.session
        if session is None:
            return
        here = self.holdings.by_vm.get(vm, {})
        for ticket in record.of(session.id):
            key = vm, ticket.id
            if ticket.id not in here and key not in self.asking and key not in self.leftovers:
                gives_back = ticket.id in session.given_back
                self.leave(vm, ticket.id, gives_back=gives_back, outlives=ticket.stays)
                self.hurry = True

    def _out(self, vm: str, version: int) -> None:
        self.out_at.pop(vm, None)
        if version > ABSENT:
            self.out_at[vm] = version
        if len(self.out_at) > REMEMBERED:
            del self.out_at[next(iter(self.out_at))]
