"""What processes that are killed and stopped were told is explained by the rules in sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distjob.testing.history.__main__ import Game
from distjob.testing.history.model import unexplained

SECONDS = 4.0


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_a_history_is_explained(
    store: str, tmp_path: Path, fresh_namespace: str, request: pytest.FixtureRequest
) -> None:
    settings: dict[str, Any] = {"sqlite": {"path": str(tmp_path / "jobs.db")}}
    if store == "redis":
        settings = {"redis": {"url": request.getfixturevalue("redis_server").url}}
    game = Game({"namespace": fresh_namespace, **settings}, tmp_path, seed=1)
    ops = game.play(SECONDS, players=3)
    assert game.killed + game.stopped > 0
    assert {"begin", "end"} <= {op.what for op in ops}
    assert unexplained(ops) == []
