"""Waiting for what others do, which has no event here: the store is asked again."""

from __future__ import annotations

import threading
from collections.abc import Callable

from distjob import clock
from distjob.testing.replay import PATIENCE


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Ask again until ``condition`` holds."""
    deadline = clock.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert clock.monotonic() < deadline, "it did not come about"
        pause.wait(0.005)
