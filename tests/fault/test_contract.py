"""The fault contract on the stores that have no server: SQLite and memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from distjob.store import AsyncStore, Store
from distjob.testing.contract import FaultContract
from distjob.testing.contract.faults import At, Harness
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore


class SqliteHarness(Harness):
    cannot = {  # noqa: RUF012
        "network": "a file has no network",
        "restart": "a file has no server",
        "freeze": "a file has no server",
        "secured": "a file has no network",
        "small": "a full disk is for the whole process: tests/unit/test_sqlite_errors.py",
        "ends": "a file tells nobody of an end: its time is known",
    }

    def __init__(self, path: Path) -> None:
        self._path = path

    def section(self, at: At) -> tuple[str, Mapping[str, Any]]:
        return "sqlite", {"path": str(self._path), "busy_timeout": at.timeout}

    def reformat(self, namespace: str) -> None:
        """Of all its namespaces."""
        del namespace
        with closing(sqlite3.connect(self._path)) as file, file:
            file.execute("UPDATE meta SET schema = 99")


class TestSqliteFaults(FaultContract):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return SqliteHarness(tmp_path / "jobs.db")


class MemoryHarness(Harness):
    cannot = {  # noqa: RUF012
        "network": "it is in the memory of this process",
        "restart": "it ends with this process",
        "freeze": "it hangs with this process",
        "reformat": "it has no format",
        "namespaces": "each server is one",
        "secured": "it has no network",
        "small": "it is full when this process is",
        "fork": "a child's is another one",
    }

    def __init__(self) -> None:
        self._server = MemoryServer()

    def opened(self, at: At) -> Store:
        del at
        return MemoryStore(self._server)

    async def opened_async(self, at: At) -> AsyncStore:
        del at
        return AsyncMemoryStore(self._server)


class TestMemoryFaults(FaultContract):
    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()
