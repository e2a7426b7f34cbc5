"""Real processes that are stopped for longer than their TTL, and write when they go on: refused.

A whole `distjob run` is stopped, with its warden and its command, as by a host that stands still;
the command goes on first. What it writes to is guarded by `distjob guard`, as in a user's script.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import distjob
from until import until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("config", ["sqlite", "redis", "etcd", "zookeeper"], indirect=True),
]
TTL = 3.0
COMMAND = str(Path(sys.executable).parent / "distjob")
WRITES = """
echo ready
while read -r text; do
    if "$0" guard admit --volatile "$1/marks.db"; then
        echo "$text" >> "$1/disk"; echo wrote
    else
        echo "refused: $?"
    fi
done
"""
STEP = """
import sys
import distjob
from distjob.fencing import Guard

folder, config = sys.argv[1:]
guard = Guard(folder + "/marks.db", volatile=True)
with distjob.connect(config) as jobs, open(folder + "/disk", "a", buffering=1) as disk:
    job = jobs.begin_async("vm", "migration out", on_owner_loss="orphan")
    step = job.nested()
    print("ready", flush=True)
    for text in sys.stdin:
        try:
            guard.admit(step.vm, step.fence)
            disk.write(text)
            print("wrote", flush=True)
        except distjob.StaleToken:
            print("refused: 1", flush=True)
"""


class Writer:
    """A process that holds a job, and writes a line to the disk for each line that it is sent."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.stopped: list[int] = []

    def hears(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def sends(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """With all its descendants, the last of them is the command."""
        self.stopped = [self.process.pid]
        for pid in self.stopped:  # it grows
            os.kill(pid, signal.SIGSTOP)
            until(lambda pid=pid: state(pid) == "T")
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            self.stopped += map(int, children.split())

    def goes_on(self) -> str:
        """The command does, before its guardians; what it has to say."""
        os.kill(self.stopped.pop(), signal.SIGCONT)
        said = self.hears()
        while self.stopped:
            os.kill(self.stopped.pop(), signal.SIGCONT)
        return said


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def begin(
    start: Callable[..., Any], config: Path, tmp_path: Path
) -> Iterator[Callable[..., Writer]]:
    """Begins a job, by a command of distjob's or a program of its own, and writes on demand."""
    made: list[Writer] = []
    config.write_text(json.dumps(json.loads(config.read_text()) | {"session": {"ttl": TTL}}))

    def begin(*words: str) -> Writer:
        script = ("--config", str(config), "--", "sh", "-c", WRITES, COMMAND, str(tmp_path))
        own = (sys.executable, "-c", STEP, str(tmp_path), str(config))
        writer = Writer(
            start(
                [COMMAND, *words, *script] if words else own,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                process_group=0,
            )
        )
        made.append(writer)
        assert writer.hears() == "ready"
        return writer

    yield begin
    for writer in made:
        for pid in writer.stopped:
            os.kill(pid, signal.SIGKILL)


MIGRATE = ("run", "vm", "--async", "migration out", "--wait", "60")
MODIFY = ("run", "vm", "--job", "modify", "--wait", "60")


@pytest.mark.parametrize(("first", "then"), [(MIGRATE, MODIFY), (MODIFY, MIGRATE)], ids=["1", "2"])
def test_a_command_that_was_stopped_for_too_long(
    begin: Callable[..., Writer], tmp_path: Path, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    """A migration while another modified, and a modification while another migrated."""
    old = begin(*first)
    old.sends("in time")
    assert old.hears() == "wrote"
    old.stop()
    old.sends("too late")
    new = begin(*then)
    new.sends("by the next")
    assert new.hears() == "wrote"
    assert old.goes_on() == "refused: 1"
    assert old.process.wait(60) == 70
    new.sends("and again")
    assert new.hears() == "wrote"
    assert (tmp_path / "disk").read_text().splitlines() == ["in time", "by the next", "and again"]


def test_a_step_of_a_job_that_was_adopted(
    begin: Callable[..., Writer], tmp_path: Path, config: Path
) -> None:
    old = begin()
    old.sends("in time")
    assert old.hears() == "wrote"
    old.stop()
    old.sends("too late")
    with distjob.connect(config) as jobs:
        until(jobs.orphans)
    new = begin("adopt", "vm", "migration out")
    new.sends("by the heir")
    assert new.hears() == "wrote"
    assert old.goes_on() == "refused: 1"
    assert (tmp_path / "disk").read_text().splitlines() == ["in time", "by the heir"]
