"""The programs in docs/examples, run as a user would, on real stores."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import distjob
from distjob import AsyncJob, Client
from distjob.files.filesystems import IN_MEMORY, filesystems

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
SINGLE = ["sqlite", "redis", "etcd", "zookeeper"]


Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(start: Callable[..., Any]) -> Run:
    """Runs an example in a process of its own."""

    def run(example: str, *arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
        if cwd and filesystems(cwd) & IN_MEMORY:
            pytest.skip(f"a guard is refused in memory, where {cwd} is: set TMPDIR to a disk")
        command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
        process: subprocess.Popen[str] = start(command, stdout=subprocess.PIPE, text=True, cwd=cwd)
        return process

    return run


def finish(process: subprocess.Popen[str]) -> list[str]:
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return told.splitlines()


def test_the_control_plane_is_short() -> None:
    assert len((EXAMPLES / "control_plane.py").read_text().splitlines()) <= 40


@pytest.mark.parametrize("config", SINGLE, indirect=True)
def test_a_control_plane(run: Run, config: Path) -> None:
    told = finish(run("control_plane.py", cwd=config.parent))
    phases = ["begin", "perform", "confirm"]
    assert told == [*(f"vm-1 to b: {phase}" for phase in phases), "['vda', 'vdb']"]
    with distjob.connect(config) as jobs:
        assert jobs.list() == []


@pytest.mark.parametrize("config", SINGLE, indirect=True)
def test_two_control_planes_share_their_vms(run: Run, config: Path) -> None:
    both = [run("control_plane.py", cwd=config.parent) for _ in range(2)]
    for process in both:
        assert finish(process)[-1] == "['vda', 'vdb']"
    with distjob.connect(config) as jobs:
        assert jobs.list() == []


@pytest.mark.parametrize("config", SINGLE, indirect=True)
def test_a_migration_passes_from_source_to_destination(run: Run, config: Path) -> None:
    [nothing] = finish(run("migration.py", "destination", config, "vm"))
    assert nothing.startswith("there is nothing to finish")
    *copied, last = finish(run("migration.py", "source", config, "vm"))
    assert last == "handed over"
    with distjob.connect(config) as jobs:
        [left] = jobs.orphans()
        assert left.long is not None
        assert (left.long.phase, left.long.left) == ("finish", "detached")
    resumed, finished = finish(run("migration.py", "destination", config, "vm"))
    assert finished == "finished"
    tokens = [int(re.findall(r"token (\d+)", line)[0]) for line in [*copied, resumed]]
    assert len(tokens) == 5
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("config", ["redis"], indirect=True)
def test_the_source_dies(run: Run, config: Path) -> None:
    with distjob.connect(config) as jobs:
        dead: Client = distjob.connect(config)
        job = dead.begin_async("vm", AsyncJob.MIGRATION_OUT, on_owner_loss="orphan")
        job.set_phase("perform")
        [told] = finish(run("migration.py", "destination", config, "vm"))
        assert told.startswith("not yet: ")
        dead.close()  # as its end would be found within its TTL
        [told] = finish(run("migration.py", "destination", config, "vm"))
        assert told == "the source died in phase 'perform': cleaned up"
        assert jobs.list() == []
