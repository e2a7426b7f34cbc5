"""What a forge would run: files that can be read, and only words that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORDS = re.findall(r"^([a-z]+):.*  ## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def _read(file: Path) -> dict[Any, Any]:
    found = yaml.safe_load(file.read_text())
    assert isinstance(found, dict)
    return found


def _commands(workflow: dict[Any, Any]) -> list[str]:
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    return [step["run"] for step in steps if "run" in step]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_each_step_is_a_word_of_ours(file: Path) -> None:
    workflow = _read(file)
    assert {"name", True, "permissions", "jobs"} <= workflow.keys()  # YAML 1.1 reads "on" as true
    for command in _commands(workflow):
        word = re.fullmatch(r"make ([a-z]+)( [A-Z]+=\S.*)?|\.ci/run", command)
        assert word, command
        assert word[1] is None or word[1] in WORDS, command
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("run" in step) != bool(re.fullmatch(r"[\w/-]+@[\w./]+", step.get("uses", "")))


def test_a_change_runs_all_that_a_contributor_would() -> None:
    commands = _commands(_read(ROOT / ".github" / "workflows" / "test.yml"))
    wanted = {f"make {word}" for word in ("venv", "lint", "types", "docs", "fast", "matrix")}
    assert wanted | {".ci/run"} == set(commands)


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_forms_ask_for_something(file: Path) -> None:
    form = _read(file)
    if file.stem == "config":
        assert form.keys() == {"blank_issues_enabled"}
        return
    assert form["name"]
    assert form["description"]
    for question in form["body"]:
        assert question["type"] in ("textarea", "input", "markdown", "dropdown", "checkboxes")
        assert question["attributes"]["label"]
