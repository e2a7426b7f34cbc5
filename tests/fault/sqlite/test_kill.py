"""Processes that count up in one file are killed (SIGKILL) at random moments.

Each writes down what was acknowledged, after the acknowledgement. Whatever the moment, the file
must open, be whole, hold every acknowledged commit, and at most one more for each kill.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from distjob import clock
from distjob.config import backends
from distjob.store import Committed, Stale, Store, Versioned
from distjob_sqlite import SqliteSettings

KILLS = 40
PROCESSES = 3


def count_up(path: str, log: str) -> None:
    """What each process does until it is killed."""
    store = connect(Path(path))
    session = store.open_session(5.0, "counter")
    acknowledged = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen: Versioned | Stale = store.read("vm")
    while True:
        count = int(seen.value or b"0") + 1
        reply = store.commit("vm", seen.version, b"%d" % count, session, (session,))
        if isinstance(reply, Committed):
            os.write(acknowledged, b"%d %d\n" % (reply.version, count))
            store.receive(session, 0.0)
            store.keep_alive(session)
            seen = store.read("vm")
        else:
            assert isinstance(reply, Stale)
            seen = reply


def connect(path: Path) -> Store:
    return backends.connect("sqlite", SqliteSettings(path=str(path)), "default", 10.0)


def start(path: Path, log: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, str(path), str(log)])


def wait_for_work(process: subprocess.Popen[bytes], log: Path, pause: threading.Event) -> None:
    until = clock.monotonic() + 30
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None, f"a process ended by itself: {process.returncode}"
        assert clock.monotonic() < until
        pause.wait(0.002)


@pytest.mark.parametrize("seed", [1])
def test_sigkill_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    chance, pause = random.Random(seed), threading.Event()
    path = tmp_path / "jobs.db"
    logs = [tmp_path / f"acknowledged-{n}" for n in range(KILLS + PROCESSES)]
    running = [(start(path, log), log) for log in logs[:PROCESSES]]
    try:
        for log in logs[PROCESSES:]:
            victim, written = running.pop(chance.randrange(PROCESSES))
            wait_for_work(victim, written, pause)
            pause.wait(chance.random() * 0.05)
            victim.kill()
            assert victim.wait(10) == -signal.SIGKILL
            running.append((start(path, log), log))
    finally:
        for process, _ in running:
            process.kill()
            process.wait(10)

    acknowledged = sorted(
        tuple(map(int, line.split()))
        for log in logs
        if log.exists()
        for line in log.read_text().splitlines()
    )
    counts = [count for _, count in acknowledged]
    assert counts == sorted(set(counts)), "two commits counted the same, or versions fell"
    store = connect(path)
    found = store.read("vm")
    session = store.open_session(10.0, "after")
    reply = store.commit("vm", found.version, b"x", session, ())
    store.close()
    assert found.value is not None
    assert counts[-1] <= int(found.value) <= len(counts) + len(logs)
    assert found.version >= acknowledged[-1][0]
    assert isinstance(reply, Committed)
    assert reply.version > found.version
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []


if __name__ == "__main__":
    count_up(sys.argv[1], sys.argv[2])
