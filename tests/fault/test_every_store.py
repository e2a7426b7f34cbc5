"""The commands, on every real store: what a newcomer would try first with a settings file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from distjob.config import load, open_backend


def distjob(*words: str | Path) -> subprocess.CompletedProcess[str]:
    script = "from distjob.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def left(config: Path) -> list[str]:
    store = open_backend(load(config))
    try:
        return [vm for vm, _ in store.scan()]
    finally:
        store.close()


def test_the_demo(config: Path) -> None:
    done = distjob("demo", "--config", config)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "FAILED" not in done.stdout
    assert len(re.findall(r"^ok ", done.stdout, re.MULTILINE)) == 13
    assert left(config) == []


def test_the_doctor(config: Path) -> None:
    done = distjob("doctor", "--config", config)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(r"^ok +began a job in [\d.]+ ms, ended it in", done.stdout, re.MULTILINE)
    assert re.search(r"^ok +who waited was let in [\d.]+ ms after that", done.stdout, re.MULTILINE)
    assert left(config) == []


def test_the_check(config: Path) -> None:
    done = distjob("config", "check", str(config), "--connect")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    promised = load(config).backend
    assert f"reached {promised}" in done.stdout
