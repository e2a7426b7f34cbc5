"""Every schedule of the explorer's scripts with one deviation; and planted mistakes, all found."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from distjob.protocol import begin, change, hands, waiting
from distjob.protocol.parts import Session
from distjob.protocol.state import ClientState
from distjob.protocol.turns import Turn, Turns
from distjob.rules.record import JobRecord
from distjob.testing.explore.__main__ import read, written
from distjob.testing.explore.deviations import Cancelled
from distjob.testing.explore.schedule import Schedule
from distjob.testing.explore.scripts import BY_NAME, SCRIPTS
from distjob.testing.explore.search import Explorer, play
from distjob.testing.memory import MemoryServer
from distjob.testing.sim.faults import SimServer

Patch = pytest.MonkeyPatch
LEAST = {"handover": 250, "long": 330, "impatient": 280, "heir": 240}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_schedule_with_one_deviation_keeps_what_must_hold(name: str) -> None:
    explorer = Explorer(BY_NAME[name], 1)
    explorer.explore()
    assert not explorer.found, explorer.found[:1]
    assert explorer.runs >= LEAST.get(name, 80)
    assert explorer.stopped > 0


def test_four_scripts_are_the_main_ones() -> None:
    assert sum(script.main for script in SCRIPTS) == 4


def test_a_plan_is_one_schedule() -> None:
    def told(plan: str) -> list[str]:
        lines: list[str] = []
        play(BY_NAME["handover"], read(plan), told=lines.append)
        return lines

    assert told("9 crash a") == told("9 crash a") != told("")
    assert written(read("9 crash a; 17 first 2; 20 cancel b.w1")) == (
        "9 crash a; 17 first 2; 20 cancel b.w1"
    )


def test_nothing_is_missed_by_not_going_on_from_known_states(monkeypatch: Patch) -> None:
    """Without that skipping the same is found, in more steps."""
    doubt_is_not_settled(monkeypatch)
    skipping = Explorer(BY_NAME["collision"], 1)
    skipping.explore()
    count = iter(range(10**9))
    monkeypatch.setattr(Schedule, "state", lambda self: next(count))
    whole = Explorer(BY_NAME["collision"], 1)
    whole.explore()
    assert whole.stopped == 0 < skipping.stopped
    assert skipping.found
    assert {found.invariant for found in skipping.found} == {one.invariant for one in whole.found}


# -- planted mistakes ---------------------------------------------------------------------------


def deadline_too_late(patch: Patch) -> None:
    def renewed(self: Session, sent: float) -> None:
        self.deadline = sent + 1.3 * self.ttl
        self.next_beat = sent + self.ttl / 3

    patch.setattr(Session, "renewed", renewed)


def stale_commits_applied(patch: Patch) -> None:
    honest = MemoryServer.commit

    def commit(self, vm, expected, value, author, wake):
        return honest(self, vm, self.read(vm).version, value, author, wake)

    patch.setattr(SimServer, "commit", commit)


def mask_ignored(patch: Patch) -> None:
    patch.setattr(JobRecord, "masked", lambda self, ticket: False)


def newest_first(patch: Patch) -> None:
    honest = JobRecord.promote

    def promote(self: JobRecord, wall: float) -> JobRecord:
        turned = JobRecord(self.sync, self.agent, self.async_, self.queue[::-1])
        done = honest(turned, wall)
        return JobRecord(done.sync, done.agent, done.async_, done.queue[::-1])

    patch.setattr(JobRecord, "promote", promote)


def tokens_stand_still(patch: Patch) -> None:
    honest = JobRecord.at
    patch.setattr(JobRecord, "at", lambda self, version: honest(self, version // 2 + 1))


def nobody_is_woken(patch: Patch) -> None:
    patch.setattr(change, "woken", lambda old, new, author: frozenset())


def deaths_are_not_watched(patch: Patch) -> None:
    patch.setattr(waiting, "watched", lambda record, ticket_id: frozenset())


def doubt_is_not_settled(patch: Patch) -> None:
    patch.setattr(Session, "doubt", lambda self, vm: None)


def a_cancelled_begin_stays(patch: Patch) -> None:
    def abandon(self):
        yield from ()

    patch.setattr(begin._Attempt, "abandon", abandon)
    patch.setattr(ClientState, "disown", lambda self, vm, record: None)


def leftovers_are_forgotten(patch: Patch) -> None:
    def tidy(me: ClientState, session: Session):
        me.leftovers.clear()
        yield from ()

    patch.setattr(hands, "_tidy", tidy)


def a_turn_is_kept(patch: Patch) -> None:
    """Whoever is cancelled while it changes a VM keeps its turn."""
    honest, kept = Turns.leave, []

    def leave(self: Turns, vm: str, mine: Turn) -> None:
        if isinstance(sys.exc_info()[1], Cancelled):
            kept.append(mine)
        else:
            honest(self, vm, mine)

    patch.setattr(Turns, "leave", leave)


def a_lost_session_goes_on(patch: Patch) -> None:
    patch.setattr(Session, "holds", lambda self, now: True)


MISTAKES: list[tuple[Callable[[Patch], None], str, str]] = [
    (deadline_too_late, "handover", "one holder"),
    (stale_commits_applied, "collision", "life and death"),
    (mask_ignored, "long", "masks"),
    (newest_first, "handover", "let in"),
    (tokens_stand_still, "handover", "tokens"),
    (nobody_is_woken, "handover", "lost wake-ups"),
    (deaths_are_not_watched, "told", "lost wake-ups"),
    (doubt_is_not_settled, "handover", "nobody's"),
    (a_cancelled_begin_stays, "handover", "nobody's"),
    (leftovers_are_forgotten, "handover", "nobody's"),
    (a_turn_is_kept, "threads", "nobody's"),
    (a_lost_session_goes_on, "handover", "one holder"),
]


@pytest.mark.parametrize(("mistake", "script", "invariant"), MISTAKES)
def test_a_planted_mistake_is_found(mistake, script, invariant, monkeypatch: Patch) -> None:
    mistake(monkeypatch)
    explorer = Explorer(BY_NAME[script], 1)
    explorer.explore()
    assert invariant in {found.invariant for found in explorer.found}
