"""A crowd: processes that play for one VM. Each begins, holds the job for a moment, ends, again.

It says how fast the job changes hands, and how long the unluckiest waited, in *fair turns*: one is
the time in which each of them has the job once. It needs no yardstick, so it runs on SQLite, too.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from typing import NamedTuple

import msgspec

from distjob import clock
from distjob.config import Settings
from distjob.rules.jobs import Job
from distjob.sharded import connect
from distjob.testing.bench.measure import say

PATIENCE = 120.0
"""Seconds until all have started, and for each begin."""


class Turn(NamedTuple):
    """A player had the job once. Moments are on the host's clock, `distjob.clock.monotonic`."""

    held: float
    asked: float
    ended: float
    """When it called end."""
    player: int


class _Part(NamedTuple):
    start: Barrier
    over: Barrier
    """Nobody ends before all have played: a process that does takes the others' processor."""
    rounds: int
    hold: float


def hold_of(players: int) -> float:
    """Seconds that each holds the job, so that some wait at any time: 20 ms for two, 2 for many."""
    return min(0.02, max(0.002, 0.05 / players))


def play(settings: Settings, players: int, rounds: int) -> list[Turn]:
    """Let so many processes have a VM's job ``rounds`` times each; all turns, in their order."""
    context = multiprocessing.get_context("spawn")
    part = _Part(context.Barrier(players), context.Barrier(players), rounds, hold_of(players))
    with context.Pool(players, _take, (part,)) as pool:
        found = pool.starmap(_play, [(settings, number) for number in range(players)], chunksize=1)
    return sorted(turn for turns in found for turn in turns)


def _take(part: _Part) -> None:
    """A barrier can be handed to a process when it is made, and not later."""
    _taken.append(part)


_taken: list[_Part] = []


def _play(settings: Settings, number: int) -> list[Turn]:
    """In each process."""
    (part,) = _taken
    pause = threading.Event()
    turns = []
    with connect(msgspec.structs.replace(settings, controller=f"player-{number}")) as jobs:
        part.start.wait(PATIENCE)
        for _ in range(part.rounds):
            asked = clock.monotonic()
            lease = jobs.begin("vm-42", Job.MODIFY, wait=PATIENCE)
            held = clock.monotonic()
            pause.wait(part.hold)
            turns.append(Turn(held, asked, clock.monotonic(), number))
            lease.end()
        part.over.wait(PATIENCE)
    return turns


def tell(turns: Sequence[Turn], players: int) -> None:
    """Print what came of it."""
    cycle = (turns[-1].held - turns[0].held) / (len(turns) - 1)
    longest = max(turn.held - turn.asked for turn in turns)
    # Who asked after the end did not wait for it.
    trips = sorted(new.held - old.ended for old, new in pairwise(turns) if new.asked < old.ended)
    p50, p99 = (1000 * trips[int(share * len(trips))] for share in (0.5, 0.99))
    say(f"longest wait of {players} players, in fair turns", f"{longest / (cycle * players):.2f}")
    say("hand-over, from end() to the next one's begin()", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    say("jobs granted a second", f"{1 / cycle:.0f}")
