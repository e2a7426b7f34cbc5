"""SQLite's bells: who waits sleeps until it is meant, and nothing of them is left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from distjob import Client, Job
from distjob.config import load, open_backend
from distjob_sqlite import bell, feed
from until import until

WAITER = """
import sys, time
from distjob import Job, connect
with connect({"sqlite": {"path": sys.argv[1]}, "session": {"ttl": 3}}) as jobs:
    print("connected", flush=True)
    with jobs.begin("vm", Job.MODIFY, wait=60):
        print("held", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def settings(tmp_path):
    return load({"sqlite": {"path": str(tmp_path / "jobs.db")}})


@pytest.fixture
def waiter(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", WAITER, str(tmp_path / "jobs.db")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout.readline() == "connected\n"
    yield child
    child.kill()
    child.communicate()


def bells(folder):
    return list(folder.glob("jobs.db-bell-*"))


def test_a_waiter_is_not_woken_by_what_is_none_of_its_business(settings, monkeypatch):
    """It looks by its own clock alone while others change the file hundreds of times."""
    looks = []
    look = feed.SqliteFeed._look
    monkeypatch.setattr(feed, "_ASLEEP", 5.0)
    monkeypatch.setattr(
        feed.SqliteFeed, "_look", lambda self: (looks.append(threading.get_ident()), look(self))[1]
    )
    with Client(open_backend(settings)) as one, Client(open_backend(settings)) as other:
        lease = one.begin("vm", Job.MODIFY)
        held = []
        waiting = threading.Thread(target=lambda: held.append(other.begin("vm", Job.MODIFY)))
        waiting.start()
        until(lambda: one.status("vm").waiters)
        looks.clear()
        for number in range(200):
            one.begin(f"vm-{number}", Job.MODIFY).end()
        assert looks.count(waiting.ident) <= 2
        lease.end()
        waiting.join(30)
        assert held[0].token
        held[0].end()


def test_a_bell_may_be_rung_by_who_may_write_the_file_and_goes_with_its_client(settings, tmp_path):
    with Client(open_backend(settings)) as jobs:
        jobs.begin("vm", Job.MODIFY).end()
        (hung,) = bells(tmp_path)
        mode, file = hung.stat().st_mode, (tmp_path / "jobs.db").stat().st_mode
        assert stat.S_ISFIFO(mode)
        assert stat.S_IMODE(mode) == stat.S_IMODE(file) & 0o666
    assert bells(tmp_path) == []


def test_what_a_killed_waiter_has_left_is_removed_by_the_next_who_comes(settings, tmp_path, waiter):
    os.kill(waiter.pid, signal.SIGKILL)
    waiter.wait()
    (left,) = bells(tmp_path)
    with Client(open_backend(settings), ttl=3) as jobs:
        with jobs.begin("vm", Job.MODIFY, wait=60):  # once the dead session has ended
            pass
        until(lambda: not left.exists())


@pytest.mark.parametrize("broken", ["no FIFO can be made", "nobody rings"])
def test_without_bells_mail_is_looked_for(settings, tmp_path, monkeypatch, broken):
    def refuse(*_):
        raise PermissionError

    if broken == "nobody rings":
        monkeypatch.setattr(bell, "ring", lambda *_: None)
    else:
        monkeypatch.setattr(os, "mkfifo", refuse)
    with Client(open_backend(settings)) as one, Client(open_backend(settings)) as other:
        for _ in range(feed._RINGS_NOT + 1):
            lease = one.begin("vm", Job.MODIFY)
            waiting = threading.Thread(target=lambda: other.begin("vm", Job.MODIFY).end())
            waiting.start()
            until(lambda: one.status("vm").waiters)
            lease.end()
            waiting.join(30)
            assert not waiting.is_alive()
        assert other.list() == []
        assert bool(bells(tmp_path)) == (broken == "nobody rings")
