"""The store's side of a run: requests that reach it, wake-ups that it sends, what goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distjob.errors import BackendUnavailable
from distjob.protocol.effects import (
    CloseSession,
    Commit,
    KeepAlive,
    OpenSession,
    Read,
    Remaining,
    Scan,
    Settle,
)
from distjob.store import Committed, Missed, Reply, Settled
from distjob.testing.explore.stage import Controller, Pending
from distjob.testing.sim.faults import SimServer

if TYPE_CHECKING:
    from distjob.testing.explore.schedule import Schedule

_CHANGES = (Commit, OpenSession, KeepAlive, CloseSession, Settle)
SOON = 0.001
"""Seconds past the end of a session at which a store that tells of it does so."""


class Late:
    """A commit whose sender was told that there is no answer."""

    __slots__ = ("arrives", "looked", "request")

    def __init__(self, request: Pending, arrives: int, looked: int) -> None:
        self.request = request
        self.arrives = arrives
        """The step at which it is made; 0: it is not."""
        self.looked = looked
        """How often the store had changed when that was looked at last."""


class Network:
    """Carries requests and wake-ups between the controllers of a run and a model of a store."""

    def __init__(self, schedule: Schedule, *, tells_ends: bool) -> None:
        self.schedule = schedule
        self.server = SimServer(lambda: schedule.now)
        self.tells_ends = tells_ends
        self.homes: dict[str, Controller] = {}
        """Which controller opened a session."""
        self.forgotten: frozenset[str] = frozenset()
        """Sessions that the store has lost with its data."""
        self.changes = 0
        """How often the store has changed."""
        self.late: dict[int, Late] = {}
        """By the step at which they became late, the commits that may still be made."""
        self.could: list[tuple[int, int]] = []
        """Such a step, and one after the last deviation at which that commit could be made."""

    # -- requests ------------------------------------------------------------------------------

    def arrive(self, request: Pending) -> None:
        """A request reaches the store, and its answer sets out."""
        self.schedule.answer(request, self.apply(request))

    def apply(self, request: Pending) -> Any:
        """What the store makes of it."""
        effect, server = request.what, self.server
        self.schedule.touched |= {request.at, self}
        match effect:
            case Commit():
                return self.commit(effect, request.mark)
            case Read(vm):
                return server.read(vm)
            case Remaining(sessions):
                return self._remaining(request.at, sessions)
            case Scan():
                return server.scan()
        self.changes += 1
        match effect:
            case Settle(session):
                server.settled[session] += 1
                return None
            case KeepAlive(session):
                return server.keep_alive(session)
            case OpenSession(ttl, owner):
                session = server.open_session(ttl, owner)
                self.homes[session] = request.at
                return session
            case CloseSession(session):
                server.close_session(session)
                self._tell()
                return None
        raise AssertionError(f"no such request: {effect}")

    def commit(self, effect: Commit, settled: int) -> Reply:
        """``settled``: how often its session had been settled when it was sent."""
        vm, author, server = effect.vm, effect.author, self.server
        if server.alive(author) and settled != server.settled[author]:
            return Settled()
        reply = server.commit(vm, effect.expected, effect.value, author, effect.wake)
        if isinstance(reply, Committed):
            self.changes += 1
            self.schedule.judges.committed(vm, author, reply.version, effect.value)
            for session in sorted(effect.wake):
                self._drain(session)
        return reply

    def fail(self, request: Pending, how: str, number: int) -> None:
        """A request goes wrong."""
        at, change = request.at, isinstance(request.what, _CHANGES)
        at.excuse = at.excuse or how
        self.schedule.touched.add(at)
        if how == "refused":
            self.schedule.answer(request, None, BackendUnavailable("refused", unanswered=False))
            return
        if how == "unheard":
            self.apply(request)
        elif how == "late":
            self.late[self.schedule.steps] = Late(request, number, self.changes)
        self.schedule.give_up(request, unanswered=change)

    def arrive_late(self) -> None:
        """Before each step: commits that are late are made now, or could be."""
        for became, late in list(self.late.items()):
            effect, server, steps = late.request.what, self.server, self.schedule.steps
            if late.arrives:
                if late.arrives == steps:
                    del self.late[became]
                    self.schedule.touched.add(self)
                    self.commit(effect, late.request.mark)
                continue
            if late.looked == self.changes or steps <= self.schedule.last:
                continue
            late.looked = self.changes
            version = server.read(effect.vm).version
            living = all(server.alive(session) for session in (effect.author, *effect.wake))
            if not living or late.request.mark != server.settled[effect.author]:
                del self.late[became]  # it never will be
            elif version == effect.expected:
                self.could.append((became, steps))
            elif effect.expected:
                del self.late[became]

    # -- wake-ups ------------------------------------------------------------------------------

    def rouse(self, at: Controller) -> None:
        """A receive that is under way ends, if it has something to return."""
        if at.receiver is not None and at.receiving and at.sent(at.receiver[2]):
            task, turn, _ = at.receiver
            self.schedule.timers.pop(task.name, None)
            self.schedule.add(Pending("take", at, task, turn))

    def deliver(self, mail: Pending) -> None:
        """A wake-up reaches its controller."""
        session, event = mail.what
        if isinstance(event, Missed):
            mail.at.missed = True
        else:
            mail.at.inbox.setdefault(session, []).append(event)
        self.rouse(mail.at)

    def mishear(self, mail: Pending, how: str) -> None:
        """A wake-up is lost, lost and told as missed, or comes twice."""
        if how == "twice":
            self.schedule.add(mail)
            self.deliver(mail)
        elif how == "missed":
            self.deliver(mail._replace(what=(mail.what[0], Missed())))
        else:
            mail.at.deaf = True
        self.schedule.touched.add(mail.at)

    def _drain(self, session: str) -> None:
        for event in self.server.take(session):
            mail = Pending("mail", self.homes[session], None, 0, (session, event))
            self.schedule.add(mail)

    def _remaining(self, at: Controller, sessions: frozenset[str]) -> dict[str, float]:
        """Exact; or, from a store that tells, a moment that is not too early."""
        if not self.tells_ends:
            return self.server.remaining(sessions)
        watcher = at.me.session.id if at.me.session else ""
        left = self.server.remaining(sessions, watcher)
        self._tell()
        return {name: self.schedule.ttl if s > 0 else 0.0 for name, s in left.items()}

    def _tell(self) -> None:
        """Send `Ended` of the sessions that have ended; and again when the next one may have."""
        if not self.tells_ends:
            return
        living = self.server.living()
        for session in living:
            self._drain(session)
        soonest = min(map(self.server.quiet_for, living), default=float("inf"))
        if soonest < float("inf"):
            self.schedule.timer("the store", soonest + SOON, self._tell)

    # -- its data ------------------------------------------------------------------------------

    def lose_data(self) -> None:
        """All values and sessions are gone; versions go on rising."""
        self.forgotten |= frozenset(self.homes)
        self.changes += 1
        self.server.lose_data()
        self.schedule.touched.add(self)
        for at in self.schedule.controllers:
            at.excuse = at.excuse or "emptied"
        self.schedule.judges.emptied()

    def state(self) -> int:
        """A hash of all that is in it, and under way to it."""
        late = tuple((one.request.key, one.arrives) for one in self.late.values())
        return hash((self.server.state(), self.forgotten, late))
