"""What the tests of the contract share: how long to wait, and a few steps on a `Store`.

The steps are public: a backend's own tests may use them, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from distjob import clock
from distjob.store import (
    Committed,
    Ended,
    Missed,
    Stale,
    Store,
    Versioned,
    Woken,
)

Connect = Callable[[], Store]

TTL = 10.0
"""Of sessions that are to outlive their test."""
SHORT = 0.3
"""Of sessions that are to end in it."""
PATIENCE = 20.0
"""Seconds after which something that had to happen counts as never happening."""


def committed(store: Store, vm: str, value: bytes | None, author: str, *wake: str) -> int:
    """Write ``value`` over whatever is there; the new version."""
    while True:
        reply = store.commit(vm, store.read(vm).version, value, author, wake)
        if isinstance(reply, Committed):
            return reply.version
        assert isinstance(reply, Stale)


def increment(store: Store, vm: str, author: str, times: int) -> list[int]:
    """Count up in ``vm`` by compare-and-set, with no more reads than needed; the versions."""
    seen: Versioned | Stale = store.read(vm)
    versions: list[int] = []
    while len(versions) < times:
        value = b"%d" % (int(seen.value or b"0") + 1)
        reply = store.commit(vm, seen.version, value, author, ())
        if isinstance(reply, Committed):
            versions.append(reply.version)
            seen = Versioned(version=reply.version, value=value)
        else:
            assert isinstance(reply, Stale), reply
            seen = reply
    return versions


def wait_until_ended(store: Store, session: str) -> None:
    """Ask for ``session`` until it has ended, as rarely as its remaining time allows."""
    until = clock.monotonic() + PATIENCE
    pause = threading.Event()
    while (left := store.remaining([session])[session]) > 0:
        assert clock.monotonic() < until, "the session never ended"
        pause.wait(left + 0.005)


def receive_woken(store: Store, session: str, last: int) -> list[Woken]:
    """All wake-ups of ``session`` up to the one of version ``last``."""
    until = clock.monotonic() + PATIENCE
    woken: list[Woken] = []
    while not woken or woken[-1].version < last:
        left = until - clock.monotonic()
        assert left > 0, f"no wake-up of version {last}; there were {woken}"
        for event in store.receive(session, left):
            if isinstance(event, Woken):
                woken.append(event)
            elif isinstance(event, Ended):
                assert store.remaining([event.session]) == {event.session: 0.0}
            else:
                assert isinstance(event, Missed)
    return woken


class Receiving:
    """A `receive` that is under way in a thread; ``seconds`` is how long it took."""

    def __init__(self, store: Store, session: str, timeout: float) -> None:
        self.seconds = 0.0
        self._run = (store, session, timeout)
        self._begun = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(self._receive)
        self._begun.wait(PATIENCE)

    def _receive(self) -> Sequence[object]:
        store, session, timeout = self._run
        begun = clock.monotonic()
        self._begun.set()
        events = store.receive(session, timeout)
        self.seconds = clock.monotonic() - begun
        return events

    def result(self) -> Sequence[object]:
        with self._pool:
            return self._future.result(PATIENCE)
