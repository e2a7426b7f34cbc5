"""The operator's day: options anywhere, words as people type them, what fits the screen, JSON for
scripts, a hold on a VM, a disk that is full."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import distjob
from distjob import errors
from distjob.cli.app import cli
from distjob.cli.data import DoctorData, StatusData, schema_of
from distjob.cli.show import COLUMNS, show
from distjob.cli.table import Screenful, table
from distjob.client import Client
from distjob.config import load
from distjob.config.paste import as_yaml
from distjob.rules.jobs import AsyncJob
from distjob.sharded import connect

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "distjob.yaml"
    path.write_text(f"sqlite:\n  path: {tmp_path / 'jobs.db'}\njob:\n  wait: 5\n")
    return path


@pytest.fixture
def client(config: Path) -> Iterator[Client]:
    with connect(config) as made:
        yield made


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def process(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distjob", *map(str, words)]
    return subprocess.run(command, text=True, check=False, timeout=60, **more)


# -- what is imported ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "unneeded"),
    [
        (("-c", "import distjob"), {"msgspec", "yaml", "importlib.metadata", "asyncio", "logging"}),
        (("-c", "import distjob.fencing"), {"yaml", "importlib.metadata", "asyncio"}),
        (("-c", "from distjob import connect"), {"yaml", "importlib.metadata", "asyncio"}),
        (("-m", "distjob", "--help"), {"msgspec", "yaml", "rich", "importlib.metadata", "asyncio"}),
    ],
)
def test_what_is_not_needed_is_not_imported(words: tuple[str, ...], unneeded: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True
    )
    found = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert found & unneeded == set()


def test_every_public_name_is_found_when_it_is_asked_for() -> None:
    script = "import distjob\nfor name in distjob.__all__: assert getattr(distjob, name), name\n"
    script += "assert set(distjob.__all__) <= set(dir(distjob)); distjob.nothing"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "module 'distjob' has no attribute 'nothing'" in done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    assert process("--version", capture_output=True).stdout == (
        f"distjob, version {distjob.__version__}\n"
    )


# -- options ---------------------------------------------------------------------------------------


def test_options_stand_before_or_behind_the_subcommand(config: Path, client: Client) -> None:
    with client.begin("vm-1", "modify"):
        for words in (
            ("--config", config, "status"),
            ("status", "--config", config),
            ("--config", config.parent / "missing.yaml", "status", "--config", config),
            ("-v", "--config", config, "status", "-v"),
            ("--store", f"sqlite://{config.parent}/jobs.db", "status"),
            ("status", "--store", f"sqlite://{config.parent}/jobs.db"),
        ):
            result = invoke(*words)
            assert (result.exit_code, "vm-1" in result.stdout) == (0, True), (words, result.output)
    told = invoke("--config", config, "config", "path").output
    assert f"configuration: {config}\n  --config says so\n" in told
    told = invoke("config", "--config", config, "path").output
    assert f"configuration: {config}\n" in told


def test_verbose_behind_the_subcommand(config: Path) -> None:
    words = ("run", "vm", "--job", "modify", "--config", config)
    quiet, loud = (
        process(*words, *more, "--", "true", capture_output=True) for more in ((), ("-vv",))
    )
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert (loud.returncode, "DEBUG" in loud.stderr) == (0, True)


def test_a_url_and_a_file_are_two_configurations(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite://{config.parent}/other.db"
    result = invoke("--config", config, "status", "--store", url)
    assert result.exit_code == 2
    assert "give --config or --store" in result.stderr
    monkeypatch.setenv("DISTJOB_CONFIG", str(config))
    told = invoke("config", "path", "--store", url).output
    assert "other.db" in told
    assert "--store says so" in told
    assert "DISTJOB_CONFIG says so" in invoke("config", "path").output


def test_a_command_that_is_run_keeps_its_own_options(config: Path) -> None:
    """Without the `--` distjob would take some of them for its own."""
    for command in (("run", "vm", "--job", "modify"), ("adopt", "vm", "backup")):
        result = invoke("--config", config, *command, "rsync", "-v", "a", "b")
        assert result.exit_code == 2
        assert "put -- before the command" in result.stderr


@pytest.mark.parametrize(
    ("said", "seconds"), [("0", 0), ("5", 5), ("5s", 5), ("1h30m", 5400), ("250ms", 0.25)]
)
def test_times_as_people_write_them(said: str, seconds: float) -> None:
    run = cli.get_command(None, "run")  # type: ignore[arg-type]
    assert run is not None
    words = ["vm", "--job", "modify", "--wait", said, "--", "true"]
    with run.make_context("run", words) as context:
        assert context.params["wait"] == seconds


@pytest.mark.parametrize("said", ["soon", "5 apples", "", "5x", "s"])
def test_what_is_no_time(said: str) -> None:
    result = invoke("run", "vm", "--job", "modify", "--wait", said, "--", "true")
    assert result.exit_code == 2
    assert "is no time: 5, 5s, 2m and 1h30m are" in result.stderr


@pytest.mark.parametrize("said", ["migration-out", "migration_out", "Migration Out", "MIGRATION"])
def test_words_as_people_type_them(config: Path, said: str) -> None:
    result = invoke("--config", config, "adopt", "vm", said, "--", "true")
    if said == "MIGRATION":
        assert result.exit_code == 2
        assert "did you mean 'migration" in result.stderr
    else:
        assert result.exit_code == 1
        assert "there is nothing to adopt" in result.stderr


def test_an_unknown_subcommand_is_told_its_like() -> None:
    result = invoke("statsu")
    assert result.exit_code == 2
    assert "no such command: 'statsu'; did you mean 'status'?" in result.stderr


def test_short_helps_are_whole() -> None:
    listed = invoke("--help").output.partition("Commands:")[2]
    assert "..." not in listed
    assert "..." not in invoke("config", "--help").output.partition("Commands:")[2]
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        assert invoke(name, "--help").exit_code == 0, name


# -- abort -----------------------------------------------------------------------------------------


def test_abort_of_no_async_job_waits_for_nobody(config: Path, client: Client) -> None:
    with client.begin("vm", "modify") as lease:
        result = invoke("abort", "vm", "--wait", "0", "--config", config)
        lease.check()
    assert result.exit_code == 1
    assert "no async job runs" in result.stderr


# -- columns, filters, order -----------------------------------------------------------------------


def test_columns_are_chosen(config: Path, client: Client) -> None:
    with client.begin("vm-1", "modify") as lease:
        words = ("--columns", "vm,token", "--config", config)
        assert invoke("status", *words).output == f"vm\ttoken\nvm-1\t{lease.token}\n"
        assert invoke("ls", "--no-header", *words).output == f"vm-1\t{lease.token}\n"
        wrong = invoke("ls", "--columns", "vm,tokn", "--config", config)
        assert wrong.exit_code == 2
        assert "no column 'tokn'; did you mean 'token'?" in wrong.stderr
        assert all(name in wrong.stderr for name in COLUMNS)


def test_columns_are_lines_on_a_terminal_too(
    config: Path, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with client.begin("vm-1", "modify"):
        found = client.list()
        show(found, ["vm", "job"])
        assert capsys.readouterr().out == "vm\tjob\nvm-1\tmodify\n"
        show(found)
        assert "\t" not in capsys.readouterr().out


def test_ls_filters_and_sorts(config: Path, tmp_path: Path, client: Client) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(config.read_text() + "controller: other\n")

    def names(*words: object) -> list[str]:
        out = invoke("ls", "--no-header", "--columns", "vm,state", *words, "--config", config)
        return [line.partition("\t")[0] for line in out.output.splitlines() if "holds" in line]

    with connect(other) as second:
        client.begin("vm-3", "modify")
        second.begin("vm-1", "modify")
        client.begin_async("vm-2", "backup", on_owner_loss="orphan").detach()
        assert names() == ["vm-1", "vm-2", "vm-3"]
        assert names("--controller", "other") == ["vm-1"]
        assert names("--orphans") == ["vm-2"]
        assert names("--sort", "age") == ["vm-3", "vm-1", "vm-2"]
        assert names("--older-than", "1h") == []
        assert names("--waiting") == []
        assert set(names("--older-than", "0")) == {"vm-1", "vm-2", "vm-3"}
    none = invoke("ls", "--waiting", "--config", config).output
    assert none == "nothing that is under way is like that\n"


def test_ls_takes_vms(config: Path, client: Client) -> None:
    client.begin("vm-1", "modify")
    client.begin("vm-2", "modify")
    words = ("--no-header", "--columns", "vm", "--config", config)
    assert invoke("ls", "vm-2", "idle", *words).output == "vm-2\n"
    assert invoke("ls", "idle", *words).output == "nothing that is under way is like that\n"


def test_an_argument_is_called_by_its_name() -> None:
    result = invoke("adopt", "vm", "frob", "--", "true")
    assert result.exit_code == 2
    assert "Invalid value for 'KIND': 'frob' is none of migration out, " in result.stderr


def test_what_is_broken_is_said_once(config: Path, client: Client) -> None:
    for more, count in (((), 0), (("-v",), 1)):
        client.begin("vm", "modify")
        words = ("evict", "vm", "--all", "--yes", "--config", config, *more)
        done = process(*words, capture_output=True)
        assert done.returncode == 0
        assert done.stdout.count("broken: ") == 1
        assert done.stderr.count("was taken out by force") == count


SAYS = """
import logging, sys
from distjob.cli.output import log_to_stderr, mute_stores
log_to_stderr({verbose})
mute_stores()
for name in "distjob", "distjob.redis":
    logging.getLogger(name).warning("a warning of %s", name)
    logging.getLogger(name).error("an error of %s", name)
"""


@pytest.mark.parametrize(("verbose", "count"), [(0, 3), (1, 4)])
def test_who_only_looks_is_not_told_how_a_server_could_be_better(verbose: int, count: int) -> None:
    command = [sys.executable, "-c", SAYS.format(verbose=verbose)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == count
    assert ("a warning of distjob.redis" in done.stderr) == bool(verbose)


# -- the table -------------------------------------------------------------------------------------


def _row(vm: str, **facts: str) -> dict[str, str]:
    return dict.fromkeys(COLUMNS, "-") | {"vm": vm, "slot": "sync", "job": "modify"} | facts


def _drawn(what: Any, width: int, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(what, height=height)
    return console.export_text().splitlines()


@pytest.mark.parametrize("count", [0, 1, 22, 23, 24, 60, 5000])
@pytest.mark.parametrize("trouble", ["", "the store is away " * 10])
def test_the_screen_says_what_it_leaves_out(count: int, trouble: str) -> None:
    screen = Screenful()
    rows = [_row(f"vm-{number}", phase="copying") for number in range(count)]
    rows[:1] = [_row("vm-0", phase="copying", progress="1/2", lets_in="query")][:count]
    screen.rows, screen.trouble = rows, trouble
    drawn = [line for line in _drawn(screen, 80) if line.strip()]
    assert len(drawn) <= 24
    shown = sum("vm-" in line for line in drawn)
    assert sum("phase copying" in line for line in drawn) == shown, "a job is shown whole"
    if shown < count:
        assert drawn[-1].startswith(f"{count - shown} more: ")
        assert len(drawn) >= 23, "a job that would have fitted is left out"
    assert not trouble or sum("the store is away" in line for line in drawn) >= 2


@pytest.mark.parametrize("width", [40, 80, 140, 200])
def test_names_of_vms_are_whole(width: int) -> None:
    name = "web-frontend-prod-01.example"
    facts = {"controller": "controller-of-the-east", "host": "host-17.example", "token": "9" * 16}
    drawn = "\n".join(_drawn(table([_row(name, **facts)], width), width))
    if width > 40:
        assert name in drawn
    else:
        assert name in re.sub(r" +.*\n", "", drawn.partition("\n")[2]).replace(" ", "")
    assert "…" not in drawn


# -- JSON ------------------------------------------------------------------------------------------


def test_json_is_of_its_schema(config: Path, client: Client) -> None:
    long = client.begin_async("vm-1", "backup", on_owner_loss="orphan")
    long.set_progress(3, 12, "GiB")
    client.abort("vm-1", reason="full")
    agent = client.begin_agent("vm-2", "query")
    text = invoke("status", "--json", "--config", config).output
    read = msgspec.json.decode(text, type=StatusData)
    assert msgspec.to_builtins(read) == json.loads(text)
    assert read.format_version == "1.0"
    [first, second] = read.vms
    assert (first.holders[0].slot, first.mask) == ("async", ["query", "destroy", "abort"])
    assert (second.holders[0].phase, second.holders[0].progress) == (None, None)
    assert round(second.holders[0].seconds, 3) == second.holders[0].seconds
    lines = invoke("ls", "--json", "--config", config).output
    assert [vm["vm"] for vm in json.loads(lines)["vms"]] == ["vm-1", "vm-2"]
    found = msgspec.json.decode(
        invoke("doctor", "--json", "--config", config).output, type=DoctorData
    )
    assert {one.level for one in found.findings} == {"ok"}
    assert found.findings[0].advice is None
    agent.end()


def test_schemas_name_what_is_printed(config: Path, client: Client) -> None:
    with client.begin("vm", "modify"):
        data = json.loads(invoke("status", "--json", "--config", config).output)
    schema = json.loads(invoke("schema", "status").output)
    assert schema == schema_of("status")
    assert set(schema["$defs"]["VMData"]["properties"]) == set(data["vms"][0])
    assert set(schema["$defs"]["JobData"]["properties"]) == set(data["vms"][0]["holders"][0])
    settings = json.loads(invoke("schema", "settings").output)
    assert settings == json.loads(invoke("config", "schema").output)
    assert "findings" in invoke("schema", "doctor").output


# -- shells and pages ------------------------------------------------------------------------------


def _completed(words: str, **more: str) -> list[str]:
    environment = os.environ | more
    environment |= {"_DISTJOB_COMPLETE": "bash_complete", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(words.count(" "))
    done = process(capture_output=True, env=environment)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_shells_complete(config: Path, client: Client) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_DISTJOB_COMPLETE" in invoke("completion", shell).output
    assert _completed("distjob d") == ["discard", "doctor", "demo"]
    assert "migration-out" in _completed("distjob run vm --async m")
    client.begin("web-1", "modify")
    client.begin("db-1", "modify")
    assert _completed("distjob status w", DISTJOB_CONFIG=str(config)) == ["web-1"]
    assert _completed(f"distjob evict --config {config} d") == ["db-1"]
    assert _completed("distjob status w", DISTJOB_CONFIG=f"{config}.missing") == []
    config.write_text(config.read_text() + "controller: $NAME\n")  # which is a warning
    assert _completed("distjob ls web-1 d", DISTJOB_CONFIG=str(config)) == ["db-1"]


# -- a full disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--help",), ("status",), ("config", "backends")])
def test_a_full_stdout_is_told(config: Path, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        environment = os.environ | {"DISTJOB_CONFIG": str(config)}
        done = process(*words, stdout=full, stderr=subprocess.PIPE, env=environment)
    assert done.stderr == "distjob: stdout can't be written: No space left on device\n"
    assert done.returncode == 74


# -- hold ------------------------------------------------------------------------------------------


def test_a_hold_keeps_jobs_off_until_it_is_discarded(config: Path, client: Client) -> None:
    made = invoke("hold", "vm", "--reason", "new disk", "--until", "2h", "--config", config)
    assert made.exit_code == 0
    assert "distjob discard vm" in made.output
    with pytest.raises(errors.JobTimeout, match=r"held by .*new disk; until \d{4}-"):
        client.begin("vm", "modify", wait=0)
    client.begin("vm", "query").end()
    client.begin_agent("vm", "query").end()
    assert invoke("ls", "--orphans", "--config", config).output == (
        "no async job is without an owner\n"
    )
    shown = invoke("ls", "--held", "--columns", "vm,job,left,phase", "--config", config).output
    [line] = shown.splitlines()[1:]
    assert line.startswith("vm\tasync maintenance\theld by a person\tnew disk; until ")
    again = invoke("hold", "vm", "--reason", "mine", "--config", config)
    assert again.exit_code == 1
    assert "is held already: held by " in again.stderr
    assert invoke("discard", "vm", "--config", config).exit_code == 0
    client.begin("vm", "modify", wait=0).end()


def test_a_hold_waits_for_the_job_that_runs(config: Path, client: Client) -> None:
    with client.begin("vm", "modify"):
        words = ("hold", "vm", "--reason", "new disk", "--wait", "0", "--config", config)
        assert invoke(*words).exit_code == 75
    assert client.status("vm").idle


def test_a_hold_that_can_not_say_why_is_none(
    config: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise errors.BackendUnavailable("away")

    monkeypatch.setattr("distjob.lease.AsyncJobLease.allow", refuse)
    assert invoke("hold", "vm", "--reason", "new disk", "--config", config).exit_code == 75
    assert client.status("vm").idle


def test_a_hold_that_may_have_stayed_is_told(
    config: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise errors.OutcomeUnknown("away")

    monkeypatch.setattr("distjob.lease.AsyncJobLease.allow", refuse)
    monkeypatch.setattr("distjob.lease.AsyncJobLease.end", refuse)
    result = invoke("hold", "vm", "--reason", "new disk", "--config", config)
    assert result.exit_code == 75
    assert "away; if a hold without a reason stays: distjob discard vm" in result.stderr
    assert invoke("discard", "vm", "--config", config).exit_code == 0
    assert client.status("vm").idle


@pytest.mark.parametrize("until", ["yesterday", "2020-01-01", "25:00", "0"])
def test_a_hold_ends_in_time_to_come(config: Path, until: str) -> None:
    words = ("hold", "vm", "--reason", "x", "--until", until, "--config", config)
    assert invoke(*words).exit_code == 2


def test_moments_as_people_write_them(config: Path) -> None:
    hold = cli.get_command(None, "hold")  # type: ignore[arg-type]
    assert hold is not None
    now = datetime.now().astimezone()
    for said, low, high in (
        ("2h", timedelta(hours=2), timedelta(hours=2, minutes=1)),
        (f"{now + timedelta(days=2):%Y-%m-%d}", timedelta(days=1), timedelta(days=2)),
        (f"{now - timedelta(minutes=5):%H:%M}", timedelta(hours=22), timedelta(hours=25)),
    ):
        with hold.make_context("hold", ["vm", "--reason", "x", "--until", said]) as context:
            assert low <= context.params["until"] - now <= high, said


def test_maintenance_is_a_type_of_job_like_others(client: Client) -> None:
    with client.begin_async("vm", AsyncJob.MAINTENANCE) as lease:
        assert lease.job == "async maintenance"


# -- config ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    sorted((ROOT / "deploy").rglob("*distjob.yaml")),
    ids=lambda file: f"{file.parent.name}-{file.name}",
)
def test_config_check_prints_what_means_the_same(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in re.findall(r"\$\{(\w+)\}", file.read_text()):
        monkeypatch.setenv(name, "10")
    text = re.sub(r"^(\s*)\w+_file: .*\n", "", file.read_text(), flags=re.MULTILINE)
    plain = tmp_path / "plain.yaml"
    plain.write_text(text)
    result = invoke("config", "check", plain)
    assert result.exit_code == 0, result.output
    again = tmp_path / "again.yaml"
    again.write_text(result.output)
    assert load(again) == load(plain)


def test_secrets_are_left_out_of_what_is_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASS", "hunter2")
    (tmp_path / "word").write_text("hunter3")
    base = {"backend": "redis", "redis": {}}
    for url, shown in (
        ("redis://me:hunter1@h/0", 'url: "redis://me:***@h/0"  # put back what *** stands for'),
        ("redis://me:${PASS}@h/0", 'url: "redis://me:${PASS}@h/0"'),
    ):
        told = as_yaml(load(base | {"redis": {"url": url}}))
        assert shown in told
        assert "hunter" not in told
    told = as_yaml(
        load(
            {
                "backend": "etcd",
                "etcd": {"user": "me", "password_file": str(tmp_path / "word")},
            }
        )
    )
    assert "  # password: ***  # a secret, or from a file: put it back" in told
    assert "hunter" not in told


def test_config_check_without_a_file_checks_what_is_in_force(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTJOB_CONFIG", str(config))
    told = invoke("config", "check").output
    assert told.startswith(f"# checked: {config}\n")
    assert str(tmp_path / "jobs.db") in told


def test_the_table_of_promises_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from distjob.cli import table as drawing
    from distjob.config.promises import cells

    rows = cells()
    for width in (80, 140, 300):
        console = Console(width=width, record=True, file=io.StringIO())
        monkeypatch.setattr(drawing, "Console", lambda console=console: console)
        drawing.turned(rows)
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        for name, *_ in rows[1:]:
            assert name.split()[0].strip("`") in text
    assert invoke("config", "backends").output.startswith("| store |")


# -- manual pages ----------------------------------------------------------------------------------


def test_every_command_has_a_manual_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distjob.cli.manual", str(tmp_path / "man1")]
    subprocess.run(command, check=True, timeout=60)
    written = {file.name: file.read_text() for file in (tmp_path / "man1").iterdir()}
    names = {f"distjob-{name}.1" for name in cli.list_commands(None)}  # type: ignore[arg-type]
    assert names | {"distjob.1", "distjob-config-check.1"} <= set(written)
    for name, text in written.items():
        assert text.startswith(f'.TH "{name.removesuffix(".1").upper()}" "1"'), name
        for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"):
            assert f".SH {heading}\n" in text, name
        unknown = [
            line
            for line in text.splitlines()
            if line.startswith((".", "'")) and not re.match(r"\.(TH|SH|PP|TP|B|nf|fi)\b", line)
        ]
        assert unknown == [], name
    assert r"\-\-until" in written["distjob-hold.1"]
    assert r"distjob discard vm\-42" in written["distjob-hold.1"]
