"""Thousands of simulated worlds: real protocol, virtual time, every fault.

See docs/explanation/simulation.md. A failure names its seed and profile, shows the last steps, and
says how to replay just that world.
"""

from __future__ import annotations

from collections import Counter

import pytest

from distjob.testing.sim.calls import Violated
from distjob.testing.sim.longjobs import PHASES
from distjob.testing.sim.profiles import PROFILES
from distjob.testing.sim.world import run

CHUNK = 150
CHUNKS = [(name, part) for name in PROFILES for part in range(3 if name == "storm" else 2)]

SEEN: Counter[str] = Counter()
RUN: set[tuple[str, int]] = set()

AT_LEAST = {
    # what users met
    "granted": 10_000,
    "waited": 5_000,
    "nested": 500,
    "mask set": 500,
    "let in by mask": 30,
    "evicted": 200,
    "busy": 1_000,
    "cancel": 500,
    "JobTimeout": 500,
    "QueueFull": 1_000,
    "OutcomeUnknown": 20,
    "BackendUnavailable": 20,
    "LeaseLost": 5,
    "NotOwner": 20,
    "ClientClosed": 20,
    "lease lost": 50,
    "write refused": 10,
    # async jobs' lives
    "phase set": 3_000,
    "progress said": 500,
    "detached": 1_000,
    "adopted": 1_000,
    "detached, adopted": 1_000,
    "orphaned, adopted": 50,
    "of the dead, adopted": 50,
    "adopt refused: NotOwner": 500,
    "adopt refused: WrongJob": 50,
    "adopt lost the race": 500,
    "given back": 5,
    "discarded": 200,
    "other lost the race": 20,
    "abort": 500,
    "asked to abort": 500,
    "abort awaited": 150,
    "abort heard": 500,
    "evicted by force": 300,
    "taken by force": 400,
    "told of force": 150,
    "crash of an owner": 100,
    "sleep of an owner": 50,
    "cut of an owner": 50,
    **{
        f"{how} in phase {phase}": 500 if how == "detached" and phase == "none" else 15
        for how in ("detached", "orphaned", "released")
        for phase in ("none", *PHASES)
    },
    # what went wrong
    "refused": 500,
    "unsent": 500,
    "unheard": 500,
    "late": 500,
    "resent": 500,
    "deaf": 100,
    "slow": 50,
    "doubled": 50,
    "crash": 300,
    "cut": 300,
    "restart": 200,
    "wipe": 100,
    "sleep": 300,
    "jump": 300,
    "close": 50,
}


together = pytest.mark.xdist_group("worlds")
"""What was seen is counted in one process."""


@together
@pytest.mark.parametrize(("profile", "part"), CHUNKS)
def test_every_invariant_holds(profile: str, part: int) -> None:
    for seed in range(part * CHUNK, (part + 1) * CHUNK):
        try:
            SEEN.update(run(seed, profile).seen)
        except Violated as broken:
            pytest.fail(f"{broken.invariant}: {broken}", pytrace=False)
    RUN.add((profile, part))


@together
def test_the_worlds_are_worth_it() -> None:
    """Every fault struck and every outcome was met, many times; judged over a whole run."""
    if len(RUN) < len(CHUNKS):
        pytest.skip("only some of the worlds were run, or one of them failed")
    rare = {what: SEEN[what] for what, least in AT_LEAST.items() if SEEN[what] < least}
    assert not rare
    assert len(CHUNKS) * CHUNK >= 2_000


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seed_is_one_world(profile: str) -> None:
    first, again = run(7, profile), run(7, profile)
    assert (first.seen, first.steps, first.now) == (again.seen, again.steps, again.now)
