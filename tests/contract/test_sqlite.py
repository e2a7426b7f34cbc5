"""The SQLite store, against the contract."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distjob import clock
from distjob.config import backends
from distjob.store import Settled, Store
from distjob.testing.contract import PATIENCE, Connect, StoreContract, committed, receive_woken
from distjob.testing.onloop import OnLoop
from distjob_sqlite import SqliteSettings


class TestSqlite(StoreContract):
    @pytest.fixture
    def stores(self) -> Iterator[list[Store]]:
        stores: list[Store] = []
        yield stores
        for store in stores:
            store.close()

    @pytest.fixture
    def connect(self, tmp_path: Path, stores: list[Store]) -> Connect:
        settings = SqliteSettings(path=str(tmp_path / "jobs.db"))

        def connect() -> Store:
            stores.append(backends.connect("sqlite", settings, "default", 30.0))
            return stores[-1]

        return connect

    @pytest.fixture
    def restart(self, stores: list[Store]) -> Callable[[], None]:
        def restart() -> None:
            for store in stores:
                store.close()

        return restart

    @pytest.fixture
    def lose(self, tmp_path: Path, stores: list[Store]) -> Callable[[], None]:
        def lose() -> None:
            for store in stores:
                store.close()
            for file in tmp_path.glob("jobs.db*"):
                file.unlink()

        return lose

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Mapping[str, Any]:
        return {"namespace": "default", "sqlite": {"path": str(tmp_path / "jobs.db")}}

    @pytest.fixture
    def entries(self, tmp_path: Path) -> Callable[[], int]:
        def entries() -> int:
            with closing(sqlite3.connect(tmp_path / "jobs.db")) as file:
                tables = [
                    name
                    for (name,) in file.execute(
                        "SELECT name FROM sqlite_schema WHERE type = 'table'"
                    )
                ]
                return sum(file.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables)

        return entries

    def test_namespaces_share_a_file(self, tmp_path: Path, stores: list[Store]) -> None:
        settings = SqliteSettings(path=str(tmp_path / "jobs.db"))
        stores += [backends.connect("sqlite", settings, name, 30.0) for name in ("one", "two")]
        sessions = [store.open_session(30.0, "me") for store in stores]
        for store, session, value in zip(stores, sessions, (b"1", b"2"), strict=True):
            store.commit("vm", 0, value, session, ())
        assert [store.read("vm").value for store in stores] == [b"1", b"2"]
        assert [len(list(store.scan())) for store in stores] == [1, 1]

    def test_versions_rise_while_the_wall_clock_goes_back(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [2_000_000_000.0]
        monkeypatch.setattr(clock, "wall", lambda: now[0])
        store = connect()
        me = store.open_session(30.0, "me")
        versions = []
        for _ in range(5):
            versions += [committed(store, vm, b"x", me) for vm in ("vm-1", "vm-2")]
            versions.append(committed(store, "vm-1", None, me))
            now[0] -= 3600
        assert versions == list(range(versions[0], versions[0] + 15))
        now[0] = 3_000_000_000.0
        assert committed(store, "vm-1", b"x", me) == 3_000_000_000_000_000

    def test_mail_of_the_next_session_is_not_overlooked(self, connect: Connect) -> None:
        store = connect()
        old, new = store.open_session(30.0, "old"), store.open_session(30.0, "new")
        version = committed(store, "vm", b"x", new, new)
        assert list(store.receive(old, 0.0)) == []
        assert [woken.version for woken in receive_woken(store, new, version)] == [version]

    def test_a_commit_that_waits_for_its_turn_is_overtaken_by_a_settling(
        self, tmp_path: Path, connect: Connect
    ) -> None:
        """Another process writes; one commit tries again and again, and on asyncio the other one is
        in the lane behind it.
        """
        store = connect()
        me = store.open_session(30.0, "me")
        sent = marked(store)
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor(2) as pool:
                replies = [pool.submit(store.commit, "vm", 0, b"late", me, ()) for _ in range(2)]
                for _ in replies:
                    assert sent.acquire(timeout=PATIENCE)
                store.settle(me)
                other.execute("ROLLBACK")
                assert [reply.result(PATIENCE) for reply in replies] == [Settled(), Settled()]
        assert store.read("vm").version == 0
        committed(store, "vm", b"x", me)


def marked(store: Any) -> threading.Semaphore:
    """Released for each commit that is sent: it remembers then what was settled before."""
    settling: Any = getattr(store, "verbs", getattr(store, "store", None)).source._settling
    sent, mark = threading.Semaphore(0), settling.mark

    def marking(session: str) -> object:
        found = mark(session)
        sent.release()
        return found

    settling.mark = marking
    return sent


class TestSqliteOnAsyncio(TestSqlite):
    @pytest.fixture
    def connect(self, tmp_path: Path, stores: list[Store]) -> Connect:
        settings = SqliteSettings(path=str(tmp_path / "jobs.db"))

        def connect() -> Store:
            stores.append(
                OnLoop(partial(backends.connect_async, "sqlite", settings, "default", 30.0))
            )
            return stores[-1]

        return connect
