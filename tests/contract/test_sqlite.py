"""The SQLite store, against the contract."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distjob import clock
from distjob.store import Store
from distjob.testing.contract import Connect, StoreContract, committed, receive_woken
from distjob.testing.onloop import OnLoop
from distjob_sqlite import SqliteSettings, backend


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
            stores.append(backend.connect(settings, "default", 30.0))
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
        stores += [backend.connect(settings, name, 30.0) for name in ("one", "two")]
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


class TestSqliteOnAsyncio(TestSqlite):
    @pytest.fixture
    def connect(self, tmp_path: Path, stores: list[Store]) -> Connect:
        settings = SqliteSettings(path=str(tmp_path / "jobs.db"))

        def connect() -> Store:
            assert backend.connect_async is not None
            stores.append(OnLoop(partial(backend.connect_async, settings, "default", 30.0)))
            return stores[-1]

        return connect
