"""Each invariant of the simulated worlds can fail: break the rule it guards, and it says so.

A watch that sees nothing would be content with everything. Every case here breaks one thing, by
monkeypatch, and must be caught, by the right name, within a few hundred worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from distjob.errors import RecordError
from distjob.protocol import begin, change, closing, hands, outside, owner, state, waiting
from distjob.protocol import held as holding
from distjob.protocol.effects import ask
from distjob.protocol.holdings import Holdings
from distjob.protocol.parts import IDLE, Session
from distjob.protocol.state import ClientState
from distjob.rules import async_job, line
from distjob.rules.async_job import adopt, amend
from distjob.rules.codec import decode, encode
from distjob.rules.fence import Fence, fence_of
from distjob.rules.jobs import Slot
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.ticket import AsyncHolder
from distjob.testing.memory import MemoryServer
from distjob.testing.sim import machine, users
from distjob.testing.sim.calls import Violated
from distjob.testing.sim.faults import SimServer
from distjob.testing.sim.judges import invariants
from distjob.testing.sim.resource import Resource
from distjob.testing.sim.world import run

WORLDS = 300
Patch = pytest.MonkeyPatch


def deadline_too_late(patch: Patch) -> None:
    """Neither the margin nor the moment of sending counts."""

    def renewed(self: Session, sent: float) -> None:
        self.deadline = sent + 1.3 * self.ttl
        self.next_beat = sent + self.ttl / 3

    patch.setattr(Session, "renewed", renewed)


def stale_commits_applied(patch: Patch) -> None:
    honest = MemoryServer.commit

    def commit(self, vm, expected, value, author, wake):
        return honest(self, vm, self.read(vm).version, value, author, wake)

    patch.setattr(SimServer, "commit", commit)


def author_unchecked(patch: Patch) -> None:
    def commit(self, vm, expected, value, author, wake):
        alive = self.alive(author)
        known = author if alive else self.open_session(1e9, "anybody")
        reply = MemoryServer.commit(self, vm, expected, value, known, wake)
        if not alive:
            self.close_session(known)
        return reply

    patch.setattr(SimServer, "commit", commit)


def tokens_stand_still(patch: Patch) -> None:
    honest = JobRecord.at
    patch.setattr(JobRecord, "at", lambda self, version: honest(self, version // 2 + 1))


def tokens_fall_after_a_loss(patch: Patch) -> None:
    honest = SimServer.lose_data

    def lose_data(self) -> None:
        honest(self)
        self._version = 0

    patch.setattr(SimServer, "lose_data", lose_data)


def guard_lets_all_in(patch: Patch) -> None:
    patch.setattr(Resource, "refuses", staticmethod(lambda marks, fence: False))


def guard_upside_down(patch: Patch) -> None:
    patch.setattr(
        Resource,
        "refuses",
        staticmethod(lambda marks, fence: any(fence.token > mark for mark in marks.values())),
    )


def guard_sees_slots_apart(patch: Patch) -> None:
    """As it was once: a grant raises the marks of its own slots only."""

    def learn(marks: dict[Slot, int], fence: Fence) -> None:
        marks.update(dict.fromkeys(fence.own, fence.token))

    patch.setattr(Resource, "learn", staticmethod(learn))


def guard_sees_slots_as_one(patch: Patch) -> None:
    """An async job's own calls are refused after its step's, whose token is larger."""

    def broken(record: JobRecord, ticket_id: str) -> Fence:
        honest = fence_of(record, ticket_id)
        return Fence(honest.own, *(honest.token for _ in Slot))

    patch.setattr(begin, "fence_of", broken)


def left_jobs_are_held(patch: Patch) -> None:
    """The floor of an async job that was left is still the token of who left it."""

    def broken(record: JobRecord, ticket_id: str) -> Fence:
        running = record.async_
        if running is None or not running.owner_gone:
            return fence_of(record, ticket_id)
        held = msgspec.structs.replace(running, owner_gone=None)
        return fence_of(msgspec.structs.replace(record, async_=held), ticket_id)

    patch.setattr(begin, "fence_of", broken)


def slots_ignored(patch: Patch) -> None:
    patch.setattr(JobRecord, "admits", lambda self, ticket: not self.masked(ticket))


def mask_ignored(patch: Patch) -> None:
    patch.setattr(JobRecord, "masked", lambda self, ticket: False)


def newest_first(patch: Patch) -> None:
    honest = JobRecord.promote

    def promote(self: JobRecord, wall: float) -> JobRecord:
        turned = msgspec.structs.replace(self, queue=self.queue[::-1])
        after = honest(turned, wall)
        return msgspec.structs.replace(after, queue=after.queue[::-1])

    patch.setattr(JobRecord, "promote", promote)


def one_too_many(patch: Patch) -> None:
    honest = JobRecord.count
    patch.setattr(JobRecord, "count", lambda self: honest(self) - 1)


def the_living_evicted(patch: Patch) -> None:
    def probe(me: ClientState, sessions: frozenset[str]) -> Iterator[object]:
        left = yield from ask(waiting.Remaining(sessions))
        return frozenset(s for s in sessions if left[s] < me.ttl), me.ttl

    patch.setattr(waiting, "probe", probe)


def the_told_unheeded(patch: Patch) -> None:
    """Who hears that a session has ended reads the record, and does not ask for the session."""
    patch.setattr(state.Waiter, "doubt", state.Waiter.look_again)


def the_dead_believed(patch: Patch) -> None:
    def probe(me: ClientState, sessions: frozenset[str]) -> Iterator[object]:
        yield from ()
        return frozenset(), me.ttl

    patch.setattr(begin, "probe", probe)


def impatience(patch: Patch) -> None:
    """Waiters that time out without having been let in, before their time."""
    honest = begin.wait_in_line

    def wait_in_line(me, session, vm, ticket_id, view, *, until):
        return honest(me, session, vm, ticket_id, view, until=until - 1.0)

    patch.setattr(begin, "wait_in_line", wait_in_line)


def nobody_is_woken(patch: Patch) -> None:
    """No wake-ups, and the read after a quiet spell sees nothing new."""

    def nobody(old: JobRecord, new: JobRecord, author: str) -> frozenset[str]:
        return frozenset()

    def look(me: ClientState, vm: str) -> Iterator[object]:
        yield from ()
        return me.views.get(vm, IDLE)

    patch.setattr(change, "woken", nobody)
    patch.setattr(waiting, "look", look)


def the_dead_never_evicted(patch: Patch) -> None:
    def probe(me: ClientState, sessions: frozenset[str]) -> Iterator[object]:
        yield from ()
        return frozenset(), 1e6

    patch.setattr(waiting, "probe", probe)


def cancelled_begins_forgotten(patch: Patch) -> None:
    patch.setattr(begin._Attempt, "abandon", lambda self: iter(()))


def ends_forgotten(patch: Patch) -> None:
    patch.setattr(JobRecord, "end", lambda self, ticket_id, wall: self)


def sessions_left_open(patch: Patch) -> None:
    def close(me: ClientState) -> Iterator[object]:
        yield from ()

    patch.setattr(users, "close", close)


def idle_records_kept(patch: Patch) -> None:
    patch.setattr(change, "encode", lambda record: encode(record) or b"distjob/1 a3e3e2f1 {}")
    patch.setattr(change, "decode", _lenient)
    patch.setattr(state, "decode", _lenient)


def _lenient(vm: str, version: int, value: bytes | None) -> JobRecord:
    return JobRecord() if value and value.endswith(b" {}") else decode(vm, version, value)


def lost_at_once(patch: Patch) -> None:
    def renewed(self: Session, sent: float) -> None:
        self.deadline = sent + self.ttl / 6
        self.next_beat = sent + self.ttl / 3

    patch.setattr(Session, "renewed", renewed)


def losses_told_twice(patch: Patch) -> None:
    honest = Holdings.lose_all

    def lose_all(self: Holdings, *why: str) -> None:
        for held in (held for here in self.by_vm.values() for held in here.values()):
            held.callbacks *= 2
        honest(self, *why)

    patch.setattr(Holdings, "lose_all", lose_all)


def losses_not_told(patch: Patch) -> None:
    honest = Holdings.lose_all

    def lose_all(self: Holdings, *why: str) -> None:
        for held in (held for here in self.by_vm.values() for held in here.values()):
            held.callbacks = ()
        honest(self, *why)

    patch.setattr(Holdings, "lose_all", lose_all)


def records_unreadable(patch: Patch) -> None:
    def refuse(vm: str, version: int, value: bytes | None) -> JobRecord:
        if version % 10 == 7:
            raise RecordError("unreadable")
        return decode(vm, version, value)

    patch.setattr(change, "decode", refuse)


def flags_never_cleared(patch: Patch) -> None:
    patch.setattr(machine.SimSignal, "clear", lambda self: None)


def wake_ups_to_the_wrong(patch: Patch) -> None:
    """An operation that fails with an error of its own."""

    def broken(old: JobRecord, new: JobRecord, author: str) -> frozenset[str]:
        return frozenset((new.queue[0].session, author))  # there need not be one

    patch.setattr(change, "woken", broken)


def with_job(record: JobRecord, **changes: object) -> JobRecord:
    return msgspec.structs.replace(record, async_=msgspec.structs.replace(record.async_, **changes))


def migrations_pass_older_modifications(patch: Patch) -> None:
    """Whenever a query heads the line."""
    honest = JobRecord.promote

    def promote(self: JobRecord, wall: float) -> JobRecord:
        with patch.context() as within:
            within.setattr(JobRecord, "masked", lambda self, ticket: False)
            freed = honest(self, wall)
        return freed if freed.async_ and not self.async_ else honest(self, wall)

    patch.setattr(JobRecord, "promote", promote)


def orphans_released(patch: Patch) -> None:
    patch.setattr(AsyncHolder, "outlives", property(lambda self: False))


def all_jobs_orphaned(patch: Patch) -> None:
    patch.setattr(AsyncHolder, "outlives", property(lambda self: True))


def adopted_from_the_living(patch: Patch) -> None:
    def take(record, ticket):
        running = record.async_
        return adopt(with_job(record, owner_gone="detached") if running else record, ticket)

    patch.setattr(async_job, "adopt", take)


def adopted_by_two(patch: Patch) -> None:
    """Who is too late is told that the job is its own."""
    honest = begin._Attempt.outcome

    def outcome(self, view):
        running = view.record.async_
        if self.adopts and self.verdict is Verdict.NOT_OWNER and running and running.token:
            void = fence_of(view.record, running.ticket.id)
            return begin.HeldJob(self.vm, running, void, self.session, self.started)
        return honest(self, view)

    patch.setattr(begin._Attempt, "outcome", outcome)


def adopted_with_the_old_token(patch: Patch) -> None:
    def take(record, ticket):
        verdict, new = adopt(record, ticket)
        if new is record:
            return verdict, new
        return verdict, with_job(new, token=record.async_.token)

    patch.setattr(async_job, "adopt", take)


def adopted_without_its_phase(patch: Patch) -> None:
    def take(record, ticket):
        verdict, new = adopt(record, ticket)
        return verdict, new if new is record else with_job(new, phase="")

    patch.setattr(async_job, "adopt", take)


def adopted_and_not_looked_at(patch: Patch) -> None:
    """The new owner does not learn which phase it has."""
    honest = begin.HeldJob

    def forgetful(*args):
        new = honest(*args)
        new.phase = ""
        return new

    patch.setattr(begin, "HeldJob", forgetful)


def never_adopted(patch: Patch) -> None:
    patch.setattr(async_job, "adopt", lambda record, ticket: (Verdict.WRONG_JOB, record))


def cancelled_adoptions_end_the_job(patch: Patch) -> None:
    honest = change.dropping

    def dropping(me, ticket_id, *, gives_back):
        return honest(me, ticket_id, gives_back=False)

    patch.setattr(change, "dropping", dropping)
    patch.setattr(hands, "dropping", dropping)
    patch.setattr(closing, "dropping", dropping)


def detached_and_kept(patch: Patch) -> None:
    """Acknowledged, and not made."""

    def give_up(me, held):
        yield from ()
        held.ended = True
        me.holdings.part(held)

    patch.setattr(owner, "give_up", give_up)


def phases_not_written(patch: Patch) -> None:
    def without(record, ticket_id, *, phase=None, **said):
        return amend(record, ticket_id, **said)

    patch.setattr(owner, "amend", without)


def progress_not_written(patch: Patch) -> None:
    def without(record, ticket_id, *, progress=None, **said):
        return amend(record, ticket_id, **said)

    patch.setattr(owner, "amend", without)


def phases_set_by_others(patch: Patch) -> None:
    """A request to abort that changes what the owner has said."""
    honest = outside.request_abort

    def request(record, asked):
        new = honest(record, asked)
        return with_job(new, phase="aborting") if new else new

    patch.setattr(outside, "request_abort", request)


def steps_of_anybody(patch: Patch) -> None:
    patch.setattr(JobRecord, "_refuses_step", lambda self, ticket: None)


def steps_outlive_their_job(patch: Patch) -> None:
    honest = JobRecord.without
    patch.setattr(
        JobRecord,
        "without",
        lambda self, free, drop: honest(self, free, lambda t: drop(t) and not t.parent),
    )


def masks_of_orphans_ignored(patch: Patch) -> None:
    honest = JobRecord.masked

    def masked(self, ticket):
        return not (self.async_ and self.async_.owner_gone) and honest(self, ticket)

    patch.setattr(JobRecord, "masked", masked)


def aborts_not_told(patch: Patch) -> None:
    honest = change.woken

    def woken(old, new, author):
        asked = new.async_ and new.async_.abort and old.async_ and not old.async_.abort
        return frozenset() if asked else honest(old, new, author)

    patch.setattr(change, "woken", woken)


def aborts_not_written(patch: Patch) -> None:
    patch.setattr(outside, "request_abort", lambda record, asked: record)


def aborts_asked_twice(patch: Patch) -> None:
    """The second request replaces the first."""
    patch.setattr(
        outside,
        "request_abort",
        lambda record, asked: with_job(record, abort=asked) if record.async_ else None,
    )


def force_not_told(patch: Patch) -> None:
    patch.setattr(line, "bereft", lambda old, new, author: set())


def late_ends_succeed(patch: Patch) -> None:
    patch.setattr(holding, "check", lambda me, held: None)
    patch.setattr(holding, "_confirm", lambda me, held, changed: iter(()))


def discarded_from_the_living(patch: Patch) -> None:
    honest = outside.discard

    def discard(me, vm):
        def edit(record):
            running = record.async_
            new = record.remove([running.ticket.id], wall=0.0) if running else record
            return new, None

        yield from outside._by_hand(me, vm, edit, change.NOBODY)
        return (yield from honest(me, vm))

    patch.setattr(outside, "discard", discard)


CASES: list[tuple[Callable[[Patch], None], str, str]] = [
    (deadline_too_late, "one holder", "cut"),
    (adopted_by_two, "one holder", "calm"),
    (stale_commits_applied, "life and death", "calm"),
    (author_unchecked, "life and death", "sleep"),
    (the_living_evicted, "life and death", "calm"),
    (adopted_from_the_living, "life and death", "calm"),
    (discarded_from_the_living, "life and death", "calm"),
    (tokens_stand_still, "tokens rise", "calm"),
    (adopted_with_the_old_token, "tokens rise", "calm"),
    (tokens_fall_after_a_loss, "tokens rise", "wipe"),
    (guard_lets_all_in, "guard", "sleep"),
    (deadline_too_late, "guard", "sleep"),
    (guard_upside_down, "guard", "calm"),
    (guard_sees_slots_apart, "guard", "sleep"),
    (guard_sees_slots_as_one, "guard", "calm"),
    (left_jobs_are_held, "guard", "sleep"),
    (slots_ignored, "let in", "calm"),
    (mask_ignored, "let in", "calm"),
    (newest_first, "let in", "calm"),
    (one_too_many, "let in", "calm"),
    (masks_of_orphans_ignored, "let in", "calm"),
    (masks_of_orphans_ignored, "let in", "crash"),
    (steps_of_anybody, "steps", "calm"),
    (steps_outlive_their_job, "steps", "calm"),
    (migrations_pass_older_modifications, "let in", "calm"),
    (orphans_released, "owner loss", "crash"),
    (orphans_released, "owner loss", "sleep"),
    (all_jobs_orphaned, "owner loss", "crash"),
    (cancelled_adoptions_end_the_job, "owner loss", "calm"),
    (detached_and_kept, "owner loss", "calm"),
    (adopted_without_its_phase, "phase kept", "calm"),
    (adopted_and_not_looked_at, "phase kept", "calm"),
    (phases_not_written, "phase kept", "calm"),
    (progress_not_written, "phase kept", "calm"),
    (phases_set_by_others, "phase kept", "calm"),
    (aborts_not_told, "abort heard", "calm"),
    (aborts_not_written, "abort heard", "calm"),
    (aborts_asked_twice, "abort heard", "calm"),
    (force_not_told, "force told", "calm"),
    (late_ends_succeed, "force told", "calm"),
    (never_adopted, "true refusals", "calm"),
    (the_dead_believed, "true refusals", "crash"),
    (the_told_unheeded, "in time", "clocks"),
    (impatience, "true refusals", "calm"),
    (nobody_is_woken, "in time", "calm"),
    (the_dead_never_evicted, "in time", "crash"),
    (cancelled_begins_forgotten, "in time", "calm"),
    (ends_forgotten, "in time", "calm"),
    (sessions_left_open, "nothing left", "calm"),
    (idle_records_kept, "nothing left", "calm"),
    (lost_at_once, "no false alarm", "calm"),
    (losses_told_twice, "no false alarm", "sleep"),
    (losses_not_told, "no false alarm", "sleep"),
    (records_unreadable, "no surprise", "calm"),
    (wake_ups_to_the_wrong, "no surprise", "calm"),
    (flags_never_cleared, "no spinning", "calm"),
]


@pytest.mark.parametrize(
    ("broken", "invariant", "profile"),
    CASES,
    ids=[f"{case[0].__name__}-{case[1].replace(' ', '_')}-{case[2]}" for case in CASES],
)
def test_it_is_seen(
    monkeypatch: Patch, broken: Callable[[Patch], None], invariant: str, profile: str
) -> None:
    broken(monkeypatch)
    others = set()
    for seed in range(WORLDS):
        try:
            run(seed, profile)
        except Violated as violated:
            if violated.invariant == invariant and f"--seed {seed}" in str(violated):
                return
            others.add(violated.invariant)
    pytest.fail(f"{invariant!r} was not seen in {WORLDS} worlds; seen: {others}")


def test_every_invariant_has_a_case() -> None:
    named = {line.split("  ")[0] for line in _listed()}
    assert named == {invariant for _, invariant, _ in CASES}


def _listed() -> list[str]:
    doc = (invariants.__doc__ or "").splitlines()
    return [line.strip() for line in doc if line.startswith("    ") and "  " in line.strip()]
