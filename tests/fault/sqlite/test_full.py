"""A disk that is full: jobs can be ended all the same."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from distjob import connect


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Until not one byte is left."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)


def test_jobs_can_be_ended_on_a_full_disk(disk: Path) -> None:
    database = disk / "jobs.db"
    with connect({"sqlite": {"path": str(database)}}) as jobs:
        held = [jobs.begin(f"vm-{number}", "modify") for number in range(20)]
        with closing(sqlite3.connect(database)) as sql:  # the WAL begins anew
            assert sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        for _ in range(5):
            jobs.begin("vm", "modify").end()
        fill(disk)
        for lease in held:
            lease.end()
        assert jobs.list() == []
