"""The state of one client: its session, the records it has seen, who of it waits.

Plain, shared by all operations of the client and changed only in their atomic steps. It
decides what a session's loss means, and which local waiters and leases a new record concerns. It
must not know of stores, threads or clocks other than those it was given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from distjob.errors import ClientClosed, RecordError
from distjob.hooks import How, SessionLost, SessionOpened
from distjob.protocol.effects import Clock, Signal
from distjob.protocol.holdings import Holdings
from distjob.protocol.parts import IDLE, Leftover, Session, View, Waiter, Wish
from distjob.rules.codec import decode
from distjob.rules.line import stirred, watched
from distjob.rules.ticket import Owner, Ticket
from distjob.store import ABSENT, Ended, Event, Missed, Woken

HANDS = object()
"""The hands, as receiver."""
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
    closing     `close`                               what is under way while the client closes
    over        the shells, with the store            errors of a closed store are no outage
    views       `saw`, closing                        the next commit starts from what was seen
    out_at      `saw`, `dismiss`                      a reply that is overtaken by a later one, of
                                                      a record that this session stands in no more
    waiters     `enroll`, `dismiss`                   a wake-up that comes before the reply to the
                                                      commit that got in line
    receiver    waiters and hands, while they listen  two of one client receive at a time
    turns       `my_turn`, `given_up`, `next_turn`    operations of one client collide on a VM
    early       `hear`, begin, heart                  a wake-up that comes before the reply to the
                                                      commit that granted the job
    leftovers   `leave`, hands, begin                 a cancellation that is cancelled
    heirs       adoptions, while under way            the client closes before they return
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
        self.over = False
        """The store was closed, too: what it says from now on is no outage."""
        self.views: dict[str, View] = {}
        """The records that this session stands in, as last seen."""
        self.out_at: dict[str, int] = {}
        """Of VMs with waiters: the version at which this session stood in the record no more."""
        self.waiters: dict[str, dict[str, Waiter]] = {}
        self.receiver: Waiter | object | None = None
        """Who receives the session's messages, for all: a waiter, or `HANDS`."""
        self.turns: dict[str, deque[Signal] | None] = {}
        """VMs that an operation is changing now, and those that come after it."""
        self.early: dict[str, int] = {}
        """VMs that were being changed: the version of a wake-up that came before the reply."""
        self.leftovers: dict[tuple[str, str], Leftover] = {}
        """Tickets (VM, id) to be taken out of the record: nobody has them any more."""
        self.heirs: set[tuple[str, str]] = set()
        """Tickets (VM, id) of adoptions under way: if the client closes, the job is given back."""
        self.holdings = Holdings(clock, self.stir, signal(), hooked=hooked)
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
            self.leftovers.clear()
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
            on_owner_loss=wish.on_owner_loss,
        )

    def enroll(self, vm: str, ticket_id: str) -> Waiter:
        """From now on, what concerns this ticket sets its waiter's signal."""
        here = self.waiters.setdefault(vm, {})
        if ticket_id not in here:
            here[ticket_id] = Waiter(ticket_id, self.new_signal())
        return here[ticket_id]

    def leave(self, vm: str, ticket_id: str, *, gives_back: bool = False) -> None:
        """Let the hands take this ticket out of the record, by its next round.

        ``gives_back``: the async job that it has adopted goes on without an owner.
        """
        self.leftovers[vm, ticket_id] = Leftover(0.0, gives_back)
        self.stir.set()

    def dismiss(self, vm: str, ticket_id: str) -> None:
        here = self.waiters.get(vm)
        if here is None:
            return
        gone = here.pop(ticket_id, None)
        if not here:
            del self.waiters[vm]
            self.out_at.pop(vm, None)
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

    # -- turns ---------------------------------------------------------------------------------

    def my_turn(self, vm: str) -> Signal | None:
        """None: change ``vm`` now, `next_turn` must follow; else wait for this signal first.

        So the operations of one client don't collide on a VM. Nothing but speed rests on it.
        """
        if vm not in self.turns:
            self.turns[vm] = None
            self.early.pop(vm, None)
            return None
        if (after := self.turns[vm]) is None:
            after = self.turns[vm] = deque()
        after.append(signal := self.new_signal())
        return signal

    def given_up(self, vm: str, turn: Signal) -> bool:
        """Do not wait any more; False if the turn has come, so that `next_turn` must follow."""
        after = self.turns.get(vm)
        if after is None or turn not in after:
            return False
        after.remove(turn)
        return True

    def next_turn(self, vm: str) -> None:
        """Whoever had the turn has changed ``vm``, or failed to."""
        if after := self.turns[vm]:
            after.popleft().set()
        else:
            del self.turns[vm]

    # -- records -------------------------------------------------------------------------------

    def saw(self, vm: str, view: View, version: int = ABSENT) -> None:
        """Keep ``view`` while this session stands in it, and tell the waiters it concerns.

        ``version``: of the commit that removed the record, which `IDLE` does not say.
        """
        old = self.views.get(vm, IDLE)
        if ABSENT < view.version <= max(old.version, self.out_at.get(vm, ABSENT)):
            return  # a reply that was overtaken
        if self.session is not None and view.record.names(self.session.id):
            self.views[vm] = view
        elif old is not IDLE:
            del self.views[vm]
        if vm in self.holdings.by_vm and (at := max(version, view.version)):
            self.holdings.judge(vm, view.record, at)
        if here := self.waiters.get(vm):
            if vm not in self.views:
                self.out_at[vm] = max(version, view.version, old.version)
            still = {ticket.id for ticket in view.record.queue}
            moved = {ticket.id for ticket in stirred(old.record, view.record)}
            for waiter in here.values():
                if waiter.ticket_id in moved or waiter.ticket_id not in still:
                    waiter.wake()

    def hear(self, event: Event) -> None:
        """A message of the store. Only a hint: what it says is checked by the next commit."""
        match event:
            case Woken(vm, version, value):
                self._woken(vm, version, value)
            case Ended(session):
                for vm, here in self.waiters.items():
                    record = self.views.get(vm, IDLE).record
                    for ticket_id, waiter in here.items():
                        if record.waits(ticket_id) and session in watched(record, ticket_id):
                            waiter.doubt()
            case Missed():
                for vm, here in self.waiters.items():
                    self.look_again(vm)
                    for waiter in here.values():
                        waiter.doubt()  # an `Ended` may be lost, too
                self.holdings.suspect_all()

    def _woken(self, vm: str, version: int, value: bytes | None) -> None:
        if vm in self.turns:
            self.early[vm] = version
        here = self.waiters.get(vm, {})
        try:
            if value is not None and (here or vm in self.views):
                self.saw(vm, View(version, decode(vm, version, value)))
                return
        except RecordError:
            pass  # whoever waits reads it again, and raises
        if vm not in self.views or self.views[vm].version < version:
            self.look_again(vm)
            self.holdings.suspect(vm)
