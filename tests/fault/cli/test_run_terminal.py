"""`distjob run` on a pseudo-terminal: who has the foreground, and whom Ctrl-C and Ctrl-Z reach."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distjob import clock
from runs import DISTJOB, PATIENCE, Bench

TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """The other side of a pseudo-terminal."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.seen = ""

    def read_until(self, pattern: str) -> None:
        limit = clock.monotonic() + PATIENCE
        while not re.search(pattern, self.seen):
            left = limit - clock.monotonic()
            assert select.select([self.master], [], [], max(0.0, left))[0], self.seen
            self.seen += os.read(self.master, 4096).decode()

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def on_terminal(bench: Bench, terminal: Terminal, *command: str) -> subprocess.Popen[str]:
    through = (sys.executable, "-c", TERMINAL)
    return bench.run(*command, stdin=terminal.slave, through=through)


def test_ctrl_c_reaches_the_command(bench: Bench, terminal: Terminal) -> None:
    script = "trap 'echo told; exit 5' INT; echo ready; while :; do sleep 0.01; done"
    run = on_terminal(bench, terminal, "sh", "-c", script)
    terminal.read_until("ready")
    os.write(terminal.master, b"\x03")
    assert run.wait(PATIENCE) == 5
    terminal.read_until("told")
    with bench.client() as client:
        assert client.list() == []


def test_ctrl_c_ends_a_plain_command_with_130(bench: Bench, terminal: Terminal) -> None:
    run = on_terminal(bench, terminal, "sh", "-c", "echo ready; exec sleep 60")
    terminal.read_until("ready")
    os.write(terminal.master, b"\x03")
    assert run.wait(PATIENCE) == 130


def test_the_command_may_read_and_the_terminal_is_given_back(
    bench: Bench, terminal: Terminal
) -> None:
    inner = " ".join((*DISTJOB[:2], f"'{DISTJOB[2]}'", "run vm --job modify --config"))
    script = (
        f"{inner} {bench.config} -- sh -c 'echo one?; read line; echo got-$line';"
        " echo two?; read line; echo back-$line"
    )
    through = (sys.executable, "-c", TERMINAL)
    shell = subprocess.Popen(
        [*through, "/bin/sh", "-c", script],
        stdin=terminal.slave,
        stdout=terminal.slave,
        stderr=terminal.slave,
        text=True,
    )
    bench.running.append(shell)
    terminal.read_until(r"one\?")
    os.write(terminal.master, b"abc\n")
    terminal.read_until("got-abc")
    terminal.read_until(r"two\?")
    os.write(terminal.master, b"def\n")
    terminal.read_until("back-def")
    assert shell.wait(PATIENCE) == 0


def test_terminal_of_another_session(bench: Bench, terminal: Terminal) -> None:
    run = bench.run("sh", "-c", "echo ran", stdin=terminal.slave)
    assert run.wait(PATIENCE) == 0
    terminal.read_until("ran")


def test_ctrl_z_is_refused(bench: Bench, terminal: Terminal) -> None:
    script = "echo ready; read line; echo got-$line"
    run = on_terminal(bench, terminal, "sh", "-c", script)
    terminal.read_until("ready")
    os.write(terminal.master, b"\x1a")
    os.write(terminal.master, b"abc\n")
    terminal.read_until("got-abc")
    assert run.wait(PATIENCE) == 0


def test_in_a_pipeline_the_command_gets_the_terminal_when_it_asks(
    bench: Bench, terminal: Terminal
) -> None:
    inner = " ".join((*DISTJOB[:2], f"'{DISTJOB[2]}'", "run vm --job modify --config"))
    script = f"{inner} {bench.config} -- sh -c 'echo one? >&2; read line; echo got-$line' | cat"
    shell = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, "/bin/sh", "-c", script],
        stdin=terminal.slave,
        stdout=terminal.slave,
        stderr=terminal.slave,
        text=True,
    )
    bench.running.append(shell)
    terminal.read_until(r"one\?")
    os.write(terminal.master, b"abc\n")
    terminal.read_until("got-abc")
    assert shell.wait(PATIENCE) == 0
