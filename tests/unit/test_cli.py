"""The command line, in this process: what it prints and its exit codes. `run` and `demo` as
processes are in tests/fault."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from distjob import errors
from distjob.cli.app import cli
from distjob.cli.output import exit_code, printable
from distjob.client import connect


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "distjob.yaml"
    path.write_text(f"sqlite:\n  path: {tmp_path / 'jobs.db'}\njob:\n  wait: 5\n")
    return path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def python(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- help and errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ((), "distjob demo"),
        (("run",), "Exit code"),
        (("status",), "disturbs nobody"),
        (("config", "check"), "78"),
        (("config", "schema"), "JSON Schema"),
        (("demo",), "Nothing is left behind"),
    ],
)
def test_help_teaches(command: tuple[str, ...], word: str) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert word in " ".join(result.output.split())


def test_version() -> None:
    assert invoke("--version").output.startswith("distjob, version 0.")


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; from distjob.cli import main; main()"
    done = python(script)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr
    assert 'pip install "distjob[cli]"' in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JobTimeout("x"), 75),
        (errors.QueueFull("x"), 75),
        (errors.BackendUnavailable("x"), 75),
        (errors.OutcomeUnknown("x"), 75),
        (errors.ConfigError("x"), 78),
        (errors.BadRequest("x"), 2),
        (errors.RecordError("x"), 65),
        (errors.NotOwner("x"), 1),
    ],
)
def test_exit_codes(error: errors.DistjobError, code: int) -> None:
    assert exit_code(error) == code


def test_errors_are_one_line_without_traceback(tmp_path: Path, config: Path) -> None:
    for arguments, code in [
        (("status", "--config", tmp_path / "missing.yaml"), 78),
        (("status", "", "--config", config), 2),
        (("run", "x" * 256, "--job", "modify", "--config", config, "--", "true"), 2),
        (("run", "vm", "--job", "modify", "--wait", "-1", "--config", config, "--", "true"), 2),
    ]:
        result = invoke(*arguments)
        assert result.exit_code == code
        assert result.stderr.startswith("distjob: ")
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_store_that_cannot_be_reached(tmp_path: Path) -> None:
    config = tmp_path / "distjob.yaml"
    config.write_text(f"sqlite: {{path: {tmp_path / 'no' / 'folder' / 'jobs.db'}}}\n")
    result = invoke("run", "vm", "--job", "modify", "--config", config, "--", "true")
    assert result.exit_code in (75, 78)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [(), ("--job", "no such job"), ("--async", "backup", "--job", "modify"), ("--async", "async")],
)
def test_run_wants_one_kind_of_job(config: Path, options: tuple[str, ...]) -> None:
    assert invoke("run", "vm", *options, "--config", config, "--", "true").exit_code == 2


def test_run_wants_a_command(config: Path) -> None:
    assert invoke("run", "vm", "--job", "modify", "--config", config).exit_code == 2


def test_verbose_logs_to_stderr(config: Path) -> None:
    script = "import logging; from distjob.cli.output import log_to_stderr as l; l({}); "
    script += "logging.getLogger('distjob').info('seen'); logging.getLogger('x').debug('all')"
    seen = [python(script.format(n)) for n in range(3)]
    assert [done.stderr.count("\n") for done in seen] == [0, 1, 2]


# -- status ------------------------------------------------------------------------------------


def test_status_of_idle(config: Path) -> None:
    assert invoke("status", "--config", config).output == "nothing is under way\n"
    idle = invoke("status", "a\x1bb", "--config", config)
    assert idle.output == "nothing is under way on VM a\\x1bb\n"


def test_status_is_plain_and_stable_off_a_terminal(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distjob.lease.check_label", lambda *_: None)  # as another might write it
    with (
        connect(config) as client,
        client.begin_async("vm-1", "backup", api="nightly"),
        client.begin("vm\n2\x1b[31m", "modify", agent="query", api="evil\x07api\u202e"),
    ):
        result = invoke("status", "--config", config)
        only = invoke("status", "vm-1", "--config", config)
    assert result.exit_code == 0
    names, *lines = [line.split("\t") for line in result.output.splitlines()]
    assert names == [
        *("vm", "state", "slot", "job", "token", "seconds", "controller", "host", "pid"),
        *("session", "lets_in", "api"),
    ]
    rows = [dict(zip(names, line, strict=True)) for line in lines]
    assert [(row["vm"], row["slot"], row["job"], row["session"]) for row in rows] == [
        ("vm\\n2\\x1b[31m", "sync", "modify + agent query", "alive"),
        ("vm\\n2\\x1b[31m", "agent", "modify + agent query", "alive"),
        ("vm-1", "async", "async backup", "alive"),
    ]
    assert rows[0]["api"] == "evil\\x07api\\u202e"
    assert rows[2]["lets_in"] == "query, destroy, abort"
    assert only.output.splitlines()[0] == result.output.splitlines()[0]
    assert len(only.output.splitlines()) == 2


def test_status_shows_who_waits(config: Path) -> None:
    with (
        connect(config) as holder,
        connect(config) as waiter,
        holder.begin("vm", "modify") as lease,
    ):
        thread = threading.Thread(target=lambda: waiter.begin("vm", "query", api="look").end())
        thread.start()
        pause = threading.Event()
        while not holder.status("vm").waiters:
            pause.wait(0.005)
        seen = json.loads(invoke("status", "vm", "--json", "--config", config).output)
        plain = invoke("status", "vm", "--config", config).output.splitlines()
        lease.end()
        thread.join()
    assert [one["vm"] for one in seen] == ["vm"]
    assert seen[0]["holders"][0]["token"] == lease.token
    assert (
        seen[0]["waiters"][0] | {"job": "query", "api": "look", "alive": True}
        == (seen[0]["waiters"][0])
    )
    assert [line.split("\t")[1] for line in plain] == ["state", "holds", "waits"]


def test_status_as_json_keeps_names(config: Path) -> None:
    assert json.loads(invoke("status", "--json", "--config", config).output) == []
    with connect(config) as client, client.begin("a\nb", "modify"):
        assert json.loads(invoke("status", "--json", "--config", config).output)[0]["vm"] == "a\nb"


def test_printable() -> None:
    assert printable("vm-42 é 日本") == "vm-42 é 日本"
    assert printable("a\x00\x1b]0;x\x07\u200b") == "a\\x00\\x1b]0;x\\x07\\u200b"
    assert printable("\udc80") == "\\udc80"


# -- config ------------------------------------------------------------------------------------


def test_config_check_prints_what_is_in_force(config: Path, tmp_path: Path) -> None:
    result = invoke("config", "check", config)
    assert result.exit_code == 0
    assert "namespace: 'default'" in result.output
    assert "wait=5.0" in result.output
    assert "backend: 'sqlite'" in result.output
    assert str(tmp_path / "jobs.db") in result.output
    assert not (tmp_path / "jobs.db").exists(), "checked without --connect"


def test_config_check_reaches_the_store(config: Path, tmp_path: Path) -> None:
    result = invoke("config", "check", "--connect", config)
    assert result.exit_code == 0
    assert "reached: sqlite" in result.output
    assert "reach: host" in result.output
    assert (tmp_path / "jobs.db").exists()


def test_config_check_hides_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SECRET", "hunter2")
    path = tmp_path / "distjob.yaml"
    path.write_text('backend: redis\nredis: {url: "redis://me:${REDIS_SECRET}@localhost/0"}\n')
    result = invoke("config", "check", path)
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    assert "localhost" in result.output


def test_config_check_names_the_one_error(tmp_path: Path) -> None:
    path = tmp_path / "distjob.yaml"
    path.write_text("job:\n  wiat: 3\n")
    result = invoke("config", "check", path)
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith(f"distjob: {path}:2: job.wiat: ")
    assert result.stderr.count("\n") == 1


def test_config_schema_is_json() -> None:
    schema = json.loads(invoke("config", "schema").output)
    assert {"namespace", "job", "session", "backend", "sqlite"} <= set(schema["properties"])
