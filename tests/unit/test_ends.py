"""Tests that hang come to an end; children have default signals, whatever pytest started with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
SIGNALS = """
import signal, subprocess, sys
import pytest

def test_children_have_default_signals():
    code = "import signal as s; print([*map(s.getsignal, (s.SIGINT, s.SIGQUIT, s.SIGHUP))])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert told.stdout.count("SIG_DFL") == 2 and "default_int_handler" in told.stdout, told

def test_ctrl_c_is_heard():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)

def test_a_hangup_is_not():
    signal.raise_signal(signal.SIGHUP)
"""
HANGS = """
import subprocess, sys, threading
from concurrent.futures import ThreadPoolExecutor
import pytest, ends

ends.AGAIN, ends.ALL_SERVERS, ends.LAST = 2.0, 2.0, 2

def test_in_a_pool():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(threading.Event().wait)

@pytest.fixture
def fails_and_hangs():
    yield
    threading.Event().wait()

def test_in_its_tear_down(fails_and_hangs):
    assert False

def test_with_a_child_that_hears_nothing():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True)"
    with ends.started([sys.executable, "-c", code + "; signal.pause()"], stdout=-1) as child:
        child.stdout.readline()
        child.send_signal(2)
        child.stdout.read()
"""


def test_ignored_signals_are_not_passed_on(tmp_path: Path) -> None:
    told = run(tmp_path, SIGNALS, "trap '' INT QUIT HUP;")
    assert "3 passed" in told.stdout, told.stdout


def test_whatever_hangs_comes_to_an_end(tmp_path: Path) -> None:
    told = run(tmp_path, HANGS)
    assert "3 failed, 1 error" in told.stdout, told.stdout


def run(folder: Path, tests: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """Pytest on ``tests``, after the shell has done ``first``; nothing of this run's settings."""
    (folder / "test_inner.py").write_text(tests)
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {TESTS}\ntimeout = 2\n")
    words = [sys.executable, "-m", "pytest", "-p", "ends", "-p", "no:cacheprovider", "-q", "."]
    return subprocess.run(
        ["sh", "-c", f'{first} exec "$@"', "sh", *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(TESTS), "HOME": str(folder)},
    )  # fmt: skip
