"""Each invariant of the simulated worlds can fail: break the rule it guards, and it says so.

A watch that sees nothing would be content with everything. Every case here breaks one thing, by
monkeypatch, and must be caught, by the right name, within a few hundred worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from distjob.codec import decode, encode
from distjob.errors import RecordError
from distjob.protocol import begin, change, controller, waiting
from distjob.protocol.controller import IDLE, Controller, Session
from distjob.protocol.effects import ask
from distjob.record import JobRecord
from distjob.testing import invariants, machine, users
from distjob.testing.calls import Violated
from distjob.testing.faults import SimServer
from distjob.testing.invariants import Watch
from distjob.testing.memory import MemoryServer
from distjob.testing.world import run

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
    patch.setattr(Watch, "admits", staticmethod(lambda highest, token: True))


def guard_upside_down(patch: Patch) -> None:
    patch.setattr(
        Watch, "admits", staticmethod(lambda highest, token: token <= highest or not highest)
    )


def slots_ignored(patch: Patch) -> None:
    patch.setattr(JobRecord, "admits", lambda self, ticket: not self.masked(ticket))


def mask_ignored(patch: Patch) -> None:
    patch.setattr(JobRecord, "masked", lambda self, ticket: False)


def newest_first(patch: Patch) -> None:
    honest = JobRecord._promote

    def promote(self: JobRecord, today: float) -> JobRecord:
        turned = msgspec.structs.replace(self, queue=self.queue[::-1])
        after = honest(turned, today)
        return msgspec.structs.replace(after, queue=after.queue[::-1])

    patch.setattr(JobRecord, "_promote", promote)


def one_too_many(patch: Patch) -> None:
    honest = JobRecord.count
    patch.setattr(JobRecord, "count", lambda self: honest(self) - 1)


def the_living_evicted(patch: Patch) -> None:
    def probe(me: Controller, sessions: frozenset[str]) -> Iterator[object]:
        left = yield from ask(waiting.Remaining(sessions))
        return frozenset(s for s in sessions if left[s] < me.ttl), me.ttl

    patch.setattr(waiting, "probe", probe)


def the_told_unheeded(patch: Patch) -> None:
    """Who hears that a session has ended reads the record, and does not ask for the session."""
    patch.setattr(controller.Waiter, "doubt", controller.Waiter.look_again)


def the_dead_believed(patch: Patch) -> None:
    def probe(me: Controller, sessions: frozenset[str]) -> Iterator[object]:
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

    def look(me: Controller, vm: str) -> Iterator[object]:
        yield from ()
        return me.views.get(vm, IDLE)

    patch.setattr(change, "woken", nobody)
    patch.setattr(waiting, "look", look)


def the_dead_never_evicted(patch: Patch) -> None:
    def probe(me: Controller, sessions: frozenset[str]) -> Iterator[object]:
        yield from ()
        return frozenset(), 1e6

    patch.setattr(waiting, "probe", probe)


def cancelled_begins_forgotten(patch: Patch) -> None:
    patch.setattr(begin._Attempt, "abandon", lambda self: iter(()))


def ends_forgotten(patch: Patch) -> None:
    patch.setattr(JobRecord, "end", lambda self, ticket_id, today: self)


def sessions_left_open(patch: Patch) -> None:
    def close(me: Controller) -> Iterator[object]:
        yield from ()

    patch.setattr(users, "close", close)


def idle_records_kept(patch: Patch) -> None:
    patch.setattr(change, "encode", lambda record: encode(record) or b"distjob/1 a3e3e2f1 {}")
    patch.setattr(change, "decode", _lenient)
    patch.setattr(controller, "decode", _lenient)


def _lenient(vm: str, version: int, value: bytes | None) -> JobRecord:
    return JobRecord() if value and value.endswith(b" {}") else decode(vm, version, value)


def lost_at_once(patch: Patch) -> None:
    def renewed(self: Session, sent: float) -> None:
        self.deadline = sent + self.ttl / 6
        self.next_beat = sent + self.ttl / 3

    patch.setattr(Session, "renewed", renewed)


def losses_told_twice(patch: Patch) -> None:
    honest = Controller.lose

    def lose(self: Controller, session: Session, why: str) -> None:
        session.on_lost *= 2
        honest(self, session, why)

    patch.setattr(Controller, "lose", lose)


def losses_not_told(patch: Patch) -> None:
    honest = Controller.lose

    def lose(self: Controller, session: Session, why: str) -> None:
        session.on_lost.clear()
        honest(self, session, why)

    patch.setattr(Controller, "lose", lose)


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


CASES: list[tuple[Callable[[Patch], None], str, str]] = [
    (deadline_too_late, "one holder", "cut"),
    (deadline_too_late, "one holder", "sleep"),
    (stale_commits_applied, "one holder", "calm"),
    (author_unchecked, "life and death", "sleep"),
    (the_living_evicted, "life and death", "calm"),
    (tokens_stand_still, "tokens rise", "calm"),
    (tokens_fall_after_a_loss, "tokens rise", "wipe"),
    (guard_lets_all_in, "guard", "sleep"),
    (guard_upside_down, "guard", "calm"),
    (slots_ignored, "let in", "calm"),
    (mask_ignored, "let in", "calm"),
    (newest_first, "let in", "calm"),
    (one_too_many, "let in", "calm"),
    (the_dead_believed, "true refusals", "crash"),
    (the_told_unheeded, "in time", "crash"),
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
