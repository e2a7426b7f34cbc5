"""`distjob demo` as a process: what it promises to show, and that it cleans up."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distjob import clock
from distjob.sharded import connect
from ends import started

DEMO = (sys.executable, "-c", "from distjob.cli import main; main()", "demo")


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def nothing_left(folder: Path, before: set[str]) -> None:
    assert {entry.name for entry in folder.iterdir()} == before
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                arguments = (process / "cmdline").read_bytes()
            except OSError:
                continue
            assert str(folder).encode() not in arguments, "a controller of the demo still runs"


def test_demo_shows_and_checks_what_it_promises(tmp_path: Path) -> None:
    begun = clock.monotonic()
    done = subprocess.run(
        DEMO, capture_output=True, text=True, env=environment(tmp_path), timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert clock.monotonic() - begun < 40
    for fact in (
        r"ctl-b +wants modify, waits for ctl-a's modify",
        r"ctl-a was killed",
        r"ctl-c was stopped",
        r"ctl-c +is refused: StaleToken: token \d+",
        r"ctl-c +sees that its lease, token \d+, is lost",
        r"ctl-a +holds async migration out, token \d+",
        r"ctl-b +holds query, token \d+",
        r"ctl-b +is refused: JobTimeout: cannot acquire state change lock \(held by monitor=",
        r"ctl-a +holds nested step of migration out, token \d+",
        r"ctl-a +lets in query, modify from now on",
        r"ok +nothing of this is left in the store",
    ):
        assert re.search(fact, done.stdout), fact
    assert "FAILED" not in done.stdout
    assert "\x1b" not in done.stdout, "colours are for terminals"
    assert len(re.findall(r"^ok ", done.stdout, re.MULTILINE)) == 13
    nothing_left(tmp_path, set())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    config = tmp_path / "distjob.yaml"
    config.write_text(f"sqlite: {{path: {tmp_path / 'jobs.db'}}}\n")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with started(
        [*DEMO, "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(temporary),
    ) as demo:
        assert demo.stdout is not None
        line = demo.stdout.readline()
        while line and "was killed" not in line:
            line = demo.stdout.readline()
        assert line, "the demo ended early"
        demo.send_signal(number)
        _, err = demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert "Traceback" not in err
    nothing_left(temporary, set())
    with connect(config) as client:
        assert client.list() == []


def test_demo_with_settings_that_are_wrong(tmp_path: Path) -> None:
    config = tmp_path / "distjob.yaml"
    config.write_text("nonsense: 1\n")
    done = subprocess.run(
        [*DEMO, "--config", str(config)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.count("\n") == 1
