"""The suite that every backend must pass: each sentence of `distjob.store`, as a test.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def connect(self, tmp_path):
            stores = []
            def connect():
                stores.append(my_backend.connect(settings, namespace, 10.0))
                return stores[-1]
            yield connect
            for store in stores:
                store.close()

``connect`` gives each call a new store, of another client, on the same namespace; each test must
get an empty namespace. Sessions of 0.3 s must work. A store whose `Guarantees` claim ``durable`` or
``versions_survive_loss`` must override ``restart`` or ``lose``. Knows nothing of jobs.

    values.py sessions.py wakeups.py claims.py   the tests, by subject
    helpers.py                                   what they share; for a backend's own tests, too
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distjob.store import Store
from distjob.testing.contract.claims import Claims
from distjob.testing.contract.helpers import (
    PATIENCE,
    SHORT,
    TTL,
    Connect,
    committed,
    increment,
    receive_woken,
    wait_until_ended,
)
from distjob.testing.contract.sessions import Sessions
from distjob.testing.contract.values import Values
from distjob.testing.contract.wakeups import WakeUps

__all__ = [
    "PATIENCE",
    "SHORT",
    "TTL",
    "Connect",
    "StoreContract",
    "committed",
    "increment",
    "receive_woken",
    "wait_until_ended",
]


class StoreContract(Claims, WakeUps, Sessions, Values):
    """Subclass it, override `connect`, and let pytest collect the subclass."""

    @pytest.fixture
    def connect(self) -> Connect:
        """A callable that returns a new `Store` on the namespace of this test."""
        msg = "override the fixture `connect`"
        raise NotImplementedError(msg)

    @pytest.fixture
    def restart(self) -> Callable[[], None] | None:
        """A callable that restarts the server; stores from before need not work afterwards."""
        return None

    @pytest.fixture
    def lose(self) -> Callable[[], None] | None:
        """A callable that makes the server lose all its data."""
        return None

    @pytest.fixture
    def store(self, connect: Connect) -> Store:
        return connect()

    @pytest.fixture
    def me(self, store: Store) -> str:
        return store.open_session(TTL, "me")
