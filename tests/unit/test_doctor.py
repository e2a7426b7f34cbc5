"""`distjob doctor`: what it says of a good store, of a bad one, and of none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from distjob.cli.app import cli
from distjob.config import load, open_backend


def doctor(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["doctor", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "jobs"
    folder.mkdir(mode=0o750)
    return folder


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> Path:
    file = tmp_path / "distjob.yaml"
    file.write_text(f"sqlite: {{path: {folder / 'jobs.db'}}}\n")
    return file


def test_a_good_store(config: Path) -> None:
    result = doctor("--config", config, "--strict")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    for said in ("round trip", "clients of this host", "began a job", "let in", "SQLite"):
        assert said in result.stdout


def test_it_leaves_nothing_behind(config: Path) -> None:
    doctor("--config", config)
    store = open_backend(load(config))
    assert list(store.scan()) == []
    store.close()


def test_as_json(config: Path) -> None:
    found = json.loads(doctor("--config", config, "--json").stdout)["findings"]
    assert {finding["level"] for finding in found} == {"ok"}
    assert all(finding["what"] for finding in found)


def test_a_dangerous_one(config: Path, folder: Path) -> None:
    folder.chmod(0o777)
    result = doctor("--config", config)
    assert result.exit_code == 1
    assert f"DANGER  {folder} can be written to by everybody" in result.stdout
    assert "-> chmod o-w" in result.stdout


def test_one_that_cannot_be_used(config: Path, folder: Path) -> None:
    (folder / "jobs.db").write_text("this is no database, but something that somebody wrote")
    result = doctor("--config", config)
    assert result.exit_code == 78
    assert "DANGER" in result.stdout


def test_a_wrong_settings_file(config: Path) -> None:
    config.write_text("sqlite: {pth: x}\n")
    result = doctor("--config", config)
    assert result.exit_code == 78
    assert "did you mean 'path'" in result.stderr
