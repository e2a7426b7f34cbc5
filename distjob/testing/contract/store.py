"""The contract of healthy servers: each sentence of `distjob.store`, as a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from distjob.store import Store
from distjob.testing.contract.claims import Claims
from distjob.testing.contract.helpers import SHORT, TTL, Connect
from distjob.testing.contract.sessions import Sessions
from distjob.testing.contract.settling import Settling
from distjob.testing.contract.values import Values
from distjob.testing.contract.wakeups import WakeUps


class StoreContract(Claims, WakeUps, Settling, Sessions, Values):
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
    def fail_over(self) -> Callable[[], None] | None:
        """A callable that ends the server which leads; returns when another has taken over."""
        return None

    @pytest.fixture
    def settings(self) -> Mapping[str, Any] | None:
        """What a settings file would hold, for other processes to open the same namespace.

        Their ``session.ttl`` is short, unless it is given here.
        """
        return None

    @pytest.fixture
    def entries(self) -> Callable[[], int] | None:
        """A callable that counts all that the namespace holds in the store: keys, rows, nodes."""
        return None

    @pytest.fixture
    def asked(self) -> Callable[[], int] | None:
        """A callable that returns how many requests the server has had, its own among them."""
        return None

    @pytest.fixture
    def short(self, store: Store) -> float:
        """The TTL of a session that is to end in the test."""
        return max(SHORT, store.guarantees.shortest_ttl)

    @pytest.fixture
    def store(self, connect: Connect) -> Store:
        return connect()

    @pytest.fixture
    def me(self, store: Store) -> str:
        return store.open_session(TTL, "me")
