"""The history checker explains what the rules allow, and nothing else."""

from __future__ import annotations

import math

import pytest

from distjob.testing.history.logs import untold
from distjob.testing.history.model import Op, unexplained


def sync(token: int, began: float, returned: float, job: str = "modify") -> Op:
    return Op("begin", began, returned, "sync", token, job)


def ends(token: int, began: float, returned: float, slot: str = "sync") -> Op:
    return Op("end", began, returned, slot, token)


LONG = Op("begin", 0, 1, "async", 5, "async")

RIGHT = {
    "one after another": [sync(1, 0, 1), ends(1, 2, 3), sync(2, 0, 4)],
    "the dead": [sync(1, 0, 1), Op("void", 0, slot="sync", token=1), sync(2, 2, 9)],
    "a grant nobody heard of": [
        Op("begin", 0, math.inf, "sync", 0, "modify"),
        Op("busy", 1, 2, "sync", 0, "query"),
        Op("void", 0, slot="sync"),
        sync(7, 3, 4),
    ],
    "by the mask": [LONG, sync(6, 2, 3, "query")],
    "a mask that was set": [LONG, Op("allow", 2, 3, token=5, more=["modify"]), sync(6, 2, 4)],
    "adopted": [LONG, Op("detach", 2, 3, "async", 5), Op("adopt", 3, 4, "async", 6)],
    "status": [sync(1, 0, 1), Op("status", 2, 3, more={"sync": 1})],
}
EVICTED = [sync(1, 0, 1), ends(1, 2, 3), Op("evict", 4, 5, more=[("sync", 3)]), sync(7, 1, 8)]
"""Who was granted 3 was evicted before it knew, and asked again: nobody was told of that grant."""
RIGHT["evicted before it knew"] = [*EVICTED, *untold(EVICTED)]
WRONG = {
    "two holders": [sync(1, 0, 1), sync(2, 2, 3), ends(1, 4, 5)],
    "tokens fall": [sync(2, 0, 1), ends(2, 2, 3), sync(1, 4, 5)],
    "an end that frees nothing": [
        sync(1, 0, 1),
        ends(1, 2, 3),
        Op("busy", 4, 5, "sync", 0, "query"),
    ],
    "past the mask": [LONG, sync(6, 2, 3)],
    "adopted from a living one": [LONG, Op("adopt", 2, 3, "async", 6)],
    "a step of another's": [LONG, Op("step", 2, 3, "sync", 6, more=4)],
    "status of what has ended": [
        sync(1, 0, 1),
        ends(1, 2, 3),
        Op("status", 4, 5, more={"sync": 1}),
    ],
    "a discarded job that has an owner": [LONG, Op("discard", 2, 3, "", 5)],
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_the_rules_allow_is_explained(name: str) -> None:
    assert unexplained(RIGHT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_what_they_do_not_is_not(name: str) -> None:
    assert unexplained(WRONG[name]) != []
