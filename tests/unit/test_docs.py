"""README and docs say what is so: examples run, settings load, commands parse, links lead on.

Every fence must be of a kind that is checked here, or ``text`` or ``toml``: an example that nobody
runs soon tells of a distjob that is no more.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import click
import pytest

from distjob import Client, fencing
from distjob.cli.app import cli
from distjob.config import load
from distjob.config.promises import table
from distjob.testing.memory import MemoryServer, MemoryStore
from servers import libvirt_here

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [
    *(README, CONTRIBUTING, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
KINDS = {"python", "yaml", "console", "sh", "text", "toml", "json"}
SITES = {"{toctree}"}  # what test_site.py builds
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_PATH = re.compile(r"`((?:\.ci|backends|deploy|distjob|docs|tests)/[\w./-]+)`")
DEMO = "python3 -m venv .venv && .venv/bin/pip install -q '.[cli]' && .venv/bin/distjob demo"
TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/python -m pytest"
)


class Block(NamedTuple):
    page: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for found in _FENCE.finditer(text):
            yield Block(page, text.count("\n", 0, found.start()) + 2, found[1], found[2])


BLOCKS = list(_blocks())
_INDENTED = [
    Block(page, number, "console", "$ " + line.strip().removeprefix("$ "))
    for page in PAGES
    for number, line in enumerate(_FENCE.sub("", page.read_text()).splitlines(), 1)
    if re.match(r"(?: {4}|\t)(?:\$ )?(?:distjob|python3?) ", line)
]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _of(*kinds: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind in kinds]


def _commands(block: Block) -> Iterator[str]:
    """A console's lines after "$ ", a script's that are no comments; "\\" at the end continues."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.kind == "console":
        yield from (line[2:] for line in lines if line.startswith("$ "))
    else:
        yield from (line for line in lines if line.strip() and not line.lstrip().startswith("#"))


COMMANDS = [
    pytest.param(words, id=f"{block}: {shlex.join(words)}")
    for block in [*_of("console", "sh"), *_INDENTED]
    for command in _commands(block)
    for part in re.split(r"&&|\|\||[;|]", command)
    if (words := shlex.split(re.sub(r"\s\d?[<>].*", "", part), comments=True))
]
OURS = [one for one in COMMANDS if Path(one.values[0][0]).name == "distjob"]
MODULES = [
    one for one in COMMANDS if one.values[0][1:2] == ["-m"] and "distjob" in one.values[0][2]
]


def test_pages_are_found() -> None:
    assert len(PAGES) >= 8
    assert len(BLOCKS) > 10
    assert OURS
    assert MODULES


def test_the_tables_of_guarantees_are_made_of_the_data() -> None:
    assert table() in (ROOT / "docs" / "reference" / "backends.md").read_text()
    assert table(short=True) in README.read_text()


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150
    assert len(CONTRIBUTING.read_text().splitlines()) <= 100


def test_the_makefile_has_a_word_for_each() -> None:
    makefile = (ROOT / "Makefile").read_text()
    words = re.findall(r"^([a-z]+):.*  ## ", makefile, re.MULTILINE)
    wanted = "help venv lint types fast test docs links bench worlds explore history matrix package"
    assert words == wanted.split()
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z]+)", page.read_text())) <= set(words), page


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_kind_that_is_checked(block: Block) -> None:
    assert block.kind in KINDS | SITES


@pytest.mark.parametrize("page", sorted({block.page for block in _of("python")}), ids=_name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fencing, "IN_MEMORY", frozenset())  # where this folder may be
    settings = "{namespace: docs, job: {wait: 5}, sqlite: {path: %s}}"
    Path("distjob.yaml").write_text(settings % (tmp_path / "jobs.db"))
    names: dict[str, Any] = {"__name__": "docs"}
    blocks = [block for block in _of("python") if block.page == page]
    if any("import libvirt\n" in block.text for block in blocks):
        libvirt_here()
    for block in blocks:
        code = "\n" * (block.line - 1) + block.text  # so that a traceback names the right line
        exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize("block", _of("yaml"), ids=str)
def test_yaml_blocks_load(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = block.text
    for number, path in enumerate(re.findall(r"_file: *\"?(/[^\s,}\"]+)", text)):
        there = tmp_path / f"secret{number}"
        there.write_text("redis://localhost:6379/0\n")
        text = text.replace(path, str(there))
    for name in re.findall(r"\$\{(\w+)\}", text):
        monkeypatch.setenv(name, "10")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name in re.findall(r"_file: \"\$\{CREDENTIALS_DIRECTORY\}/([\w-]+)\"", text):
        (tmp_path / name).write_text("redis://localhost:6379/0\n")
    file = tmp_path / "distjob.yaml"
    file.write_text(text)
    assert load(file).section is not None


@pytest.mark.parametrize("words", OURS)
def test_commands_of_distjob_parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTJOB_VM", "vm")  # as `distjob run` does
    monkeypatch.setenv("DISTJOB_FENCE", "sync:sync=1,agent=1,async=1")
    _parse(cli, words[0], words[1:])


def _parse(command: click.Command, name: str, words: list[str]) -> None:
    """As click does, subcommand after subcommand, without running any."""
    try:
        context = command.make_context(name, list(words))
    except click.exceptions.Exit as done:  # --help, --version
        if done.exit_code:
            raise
        return
    with context:
        if isinstance(command, click.Group):
            rest = [*getattr(context, "_protected_args", ()), *context.args]
            assert rest, f"{shlex.join([name, *words])} names no subcommand"
            _, inner, left = command.resolve_command(context, rest)
            assert inner is not None
            _parse(inner, rest[0], left)


@pytest.mark.parametrize("words", MODULES)
def test_commands_of_modules_exist(words: list[str]) -> None:
    module = words[2]
    command = [sys.executable, "-m", module, "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    for word in words[3:]:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word.partition('=')[0])}\b", told), word
        elif "/" in word and ":" not in word:
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text())
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not heading or heading in _headings(target), link


def _headings(page: Path) -> set[str]:
    """The anchors that forges make of them."""
    text = _FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_that_are_named_exist(page: Path) -> None:
    missing = [name for name in _PATH.findall(page.read_text()) if not (ROOT / name).exists()]
    assert missing == []


def test_the_files_of_a_begin_are_those_it_passes_through() -> None:
    """In the order in which each is first called, the memory store standing for a backend."""
    section = CONTRIBUTING.read_text().partition("## The files of a begin")[2]
    found = _FENCE.search(section)
    assert found
    told = [line.split()[0] for line in found[2].splitlines()]
    called: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            called[frame.f_code.co_filename] = None

    with Client(MemoryStore(MemoryServer())) as jobs:
        sys.setprofile(note)
        try:
            lease = jobs.begin("vm-42", "modify")
        finally:
            sys.setprofile(None)
        lease.end()
    passed = [
        name.removeprefix(f"{ROOT}/") for name in called if name.startswith(f"{ROOT}/distjob/")
    ]
    below = ("distjob/backend/", "distjob/testing/")
    assert told == list(
        dict.fromkeys("distjob/store.py" if name.startswith(below) else name for name in passed)
    )


def test_the_map_names_what_there_is() -> None:
    section = README.read_text().partition("## Map")[2]
    found = _FENCE.search(section)
    assert found
    named = [line.split()[0] for line in found[2].splitlines()]
    assert [name for name in named if not (ROOT / name).exists()] == []
    top = {path.name for path in (ROOT / "distjob").iterdir()} - {"__init__.py", "py.typed"}
    known = {Path(name).name for name in re.findall(r"[\w./]+", found[2])}
    assert [name for name in top - known if not name.startswith("__")] == []


@pytest.mark.parametrize("command", [DEMO, TESTS])
def test_the_two_commands_stand_on_a_line_each(command: str) -> None:
    lines = [line for block in _of("sh") if block.page == README for line in _commands(block)]
    assert lines.count(command) == 1


def test_ci_runs_the_readmes_commands() -> None:
    run = [str(ROOT / ".ci" / "run"), "show"]
    told = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.splitlines() == [DEMO, TESTS]
    assert os.access(run[0], os.X_OK)


def test_the_drawings_are_as_the_code_says() -> None:
    """Made anew by ``python docs/drawings.py``."""
    drawings = runpy.run_path(str(ROOT / "docs" / "drawings.py"))["DRAWINGS"]
    page = (ROOT / "docs" / "explanation" / "drawings.md").read_text()
    for name, draw in drawings.items():
        file = ROOT / "docs" / "images" / f"{name}.svg"
        assert file.read_text() == str(draw())
        ElementTree.fromstring(file.read_text())
        assert f"](../images/{name}.svg)" in page
