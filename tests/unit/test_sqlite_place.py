"""No configuration at all: where the file is then, for root and for others, and what can fail.

An ordinary user is a child process: where the tests run as root it becomes the user 65534, once it
has imported all that it needs, since that user may not be allowed to read where Python lies.
"""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from distjob.cli.app import cli
from distjob.config import json_schema, load
from distjob.errors import ConfigError
from distjob.sharded import connect
from distjob_sqlite import place

NOBODY = 65534
CHILD = """
import os, sys, tempfile
from distjob import connect
from distjob.cli.app import cli
from distjob.config import backends
points = list(backends.entry_points())
backends.entry_points = lambda: points
with tempfile.TemporaryDirectory() as folder:
    os.environ["DISTJOB_CONFIG"] = folder + "/distjob.yaml"
    open(folder + "/distjob.yaml", "w").write("sqlite: {path: " + folder + "/jobs.db}")
    cli(["status"], standalone_mode=False)
    cli(["config", "path"], standalone_mode=False)
    del os.environ["DISTJOB_CONFIG"]
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
os.umask(0o022)
print("---", flush=True)
"""
COMMAND = "cli(sys.argv[1:])"
CONTROLLER = """
with connect() as jobs, jobs.begin("vm", "modify") as lease:
    print("held", lease.token > 0)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """The home of an ordinary user; not below pytest's own folder, which is closed to him."""
    with tempfile.TemporaryDirectory(prefix="distjob-home-") as name:
        if os.getuid() == 0:  # a test may have replaced geteuid
            os.chown(name, NOBODY, NOBODY)
        yield Path(name)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As root, whose folder is not this machine's own; it returns that folder."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(place, "ROOTS", tmp_path / "distjob")
    monkeypatch.delenv("DISTJOB_CONFIG", raising=False)
    return tmp_path / "distjob"


@pytest.fixture
def user(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As an ordinary user, in this process: for what needs no permission. Returns his home."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_STATE_HOME", "DISTJOB_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return home


def as_user(script: str, *words: str, **variables: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of an ordinary user's ``script``, with these ``variables``."""
    keep = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", CHILD + script, *words],
        env=keep | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "---\n" in done.stdout, done.stderr
    return done.returncode, done.stdout.partition("---\n")[2], done.stderr


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- an ordinary user -----------------------------------------------------------------------------


def test_the_command_of_an_ordinary_user(home: Path) -> None:
    told = as_user(COMMAND, "status", HOME=str(home))
    assert told == (0, "nothing is under way\n", "")
    folder = home / ".local" / "state" / "distjob"
    assert (folder / "jobs.db").is_file()
    assert [mode(one) for one in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3
    again = as_user(COMMAND, "status", "vm", HOME=str(home))
    assert again == (0, "nothing is under way on VM vm\n", "")


def test_the_controller_of_an_ordinary_user(home: Path) -> None:
    assert as_user(CONTROLLER, HOME=str(home)) == (0, "held True\n", "")
    assert (home / ".local" / "state" / "distjob" / "jobs.db").is_file()


def test_xdg_state_home(home: Path) -> None:
    state = home / "my" / "state"
    told = as_user(CONTROLLER, HOME=str(home), XDG_STATE_HOME=str(state))
    assert told == (0, "held True\n", "")
    assert (state / "distjob" / "jobs.db").is_file()
    assert mode(state) == mode(state / "distjob") == 0o700
    assert not (home / ".local").exists()


def test_a_folder_that_is_there_is_left_as_it_is(home: Path) -> None:
    (home / "distjob").mkdir(0o770)
    (home / "distjob").chmod(0o770)
    if os.getuid() == 0:
        os.chown(home / "distjob", NOBODY, NOBODY)
    code, _, said = as_user(COMMAND, "status", XDG_STATE_HOME=str(home))
    assert (code, said) == (0, "")
    assert mode(home / "distjob") == 0o770


@pytest.mark.parametrize("state", ["", "state", "./state", "~/state"])
def test_an_xdg_state_home_that_is_not_absolute_is_ignored(
    user: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state)
    path = user / ".local" / "state" / "distjob" / "jobs.db"
    assert load().section.path == str(path)
    told = CliRunner().invoke(cli, ["config", "path"]).output
    why = "XDG_STATE_HOME holds no absolute path" if state else "XDG_STATE_HOME is not set"
    assert why in told


@pytest.mark.parametrize("variables", [{}, {"HOME": ""}, {"HOME": "me", "XDG_STATE_HOME": "you"}])
def test_no_home(variables: dict[str, str]) -> None:
    code, told, said = as_user(COMMAND, "status", **variables)
    assert (code, told, said.count("\n")) == (78, "", 1)
    assert said.startswith("distjob: settings: sqlite: no path is given, and the default")
    assert said.endswith("holds an absolute path; set sqlite.path, or HOME\n")
    code, told, said = as_user(CONTROLLER, **variables)
    assert (code, told) == (1, "")
    assert "ConfigError: settings: sqlite: no path is given, and the default" in said


def test_no_home_is_no_matter_if_the_path_is_given(home: Path) -> None:
    (home / "distjob.yaml").write_text("sqlite: {path: %s}" % (home / "jobs.db"))
    assert as_user(COMMAND, "status", "--config", str(home / "distjob.yaml"))[0] == 0


def test_a_home_in_which_nothing_can_be_made(home: Path) -> None:
    home.chmod(0o555)
    code, told, said = as_user(COMMAND, "status", HOME=str(home))
    home.chmod(0o700)
    assert (code, told, said.count("\n")) == (78, "", 1)
    folder = home / ".local" / "state" / "distjob"
    assert "sqlite.path is not set (this is the default of a user who is not root: $HOME/" in said
    assert f"and the folder {folder} can't be made" in said
    assert f"{home}/.local: Permission denied" in said
    assert "set sqlite.path" in said


def test_a_home_that_does_not_exist() -> None:
    code, _, said = as_user(COMMAND, "status", HOME="/proc/no home")
    assert code == 78
    assert "the folder /proc/no home/.local/state/distjob can't be made: /proc/no home: No" in said


def test_a_default_folder_that_cannot_be_written_to(home: Path) -> None:
    folder = home / "distjob"
    folder.mkdir(0o555)
    code, _, said = as_user(COMMAND, "status", XDG_STATE_HOME=str(home))
    assert (code, said.count("\n")) == (78, 1)
    assert f"and the folder {folder} can't be written to by this user" in said
    assert "sqlite.path is not set" in said


def test_a_file_in_place_of_the_folder(user: Path) -> None:
    (user / ".local").touch()
    with pytest.raises(ConfigError, match=r"the folder .* can't be made: .*/\.local"):
        connect()


def test_many_make_it_at_once(user: Path) -> None:
    together, found = threading.Barrier(8), []

    def one() -> None:
        together.wait()
        with connect() as client:
            found.append(client.list())

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[]] * 8


# -- root -----------------------------------------------------------------------------------------


def test_roots_folder_is_that_of_the_file_hierarchy() -> None:
    assert Path("/var/lib/distjob") == place.ROOTS


def test_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/not/for/root")
    before = os.umask(0o022)
    try:
        with connect() as client, client.begin("vm", "modify"):
            assert (root / "jobs.db").is_file()
    finally:
        os.umask(before)
    assert mode(root) == 0o750


def test_root_makes_one_folder_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "ROOTS", root / "below")
    with pytest.raises(ConfigError, match=r"can't be made: .*No such file"):
        connect()
    assert not root.exists()


# -- what is configured, and what is only looked at -----------------------------------------------


def test_the_folder_of_a_path_that_is_configured_is_not_made(root: Path, user: Path) -> None:
    for path in (str(root / "jobs.db"), load().section.path[:]):
        assert not isinstance(load({"sqlite": {"path": path}}).section.path, place.Standard)
        with pytest.raises(ConfigError, match="make the directory"):
            connect({"sqlite": {"path": path}})
        assert not Path(path).parent.exists()


def test_settings_make_nothing_and_are_resolved_once(
    user: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = load({"sqlite": {"busy_timeout": 3}})
    assert list(user.iterdir()) == []
    monkeypatch.setenv("HOME", str(tmp_path))
    for found in (settings, pickle.loads(pickle.dumps(settings))):
        assert f"path='{user}/.local/state/distjob/jobs.db'" in repr(found)
        connect(found).close()
        shutil.rmtree(user / ".local")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_nobody_has() -> None:
    with pytest.raises(ConfigError, match="whose home is meant can't be found out"):
        connect({"sqlite": {"path": "~no such user/jobs.db"}})


def test_config_path(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "distjob.yaml"
    file.write_text("sqlite: {path: jobs.db}")
    path = user / ".local" / "state" / "distjob" / "jobs.db"

    def lines(*options: str) -> list[str]:
        result = CliRunner().invoke(cli, ["config", "path", *options])
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.splitlines()

    told = lines()
    assert told[:3] == [
        "configuration: none",
        "  neither --config nor DISTJOB_CONFIG names a file",
        f"store: sqlite {path}",
    ]
    assert "$HOME/.local/state/distjob, as XDG_STATE_HOME is not set" in told[3]
    assert f"{path.parent} is missing, and made when it is first needed" in told[3]
    assert list(user.iterdir()) == []
    connect().close()
    assert "missing" not in lines()[3]
    configured = [f"store: sqlite {tmp_path / 'jobs.db'}", "  sqlite.path says so"]
    given = [f"configuration: {file}", "  --config says so", *configured]
    assert lines("--config", "distjob.yaml") == given
    monkeypatch.setenv("DISTJOB_CONFIG", str(file))
    assert lines() == [f"configuration: {file}", "  DISTJOB_CONFIG says so", *configured]
    file.write_text("{backend: redis, redis: {url: 'redis://:hunter2@redis1:6379/0'}}")
    assert lines()[2].startswith("store: redis RedisSettings(url='redis://:***@redis1:6379/0'")
    file.write_text("backend: nothing")
    assert CliRunner().invoke(cli, ["config", "path"]).exit_code == 78


def test_config_path_of_root(root: Path) -> None:
    told = CliRunner().invoke(cli, ["config", "path"]).output
    assert f"store: sqlite {root / 'jobs.db'}\n  sqlite.path is not set; this is root's" in told


def test_the_schema_promises_no_path() -> None:
    path = json_schema()["$defs"]["SqliteSettings"]["properties"]["path"]
    assert "default" not in path
    assert "/var/lib/distjob/jobs.db" in path["description"]
    assert "$XDG_STATE_HOME" in path["description"]
