"""Many processes that each want several VMs together."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossing import cross


@pytest.mark.parametrize("config", ["redis"], indirect=True)
def test_processes_whose_requests_cross_are_all_served(config: Path) -> None:
    """``python tests/crossing.py --processes 100`` does the same with more of them."""
    processes, rounds = 5, 4
    found = cross(config, processes=processes, rounds=rounds, wait=60.0)
    longest = found.pop("longest")
    assert found == {
        "done": processes * rounds,
        "timed out": 0,
        "nobody named": 0,
        "too late": 0,
        "left": [],
    }, longest
