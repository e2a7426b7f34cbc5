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
    NotOwner,
    OutcomeUnknown,
    QueueFull,
    RecordError,
    WrongJob,
)
from distjob.hooks import Begun, Blocker, GaveUp, Refused, TimedOut, Waiting
from distjob.protocol.change import GRACE, NOBODY, SessionEnded, abandon, change, lose
from distjob.protocol.effects import Op, Wait, ask
from distjob.protocol.parts import HeldJob, Session, View, Wish
from distjob.protocol.state import ClientState
from distjob.protocol.waiting import probe, wait_in_line
from distjob.rules import async_job
from distjob.rules.fence import fence_of
from distjob.rules.jobs import OnOwnerLoss
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.words import full_text, job_name, libvirt_text, timeout_text, unadoptable_text
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


def live_session(me: ClientState, until: float) -> Op[Session]:
    """The session, waiting for the heart to open one; raises BackendUnavailable, ClientClosed."""
    while True:
        me.check_open()
        session = me.session
        if session is not None and session.holds(me.clock.monotonic()):
            return session
        if session is not None:  # woken from a sleep before the heart was
            yield from lose(me, session, f"it was not renewed in time{session.trouble}")
        seconds = until - me.clock.monotonic()
        if seconds <= 0:
            raise BackendUnavailable(
                "this client's session has ended and the store has not opened another yet"
            )
        yield from ask(Wait(seconds, me.ready))


class _Attempt:
    """One ticket's way, with one session."""

    __slots__ = (
        *("adopts", "in_line", "me", "session", "settled", "started", "ticket"),
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
        self.wait = wait
        self.started = started
        self.until = started + (GRACE if wait is None else wait)
        self.verdict = Verdict.BUSY
        self.in_line = False
        self.told_waiting = False
        """The hooks will be told how it came out."""
        self.settled = False

    def run(self) -> Op[HeldJob]:
        if self.adopts:
            self.me.heirs.add((self.vm, self.ticket.id))
        try:
            view = yield from self.get_in()
            self.settled = True
        except (SessionEnded, ClientClosed, JobTimeout):
            raise  # the ticket is void, or was taken out
        except GeneratorExit:
            self.me.leave(self.vm, self.ticket.id, gives_back=self.adopts)
            raise
        except (BackendUnavailable, RecordError) as error:
            if not self.in_line:
                raise  # nothing was changed
            yield from self.abandon()
            if isinstance(error, RecordError):
                raise
            raise self.unknown(error) from error
        except OutcomeUnknown as error:
            yield from self.abandon()
            raise self.unknown(error) from error
        except BaseException:  # a cancelled begin leaves nothing behind
            yield from self.abandon()
            raise
        finally:
            self.me.dismiss(self.vm, self.ticket.id)
            self.me.heirs.discard((self.vm, self.ticket.id))
            if self.told_waiting and not self.settled:
                self.tell_given_up()
        return self.outcome(view)

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
        told = self.told_blockers(record)
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
        return abandon(self.me, self.session, self.vm, self.ticket.id, gives_back=self.adopts)

    def outcome(self, view: View) -> HeldJob:
        holder = view.record.holder_of(self.ticket.id)
        if self.verdict is not Verdict.GRANTED or holder is None:
            self.refuse(view.record)
        fence = fence_of(view.record, self.ticket.id)
        held = HeldJob(self.vm, holder, fence, self.session, self.me.clock.monotonic())
        self.me.holdings.keep(held)
        early = self.me.early.pop(self.vm, ABSENT) > view.version
        if early or self.me.views.get(self.vm) is not view:
            self.me.holdings.suspect(self.vm)  # what came since said nothing of it
        self.told_waiting = False
        if self.me.holdings.hooked:
            waited, queued = self.waited, self.in_line
            self.me.holdings.tell(
                Begun(**self.about, token=held.token, waited=waited, queued=queued)
            )
        return held

    def tell_waiting(self, record: JobRecord) -> None:
        depth, blockers = record.count() - 1, self.told_blockers(record)
        self.me.holdings.tell(Waiting(**self.about, depth=depth, blockers=blockers))

    def told_blockers(self, record: JobRecord) -> tuple[Blocker, ...]:
        """Who is in the way, for the hooks; for nobody else it is not made."""
        if not self.me.holdings.hooked:
            return ()
        return tuple(
            Blocker(
                slot=slot,
                job=job_name(holder.ticket),
                owner=holder.ticket.owner,
                api=holder.ticket.api,
                token=holder.token,
            )
            for slot, holder in record.blockers(self.ticket)
        )

    def tell_given_up(self) -> None:
        self.me.holdings.tell(GaveUp(**self.about, waited=self.waited))

    def refuse(self, record: JobRecord) -> NoReturn:
        name = self.name
        if self.verdict is Verdict.BUSY:
            raise Busy
        if self.told_waiting:
            self.tell_given_up()
        if self.adopts:
            text = unadoptable_text(self.vm, record, self.ticket, self.me.clock.wall())
            raise (NotOwner if self.verdict is Verdict.NOT_OWNER else WrongJob)(text)
        if self.verdict is Verdict.FULL:
            limit, wall = self.me.max_queued, self.me.clock.wall()
            self.me.holdings.tell(Refused(**self.about, depth=record.count()))
            raise QueueFull(
                full_text(self.vm, record, self.ticket, limit, wall),
                vm=self.vm,
                job=name,
                blockers=tuple(holder for _, holder in record.blockers(self.ticket)),
                libvirt_text=libvirt_text(record, self.ticket, full=True),
            )
        if self.verdict is Verdict.WRONG_JOB:
            running = record.async_.ticket if record.async_ else self.ticket
            raise WrongJob(f"VM {self.vm!r}: {name}: the {job_name(running)} job runs")
        raise NotOwner(f"VM {self.vm!r}: {name}: that async job is not (any more) yours")

    def unknown(self, error: Exception) -> OutcomeUnknown:
        stays = self.ticket.on_owner_loss is OnOwnerLoss.ORPHAN
        at_last = (
            "or stays as an orphan if this session ends before that"
            if stays
            else f"at the latest within {self.me.ttl:g} s, when this session ends without it"
        )
        return OutcomeUnknown(
            f"VM {self.vm!r}: {self.name} may be held, or granted yet, to nobody's"
            f" knowledge: {error}. It is withdrawn as soon as the store answers, {at_last}",
            vm=self.vm,
            job=self.name,
        )
