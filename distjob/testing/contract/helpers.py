"""What the tests of the contract share: how long to wait, and a few steps on a `Store`.

The steps are public: a backend's own tests may use them, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import (
    Committed,
    Ended,
    Missed,
    Stale,
    Store,
    Versioned,
    Woken,
)

T = TypeVar("T")
Connect = Callable[[], Store]

TTL = 30.0
"""Of sessions that are to outlive their test."""
SHORT = 0.3
"""Of sessions that are to end in it, where the store can keep such; see the fixture `short`."""
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


def wait_until_ended(store: Store, session: str, patience: float = PATIENCE) -> None:
    """Ask for ``session`` until it has ended; often, as some stores can't tell when it will."""
    until = clock.monotonic() + patience
    pause = threading.Event()
    while (left := store.remaining([session])[session]) > 0:
        assert clock.monotonic() < until, "the session never ended"
        pause.wait(min(left + 0.005, 0.1))


def try_until(call: Callable[[], T]) -> T:
    """What ``call`` returns, once the store can be reached again."""
    until = clock.monotonic() + PATIENCE
    pause = threading.Event()
    while True:
        try:
            return call()
        except BackendUnavailable:
            assert clock.monotonic() < until, "the store did not come back"
            pause.wait(0.1)


def receive_woken(store: Store, session: str, last: int, vm: str = "") -> list[Woken]:
    """All wake-ups of ``session`` up to the one of version ``last``, of ``vm`` if it is named."""
    until = clock.monotonic() + PATIENCE
    woken: list[Woken] = []
    while not any(event.version >= last and vm in ("", event.vm) for event in woken):
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
