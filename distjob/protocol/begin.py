"""Begin: ask, wait in line if need be, be let in, or be told who is in the way.

It decides which refusals are final: nobody is told "busy" or "full" on account of the dead. What a
begin that fails or is cancelled has put into the record is taken out again.
"""

from __future__ import annotations

from typing import NoReturn

from distjob.errors import (
    BackendUnavailable,
    ClientClosed,
    JobTimeout,
    LeaseLost,
    OutcomeUnknown,
    RecordError,
)
from distjob.hooks import Begun, Blocker, GaveUp, TimedOut, Waiting
from distjob.protocol.change import (
    GRACE,
    NOBODY,
    SessionEnded,
    abandon,
    change,
    forsake,
    live_session,
    lose,
)
from distjob.protocol.effects import Op
from distjob.protocol.parts import HeldJob, Session, View, Wish
from distjob.protocol.refusing import blockers_of, refuse, refuse_heir, unknown
from distjob.protocol.state import ClientState
from distjob.protocol.waiting import probe, wait_in_line
from distjob.rules import async_job
from distjob.rules.fence import fence_of
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.words import job_name, libvirt_text, timeout_text
from distjob.store import ABSENT


class Busy(Exception):
    """The job can't start now, and was not to wait."""


def begin(me: ClientState, vm: str, wish: Wish, wait: float) -> Op[HeldJob]:
    """Begin the job, waiting at most ``wait`` seconds.

    A waiter whose session ends asks again with the next one, at the end of the line.
    """
    return _begin(me, vm, wish, wait)


def begin_now(me: ClientState, vm: str, wish: Wish) -> Op[HeldJob | None]:
    """Begin the job if it may start now; None if it may not."""
    try:
        return (yield from _begin(me, vm, wish, None))
    except Busy:
        return None


def adopt(me: ClientState, vm: str, wish: Wish) -> Op[HeldJob]:
    """Become the owner of an async job that was left, as ``wish`` says; it never waits."""
    return _begin(me, vm, wish, None)


def _begin(me: ClientState, vm: str, wish: Wish, wait: float | None) -> Op[HeldJob]:
    started = me.clock.monotonic()
    until = started + (GRACE if wait is None else wait)
    while True:
        session = yield from live_session(me, until)
        attempt = _Attempt(me, session, vm, wish, wait=wait, started=started)
        try:
            return (yield from attempt.run())
        except SessionEnded:
            pass
        yield from lose(me, session, "it ended while a job was asked for")
        me.check_open()
        if wish.parent:
            msg = f"VM {vm!r}: the session that owns the async {wish.kind} has ended"
            raise LeaseLost(msg, vm=vm)


class _Attempt:
    """One ticket's way, with one session."""

    __slots__ = (
        *(
            "adopts",
            "confirming",
            "in_line",
            "me",
            "session",
            "settled",
            "started",
            "take",
            "ticket",
        ),
        *("told_waiting", "until", "verdict", "vm", "wait"),
    )

    def __init__(
        self,
        me: ClientState,
        session: Session,
        vm: str,
        wish: Wish,
        *,
        wait: float | None,
        started: float,
    ) -> None:
        self.me = me
        self.session = session
        self.vm = vm
        self.ticket = me.ticket(session, wish)
        self.adopts = wish.adopts
        self.take = wish.take
        self.wait = wait
        self.started = started
        self.until = started + (GRACE if wait is None else wait)
        self.verdict = Verdict.BUSY
        self.in_line = self.confirming = False
        self.told_waiting = False
        """The hooks will be told how it came out."""
        self.settled = False

    def run(self) -> Op[HeldJob]:
        key = self.vm, self.ticket.id
        held: HeldJob | None = None
        try:
            self.me.asking[key] = self.adopts
            view = yield from self.get_in()
            held = self.taken(view)
            self.settled = True
        except (SessionEnded, ClientClosed, JobTimeout):
            if self.confirming:  # it may be an orphan now
                self.leave()
            raise  # the ticket is void, or was taken out
        except GeneratorExit:
            self.leave()
            raise
        except (BackendUnavailable, RecordError) as error:
            if not (self.in_line or self.confirming):
                raise  # nothing was changed
            yield from self.abandon()
            if isinstance(error, RecordError):
                raise
            raise unknown(self.me, self.vm, self.ticket, error) from error
        except OutcomeUnknown as error:
            yield from self.abandon()
            raise unknown(self.me, self.vm, self.ticket, error) from error
        except BaseException:  # a cancelled begin leaves nothing behind
            yield from self.abandon()
            raise
        finally:
            self.me.asking.pop(key, None)
            self.me.dismiss(self.vm, self.ticket.id)
            if self.told_waiting and not self.settled:
                self.tell_given_up()
        return held or self.refuse(view.record)

    def get_in(self) -> Op[View]:
        """Ask, and wait as long as it takes; the verdict says what became of it."""
        view = yield from self.ask_for_it()
        while self.verdict is Verdict.WAITING:
            if not self.in_line:
                self.in_line = self.told_waiting = True
                self.tell_waiting(view.record)
            view = yield from wait_in_line(
                self.me, self.session, self.vm, self.ticket.id, view, until=self.until
            )
            if view.record.waits(self.ticket.id):
                view = yield from self.give_up(view.record)
            if view.record.holder_of(self.ticket.id):
                self.verdict = Verdict.GRANTED
            else:  # taken out by a hand from outside, or its async job has ended
                view = yield from self.ask_for_it()
        if self.verdict is Verdict.GRANTED and self.ticket.stays:
            view = yield from self.confirm(view)
        if self.verdict is Verdict.GRANTED and not self.session.holds(self.me.clock.monotonic()):
            raise SessionEnded  # the grant came too late to be of use
        return view

    @property
    def name(self) -> str:
        return job_name(self.ticket)

    @property
    def about(self) -> dict[str, str]:
        """What every event of this begin says."""
        return {"vm": self.vm, "job": self.name, "ticket": self.ticket.id}

    @property
    def waited(self) -> float:
        return self.me.clock.monotonic() - self.started

    def edit(self, record: JobRecord) -> tuple[JobRecord, Verdict]:
        if self.adopts:
            verdict, new = async_job.adopt(record, self.ticket)
            return new, verdict
        verdict, new = record.request(
            self.ticket,
            wall=self.me.clock.wall(),
            max_queued=self.me.max_queued,
            wait=self.wait is not None,
        )
        if verdict is Verdict.WAITING:  # before the commit, so that no wake-up is missed
            self.me.enroll(self.vm, self.ticket.id)
        return new, verdict

    def ask_for_it(self) -> Op[View]:
        """Request it; before a refusal, make sure that those it rests on live, and the asker."""
        ended = NOBODY
        while True:
            changed = yield from change(
                self.me, self.session, self.vm, self.edit, until=self.until, ended=ended
            )
            self.verdict = changed.found
            if self.verdict in (Verdict.GRANTED, Verdict.WAITING):
                return changed.view
            mine = self.session.id
            ended, _ = yield from probe(self.me, changed.view.record.sessions() | {mine})
            if mine in ended or not self.session.holds(self.me.clock.monotonic()):
                raise SessionEnded
            if not ended:
                return changed.view

    def confirm(self, granted: View) -> Op[View]:
        """Make it outlive its owner, by a commit of that owner, who is there to have it."""
        self.confirming = True
        until = max(self.until, self.me.clock.monotonic() + GRACE)
        changed = yield from change(self.me, self.session, self.vm, self.sure, until=until)
        taken = changed.view.record.owned(self.ticket.id) is None  # whoever holds it will be told
        return granted if taken else changed.view

    def sure(self, record: JobRecord) -> tuple[JobRecord, None]:
        return async_job.confirm(record, self.ticket.id), None

    def give_up(self, waited_in: JobRecord) -> Op[View]:
        """The deadline has passed: withdraw, unless the job was granted at the last moment.

        ``waited_in``: the record in which the ticket waited when it was seen last.
        """

        def withdraw(record: JobRecord) -> tuple[JobRecord, JobRecord]:
            return record.withdraw(self.ticket.id, wall=self.me.clock.wall()), record

        until = self.me.clock.monotonic() + GRACE
        changed = yield from change(self.me, self.session, self.vm, withdraw, until=until)
        if changed.view.record.holder_of(self.ticket.id):
            return changed.view
        record = changed.found if changed.made else waited_in
        self.told_waiting = False
        wall, waited = self.me.clock.wall(), self.waited
        blockers = tuple(holder for _, holder in record.blockers(self.ticket))
        told = self.blockers(record)
        self.me.holdings.tell(TimedOut(**self.about, waited=waited, blockers=told))
        raise JobTimeout(
            timeout_text(self.vm, record, self.ticket, waited, wall),
            vm=self.vm,
            job=self.name,
            blockers=blockers,
            libvirt_text=libvirt_text(record, self.ticket),
        )

    def abandon(self) -> Op[bool]:
        """Take the ticket out, held or waiting; what can't be done now the hands do later."""
        how = {"gives_back": self.adopts, "outlives": self.ticket.stays}
        return abandon(self.me, self.session, self.vm, self.ticket.id, **how)

    def leave(self) -> None:
        """Let the hands take the ticket out."""
        how = {"gives_back": self.adopts, "outlives": self.ticket.stays}
        forsake(self.me, self.vm, self.ticket.id, **how)

    def taken(self, view: View) -> HeldJob | None:
        """The job, if it was granted, now held and its lease's."""
        holder = view.record.holder_of(self.ticket.id)
        if self.verdict is not Verdict.GRANTED or holder is None:
            return None
        me = self.me
        fence = fence_of(view.record, self.ticket.id)
        held = HeldJob(self.vm, holder, fence, self.session, me.clock.monotonic())
        me.holdings.keep(held)
        self.take(held)
        early = me.early.pop(self.vm, ABSENT) > view.version
        if early or me.views.get(self.vm) is not view:
            me.holdings.suspect(self.vm)  # what came since said nothing of it
        self.told_waiting = False
        if me.holdings.hooked:
            waited, queued = self.waited, self.in_line
            me.holdings.tell(Begun(**self.about, token=held.token, waited=waited, queued=queued))
        return held

    def tell_waiting(self, record: JobRecord) -> None:
        depth, blockers = record.count() - 1, self.blockers(record)
        self.me.holdings.tell(Waiting(**self.about, depth=depth, blockers=blockers))

    def blockers(self, record: JobRecord) -> tuple[Blocker, ...]:
        """Who is in the way, for the hooks; for nobody else it is not made."""
        return blockers_of(record, self.ticket) if self.me.holdings.hooked else ()

    def tell_given_up(self) -> None:
        self.me.holdings.tell(GaveUp(**self.about, waited=self.waited))

    def refuse(self, record: JobRecord) -> NoReturn:
        if self.verdict is Verdict.BUSY:
            raise Busy
        if self.told_waiting:
            self.tell_given_up()
        how = refuse_heir if self.adopts else refuse
        how(self.me, self.vm, self.ticket, record, self.verdict)
