"""Guards in processes that are killed: no mark falls, and bodies of two processes never overlap."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distjob.fencing import Fence, Guard
from distjob.rules.jobs import Slot

PATIENCE = 30.0
ADMIT = """
import sys
from distjob.fencing import Fence, Guard
from distjob.rules.jobs import Slot
from distjob.errors import StaleToken
path, step, offset = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
guard = Guard(path, volatile=True)
token = guard.highest("vm", "sync") // step * step + step + offset
while True:
    try:
        guard.admit("vm", Fence((Slot.SYNC,), token, token, token))
    except StaleToken as stale:
        token = stale.highest // step * step + step + offset
        continue
    print(token, flush=True)
    token += step
"""

RACE = """
import sys, time
from distjob.fencing import Fence, Guard
from distjob.rules.jobs import Slot
from distjob.errors import StaleToken
path, log, offset = sys.argv[1], sys.argv[2], int(sys.argv[3])
guard = Guard(path, volatile=True)
token, done = offset, 0
print(flush=True)
sys.stdin.readline()
until = time.monotonic() + 2.5
with open(log, "a", buffering=1) as file:
    while time.monotonic() < until:
        try:
            with guard.exclusively("vm", Fence((Slot.SYNC,), token, token, token)):
                file.write(f"in {token}\\n")
                time.sleep(0.002)
                file.write(f"out {token}\\n")
            done += 1
        except StaleToken as stale:
            token = stale.highest // 2 * 2 + 2 + offset
        time.sleep(0.001)
guard.close()
print(done)
"""


Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(start: Callable[..., Any]) -> Run:
    """Runs a program in a process of its own."""

    def run(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        process: subprocess.Popen[str] = start(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return process

    return run


def test_no_mark_is_below_an_acknowledged_one(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "guard.db"
    chance = random.Random(7)
    rounds, acknowledged = 0, 0
    end = time.monotonic() + 4
    while time.monotonic() < end or rounds < 3:
        processes = [run(ADMIT, path, 3, offset) for offset in range(3)]
        for process in processes:  # all have begun
            assert process.stdout is not None
            assert process.stdout.readline()
        for process in processes:
            time.sleep(chance.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        for process in processes:
            said, _ = process.communicate(timeout=PATIENCE)
            complete = said.rpartition("\n")[0].split()
            assert complete == sorted(complete, key=int)
            acknowledged = max([acknowledged, *map(int, complete)])
        with Guard(path, volatile=True) as guard:
            assert guard.highest("vm", Slot.SYNC) >= acknowledged
        rounds += 1
    assert acknowledged > rounds


def test_bodies_of_two_processes_never_interleave(run: Run, tmp_path: Path) -> None:
    path, log = tmp_path / "guard.db", tmp_path / "log"
    racers = [run(RACE, path, log, offset) for offset in (1, 2)]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline()
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()
    done = [int(racer.communicate(timeout=PATIENCE)[0]) for racer in racers]
    assert all(racer.returncode == 0 for racer in racers)
    assert min(done) > 0, "one never got in: nothing was raced"
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len(lines) == 2 * sum(done)
    tokens = []
    for (enter, token), (leave, same) in zip(lines[::2], lines[1::2], strict=True):
        assert (enter, leave, token) == ("in", "out", same)
        tokens.append(int(token))
    assert tokens == sorted(tokens), "a stale holder acted"


def test_a_killed_body_lets_the_others_in(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "guard.db"
    holder = run(
        "import sys, time\nfrom distjob.fencing import Fence, Guard\n"
        "from distjob.rules.jobs import Slot\n"
        "guard = Guard(sys.argv[1], volatile=True)\n"
        "with guard.exclusively('vm', Fence((Slot.SYNC,), 5, 5, 5)):\n"
        "    print('in', flush=True)\n    time.sleep(60)",
        path,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    holder.kill()
    holder.communicate(timeout=PATIENCE)
    with Guard(path, wait=2, volatile=True) as guard:
        assert guard.highest("vm", Slot.SYNC) == 5
        guard.admit("vm", Fence((Slot.SYNC,), 6, 6, 6))
