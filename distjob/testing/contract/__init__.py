"""The suites that every backend must pass: its healthy days, and its bad ones.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def connect(self, tmp_path):
            stores = []
            def connect():
                stores.append(backends.connect("mystore", settings, namespace, 10.0))
                return stores[-1]
            yield connect
            for store in stores:
                store.close()

``connect`` gives each call a new store, of another client, on the same namespace; each test must
get an empty namespace. What a store claims in its `Guarantees` it must let be tested: the fixtures
``settings``, ``restart``, ``lose``, ``fail_over``, ``entries`` and ``asked`` say how. Knows nothing
of jobs.

    store.py       `StoreContract`, and its fixtures
    values.py sessions.py settling.py wakeups.py claims.py   its tests, by subject
    faults/        `FaultContract`: lost replies, servers that hang, cancelled tasks
    helpers.py     what they share; for a backend's own tests, too
"""

from __future__ import annotations

from distjob.testing.contract.faults import FaultContract, Harness
from distjob.testing.contract.helpers import (
    PATIENCE,
    SHORT,
    TTL,
    Connect,
    committed,
    increment,
    receive_woken,
    try_until,
    wait_until_ended,
)
from distjob.testing.contract.store import StoreContract

__all__ = [
    "PATIENCE",
    "SHORT",
    "TTL",
    "Connect",
    "FaultContract",
    "Harness",
    "StoreContract",
    "committed",
    "increment",
    "receive_woken",
    "try_until",
    "wait_until_ended",
]
