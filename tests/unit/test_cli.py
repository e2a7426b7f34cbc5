"""The command line, in this process: what it prints and its exit codes. `run` and `demo` as
processes are in tests/fault."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from distjob import errors
from distjob.cli.app import cli
from distjob.cli.output import exit_code, printable
from distjob.cli.show import COLUMNS, rows_of
from distjob.cli.table import table
from distjob.client import Client
from distjob.sharded import connect
from ends import started


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
        ((), "root's is /var/lib/distjob/jobs.db, anybody else's $XDG_STATE_HOME/distjob/jobs.db"),
        (("run",), "Exit code"),
        (("status",), "disturbs nobody"),
        (("ls",), "until Ctrl-C"),
        (("abort",), "The first request stands"),
        (("adopt",), "detached again"),
        (("discard",), "its owner lives"),
        (("evict",), "stop it first if you can"),
        (("guard",), "on a local disk of the host that makes the changes"),
        (("guard", "admit"), "Anything else: not admitted, change nothing"),
        (("guard", "forget"), "whoever comes first is admitted"),
        (("config", "check"), "78"),
        (("config", "path"), "Connects to nothing and makes nothing"),
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


@pytest.mark.parametrize(("missing", "word"), [("click", "--help"), ("rich", "demo")])
def test_without_the_extra(missing: str, word: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = [{word!r}]; "
    script += "from distjob.cli import main; main()"
    done = python(script)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert missing in done.stderr
    assert 'pip install "distjob-vm[cli]"' in done.stderr


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
    result = invoke("run", "vm", "--job", "modify", "--config", config, "--")
    assert (result.exit_code, "no command behind --" in result.stderr) == (2, True)
    assert invoke("run", "--", "true").exit_code == 2


def test_run_wants_each_vm_once(config: Path) -> None:
    result = invoke("run", "a", "b", "a", "--job", "modify", "--config", config, "--", "true")
    assert (result.exit_code, "'a' is named twice" in result.stderr) == (2, True)


def test_verbose_logs_to_stderr(config: Path) -> None:
    script = "import logging; from distjob.cli.output import log_to_stderr as l; l({}); "
    script += "logging.getLogger('distjob').info('seen'); logging.getLogger('x').debug('all')"
    seen = [python(script.format(n)) for n in range(3)]
    assert [done.stderr.count("\n") for done in seen] == [0, 1, 2]


def test_what_is_logged_to_stderr_is_printable() -> None:
    script = "import logging; from distjob.cli.output import log_to_stderr as l; l({}); "
    script += "logging.getLogger('distjob').warning('VM %s', 'a\\x1b[31m\\nb')"
    for verbose in range(2):
        said = python(script.format(verbose)).stderr
        assert "VM a\\x1b[31m\\nb\n" in said
        assert said.count("\n") == 1


# -- status ------------------------------------------------------------------------------------


def test_status_of_idle(config: Path) -> None:
    assert invoke("status", "--config", config).output == "nothing is under way\n"
    idle = invoke("status", "a\x1bb", "--config", config)
    assert idle.output == "nothing is under way on VM a\\x1bb\n"


def test_status_is_plain_and_stable_off_a_terminal(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "distjob.drive.arguments.check_label", lambda _what, label: label
    )  # as another might write it
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
        *("session", "lets_in", "api", "phase", "progress", "abort", "left", "on_owner_loss"),
        *("ticket", "place", "waits_for"),
    ]
    assert tuple(names) == COLUMNS
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
        seen = json.loads(invoke("status", "vm", "--json", "--config", config).output)["vms"]
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
    assert (seen[0]["waiters"][0]["place"], seen[0]["holders"][0]["place"]) == (1, None)
    assert seen[0]["waiters"][0]["waits_for"] == [seen[0]["holders"][0]["ticket"]]
    assert seen[0]["holders"][0]["waits_for"] is None
    assert plain[2].split("\t")[-2:] == ["1", f"{seen[0]['holders'][0]['controller']}'s modify"]


def test_status_as_json_keeps_names(config: Path) -> None:
    def vms() -> list[dict[str, Any]]:
        return json.loads(invoke("status", "--json", "--config", config).output)["vms"]

    assert vms() == []
    with connect(config) as client, client.begin("a\nb", "modify"):
        assert vms()[0]["vm"] == "a\nb"


# -- async jobs, and who is to give way ------------------------------------------------------------


def test_status_of_long_jobs(config: Path) -> None:
    with connect(config) as client:
        long = client.begin_async("vm", "backup", on_owner_loss="orphan")
        long.set_phase("copying")
        long.set_progress(3, 12, "GiB")
        client.abort("vm", reason="disk full")
        [seen] = _rows(invoke("status", "vm", "--config", config))
        assert (seen["phase"], seen["progress"], seen["left"]) == ("copying", "3/12 GiB, 25%", "-")
        assert (seen["on_owner_loss"], seen["session"]) == ("orphan", "alive")
        assert seen["abort"].startswith("by ")
        assert seen["abort"].endswith("): disk full")
        assert seen["ticket"] == client.status("vm").holders[0].ticket
        long.detach()
        [seen] = _rows(invoke("ls", "--orphans", "--config", config))
        assert (seen["left"], seen["session"]) == ("detached", "-")
        shown = _drawn(client)
    for words in (
        *("phase copying", "progress 3/12 GiB, 25%", "asked to abort by", "disk full"),
        *("if its owner is lost: orphan", "detached: this was its owner", "lets in query"),
    ):
        assert words in shown


def _rows(result: Result) -> list[dict[str, str]]:
    names, *lines = [line.split("\t") for line in result.output.splitlines()]
    return [dict(zip(names, line, strict=True)) for line in lines]


def _drawn(client: Client) -> str:
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(table(rows_of(client.list()), 250))
    return console.export_text()


def test_progress_as_it_is_shown(config: Path) -> None:
    with connect(config) as client, client.begin_async("vm", "save") as long:
        assert _rows(invoke("ls", "--config", config))[0]["progress"] == "-"
        for given, shown in (
            ((12345678,), "12345678"),
            ((1.5, None, "GiB"), "1.5 GiB"),
            ((0, 0), "0/0"),
            ((1, 3), "1/3, 33%"),
        ):
            long._held.progress_due = 0.0
            long.set_progress(*given)
            assert _rows(invoke("ls", "--config", config))[0]["progress"] == shown


def test_ls_of_nothing(config: Path) -> None:
    assert invoke("ls", "--config", config).output == "nothing is under way\n"
    told = invoke("ls", "--orphans", "--config", config).output
    assert told == "no async job is without an owner\n"
    assert json.loads(invoke("ls", "--json", "--config", config).output)["vms"] == []


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9", "soon"])
def test_ls_watches_at_a_pace_that_can_be(config: Path, seconds: str) -> None:
    assert invoke("ls", "--watch", seconds, "--config", config).exit_code == 2


def test_ls_watches_on_a_terminal(config: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    script = "from distjob.cli import main; main()"
    words = [sys.executable, "-c", script, "ls", "--watch", "0.1", "--config", str(config)]
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    with connect(config) as client:
        client.begin("vm-1", "modify", api="nightly")
        with started(words, stdin=slave, stdout=slave, stderr=slave, env=environment) as watch:
            os.close(slave)
            seen = _read_until(master, "nightly")
            client.begin("vm-2", "modify", api="daily")
            seen += _read_until(master, "daily")
            (tmp_path / "jobs.db").rename(tmp_path / "away.db")
            seen += _read_until(master, "was replaced or removed", "removed", "deleted", "jobs.db")
            watch.send_signal(signal.SIGINT)
            seen += _read_until(master)
            assert watch.wait(20) == 0, seen
        os.close(master)
        (tmp_path / "away.db").rename(tmp_path / "jobs.db")
    assert "vm-1" in seen
    assert "Traceback" not in seen


def _read_until(master: int, *words: str) -> str:
    """All that appears until one of ``words`` has, or until the other side is closed."""
    seen = ""
    while not any(word in seen for word in words):
        try:
            seen += os.read(master, 65536).decode(errors="replace")
        except OSError:
            assert not words, seen
            return seen
    return seen


@pytest.mark.parametrize(
    "options",
    [(), ("--slot", "sync", "--all"), ("--all", "--ticket", "x"), ("--slot", "monitor")],
)
def test_evict_wants_one_thing(config: Path, options: tuple[str, ...]) -> None:
    assert invoke("evict", "vm", *options, "--yes", "--config", config).exit_code == 2


def test_evict_breaks_what_it_has_shown(config: Path) -> None:
    with connect(config) as client:
        long = client.begin_async("vm", "backup")
        step = long.nested(api="copy")
        agent = client.begin_agent("vm", "query")
        result = invoke("evict", "vm", "--slot", "async", "--yes", "--config", config)
        assert result.exit_code == 0
        names = [line.split(" of ")[0].strip() for line in result.stdout.splitlines()[1:3]]
        assert names == ["nested step", "async backup"]
        assert result.stdout.count("broken: ") == 2
        agent.check()
        assert [job.job for job in client.status("vm").holders] == ["agent query"]
        for lease in (step, long):
            with pytest.raises(errors.LeaseLost):
                lease.end()


def test_evict_asks_nobody_where_nobody_is(config: Path) -> None:
    with connect(config) as client, client.begin("vm", "modify") as lease:
        result = invoke("evict", "vm", "--all", "--config", config)
        assert result.exit_code == 2
        assert "give --yes" in result.stderr
        lease.check()
        told = invoke("evict", "vm", "--ticket", "no\x1bbody", "--yes", "--config", config)
        assert told.exit_code == 1
        assert "'no\\x1bbody'" in told.stderr


def test_errors_of_the_operators_commands(config: Path) -> None:
    for words, what in [
        (("abort", "vm"), "there is nothing to abort"),
        (("discard", "vm"), "there is nothing to discard"),
        (("adopt", "vm", "backup", "--", "true"), "there is nothing to adopt"),
        (("evict", "vm", "--all", "--yes"), "there is nothing to break"),
    ]:
        command, *rest = words
        result = invoke(command, "--config", config, *rest)
        assert result.exit_code == 1
        assert result.stderr.startswith("distjob: VM 'vm': ")
        assert what in result.stderr
        assert result.stderr.count("\n") == 1


def test_printable() -> None:
    assert printable("vm-42 é 日本") == "vm-42 é 日本"
    assert printable("a\x00\x1b]0;x\x07\u200b") == "a\\x00\\x1b]0;x\\x07\\u200b"
    assert printable("\udc80") == "\\udc80"


# -- config ------------------------------------------------------------------------------------


def test_config_check_prints_what_is_in_force(config: Path, tmp_path: Path) -> None:
    result = invoke("config", "check", config)
    assert result.exit_code == 0
    assert "namespace: default" in result.output
    assert "  wait: 5.0" in result.output
    assert "backend: sqlite" in result.output
    assert str(tmp_path / "jobs.db") in result.output
    assert not (tmp_path / "jobs.db").exists(), "checked without --connect"


def test_config_check_reaches_the_store(config: Path, tmp_path: Path) -> None:
    result = invoke("config", "check", "--connect", config)
    assert result.exit_code == 0
    told = "# reached sqlite: it promises: clients of this host, survives a restart, no fail-over"
    assert result.output.splitlines()[-1] == told
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


# -- guard ----------------------------------------------------------------------------------------


def test_a_guard_in_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def guard(command: str, *words: str, **variables: str) -> tuple[int, str]:
        for name in ("DISTJOB_VM", "DISTJOB_FENCE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        done = invoke("guard", command, "--volatile", tmp_path / "marks.db", *words)
        return done.exit_code, done.output

    old, new = "async:sync=5,agent=5,async=5", "sync:sync=7,agent=7,async=7"
    assert guard("admit", DISTJOB_VM="vm", DISTJOB_FENCE=old) == (0, "")
    assert guard("admit", "--vm", "vm", "--fence", new) == (0, "")
    code, said = guard("admit", DISTJOB_VM="vm", DISTJOB_FENCE=old)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("distjob: token 5 of VM 'vm' (async slot) is stale: ")
    assert guard("marks", "vm") == (0, "sync\t7\nagent\t7\nasync\t7\n")
    assert guard("admit", DISTJOB_VM="other", DISTJOB_FENCE=old) == (0, "")
    assert guard("forget", "vm") == (0, "VM 'vm': forgotten\n")
    assert guard("admit", DISTJOB_VM="vm", DISTJOB_FENCE=old) == (0, "")


@pytest.mark.parametrize(
    ("variables", "code", "said"),
    [
        ({"DISTJOB_VM": "vm"}, 2, "Missing option '--fence'"),
        ({"DISTJOB_FENCE": "sync:sync=7,agent=7,async=7"}, 2, "Missing option '--vm'"),
        ({"DISTJOB_VM": "vm", "DISTJOB_FENCE": ""}, 2, "Missing option '--fence'"),
        ({"DISTJOB_VM": "vm", "DISTJOB_FENCE": "7"}, 2, "'7' is no fence: one looks like 'sync:"),
    ],
)
def test_a_guard_admits_nothing_on_a_guess(
    variables: dict[str, str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DISTJOB_VM", "DISTJOB_FENCE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = invoke("guard", "admit", "--volatile", tmp_path / "marks.db")
    assert done.exit_code == code
    assert said in done.output


def test_a_guards_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "marks.db").write_bytes(b"not a database" * 100)
    words = ("--volatile", tmp_path / "marks.db", "--vm", "vm", "--fence")
    done = invoke("guard", "admit", *words, "sync:sync=7,agent=7,async=7")
    assert done.exit_code == 65
    missing = tmp_path / "no" / "marks.db"
    assert invoke("guard", "marks", "--volatile", missing, "vm").exit_code == 75
