"""What an operator does to the jobs of others, by the installed command, on real stores.

The jobs are those of a process of its own, which tells what becomes of them.
"""

from __future__ import annotations

import json
import os
import pty
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from distjob import Client, Fence, Slot, clock, connect
from ends import end, started
from keeping import keep

PATIENCE = 30.0
TTL = 20.0
"""So long that nothing here can be due to its end."""
COMMAND = str(Path(sys.executable).parent / "distjob")
HOLDER = """
import json, sys
import distjob

def tell(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)

config, what = sys.argv[1:]
with distjob.connect(config) as jobs:
    if what == "modify":
        lease = jobs.begin("vm", "modify", agent="modify", api="holder")
    else:
        lease = jobs.begin_async("vm", "backup", on_owner_loss=what, api="holder")
        lease.set_phase("copying")
        lease.set_progress(3, 12, "GiB")
        lease.on_abort(lambda request: tell("abort", reason=request.reason))
    lease.on_lost(lambda: tell("lost"))
    tell("held", token=lease.token)
    for line in sys.stdin:
        try:
            getattr(lease, line.strip())()
            tell(line.strip())
        except distjob.DistjobError as error:
            tell("error", kind=type(error).__name__, said=str(error))
"""

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("config", ["sqlite", "redis", "etcd", "zookeeper"], indirect=True),
]


class Holder:
    """A process that holds a job on the VM ``vm``."""

    def __init__(self, config: Path, what: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(config), what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.token: int = self.hears("held")["token"]

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._told.put(json.loads(line))

    def hears(self, event: str) -> dict[str, Any]:
        """Its next word, which must be this."""
        told = self._told.get(timeout=PATIENCE)
        assert told["event"] == event, told
        return told

    def says(self, what: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self._reader.join(PATIENCE)
        end(self.process)


@pytest.fixture
def holder(config: Path) -> Iterator[Callable[[str], Holder]]:
    """Starts a process that holds ``modify``, or a backup that is to ``release`` or ``orphan``."""
    _with_ttl(config, TTL)
    started: list[Holder] = []

    def start(what: str) -> Holder:
        started.append(Holder(config, what))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def jobs(config: Path, holder: Any) -> Iterator[Client]:
    with connect(config) as client:
        yield client


def _with_ttl(config: Path, ttl: float) -> None:
    settings = json.loads(config.read_text()) | {"session": {"ttl": ttl}}
    config.write_text(json.dumps(settings))


def distjob(config: Path, *words: str, stdin: int = subprocess.DEVNULL) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    environment = os.environ | {"DISTJOB_CONFIG": str(config)}
    done = subprocess.run(
        [COMMAND, *words],
        stdin=stdin,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def rows(text: str) -> list[dict[str, str]]:
    names, *lines = [line.split("\t") for line in text.splitlines()]
    return [dict(zip(names, line, strict=True)) for line in lines]


def until(condition: Callable[[], object]) -> None:
    deadline = clock.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert clock.monotonic() < deadline, "it did not come about"
        pause.wait(0.02)


# -- ls -------------------------------------------------------------------------------------------


def test_ls(config: Path, holder: Any, jobs: Client) -> None:
    assert distjob(config, "ls")[:2] == (0, "nothing is under way\n")
    assert distjob(config, "ls", "--orphans")[:2] == (0, "no async job is without an owner\n")
    long = holder("orphan")
    keep(jobs.begin("other\x1b[31m", "modify"))
    code, out, _ = distjob(config, "ls")
    assert code == 0
    [other, vm] = rows(out)
    assert (other["vm"], other["job"]) == ("other\\x1b[31m", "modify")
    assert (vm["vm"], vm["job"], vm["token"]) == ("vm", "async backup", str(long.token))
    assert (vm["phase"], vm["progress"]) == ("copying", "3/12 GiB, 25%")
    assert (vm["session"], vm["left"], vm["on_owner_loss"]) == ("alive", "-", "orphan")
    assert vm["pid"] == str(long.process.pid)
    seen = json.loads(distjob(config, "ls", "--json")[1])["vms"]
    assert [one["vm"] for one in seen] == ["other\x1b[31m", "vm"]


def test_ls_watches(config: Path, holder: Any) -> None:
    modify = holder("modify")
    words = [COMMAND, "ls", "--watch", "0.1", "--json", "--config", str(config)]
    with started(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ls:
        assert ls.stdout
        assert ls.stderr
        first = json.loads(ls.stdout.readline())
        assert [(one["vm"], len(one["holders"])) for one in first["vms"]] == [("vm", 2)]
        modify.says("end")
        modify.hears("end")
        while json.loads(ls.stdout.readline())["vms"]:
            pass
        ls.send_signal(signal.SIGINT)
        assert ls.wait(PATIENCE) == 0
        assert ls.stderr.read() == ""


# -- abort ----------------------------------------------------------------------------------------


def test_abort_reaches_the_owner_at_once(config: Path, holder: Any, jobs: Client) -> None:
    owner = holder("release")
    code, out, _ = distjob(config, "abort", "vm", "--reason", "disk full")
    assert (code, owner.hears("abort")["reason"]) == (0, "disk full")
    assert f"async backup (token {owner.token})" in out
    assert "was asked to abort\n" in out
    long = jobs.status("vm").long
    assert long
    assert long.abort
    assert "by " in rows(distjob(config, "status", "vm")[1])[0]["abort"]
    assert "was asked to abort before" in distjob(config, "abort", "vm")[1]
    owner.says("end")
    owner.hears("end")
    code, _, err = distjob(config, "abort", "vm")
    assert (code, err) == (1, "distjob: VM 'vm': no async job runs: there is nothing to abort\n")


# -- evict ----------------------------------------------------------------------------------------


def test_evict_lets_the_next_one_in(config: Path, holder: Any, jobs: Client) -> None:
    old = holder("modify")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(jobs.begin, "vm", "modify", wait=PATIENCE)
        until(lambda: jobs.status("vm").waiters)
        code, out, err = distjob(config, "evict", "vm", "--slot", "sync")
        assert code == 2
        assert "--yes" in err
        assert f"token {old.token}" in out
        assert jobs.status("vm").waiters, "nothing was broken"

        code, out, err = distjob(config, "-v", "evict", "vm", "--slot", "sync", "--yes")
        new = call.result(PATIENCE)
    assert code == 0
    assert f"pid {old.process.pid}" in out
    assert "broken: modify + agent modify of" in out
    assert out.count("broken: ") == 1, "what waited was not shown, and not broken"
    facts = (f"token {old.token}", f"pid {old.process.pid}", "'vm'", "by force")
    assert all(fact in err for fact in facts), "the log's warning"
    old.hears("lost")
    old.says("end")
    refused = old.hears("error")
    assert refused["kind"] == "LeaseLost"
    assert "by force" in refused["said"]
    assert new.token > old.token
    new.check()
    assert [job.token for job in jobs.status("vm").holders] == [new.token]
    new.end()


def test_evict_stops_a_command_that_runs_under_the_job(config: Path, jobs: Client) -> None:
    words = [COMMAND, "run", "vm", "--job", "modify", "--config", str(config), "--", "sleep", "60"]
    with started(words, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        until(lambda: _has_child(run.pid))
        assert distjob(config, "evict", "vm", "--all", "--yes")[0] == 0
        with jobs.begin("vm", "modify") as lease:
            code, err = run.wait(PATIENCE), run.stderr.read()
            lease.check()
    assert code == 70
    assert "is lost: stopping the command" in err
    assert "by force" in err


def test_evict_asks_on_a_terminal(config: Path, holder: Any, jobs: Client) -> None:
    holder("release")
    long = jobs.status("vm").long
    assert long
    for answer, code in (("n\n", 1), ("y\n", 0)):
        master, slave = pty.openpty()
        os.write(master, answer.encode())
        told = distjob(config, "evict", "vm", "--ticket", long.ticket, stdin=slave)
        os.close(slave)
        os.close(master)
        assert told[0] == code, told
        assert ("nothing was broken" in told[2]) == (code == 1)
        assert jobs.status("vm").idle == (code == 0)
    code, _, err = distjob(config, "evict", "vm", "--all", "--yes")
    assert (code, err) == (1, "distjob: VM 'vm': there is nothing to break: nothing is under way\n")


# -- adopt and discard ----------------------------------------------------------------------------

ADOPTS = "echo $DISTJOB_TOKEN $DISTJOB_FENCE $DISTJOB_PHASE $DISTJOB_PROGRESS $DISTJOB_ABORT; exit "


def test_adopt_runs_a_command_as_the_owner(config: Path, holder: Any, jobs: Client) -> None:
    old = holder("release")
    code, _, err = distjob(config, "adopt", "vm", "backup", "--", "true")
    assert code == 1
    assert "its owner lives" in err
    old.says("detach")
    old.hears("detach")
    assert [row["left"] for row in rows(distjob(config, "ls", "--orphans")[1])] == ["detached"]

    tokens = [old.token]
    for wish, said in ((3, "is detached again: the command's exit code is 3"), (0, "")):
        code, out, err = distjob(
            config, "adopt", "vm", "backup", "--", "sh", "-c", f"{ADOPTS} {wish}"
        )
        assert code == wish
        token, fence, *rest = out.split()
        assert rest == ["copying", "3"]
        assert Fence.parse(fence) == Fence((Slot.ASYNC,), *[int(token)] * 3)
        tokens.append(int(token))
        assert said in err
        assert jobs.status("vm").idle == (wish == 0)
    assert tokens == sorted(set(tokens))


def test_adopt_that_is_ended_leaves_the_job(config: Path, holder: Any, jobs: Client) -> None:
    old = holder("release")
    old.says("detach")
    old.hears("detach")
    words = [COMMAND, "adopt", "vm", "backup", "--config", str(config), "--", "sleep", "60"]
    with started(words, stderr=subprocess.PIPE, text=True) as adopt:
        assert adopt.stderr
        until(lambda: (long := jobs.status("vm").long) and long.alive)
        until(lambda: _has_child(adopt.pid))
        adopt.send_signal(signal.SIGTERM)
        code, err = adopt.wait(PATIENCE), adopt.stderr.read()
    assert code == 143
    assert "is detached again" in err
    long = jobs.status("vm").long
    assert long
    assert long.left == "detached"
    code, out, _ = distjob(config, "discard", "vm")
    assert code == 0
    assert out.startswith("VM 'vm': discarded: async backup")
    assert jobs.status("vm").idle


def _has_child(pid: int) -> bool:
    """Whether the command itself runs: the child of its warden."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(stat[1])
    return any(parents.get(parent) == pid for parent in parents.values())


def test_a_hold_outlives_its_process_and_its_session(config: Path, jobs: Client) -> None:
    _with_ttl(config, 2.0)
    code, out, _ = distjob(config, "hold", "vm", "--reason", "new disk", "--until", "1h")
    assert (code, out.startswith("VM 'vm' is held: new disk; until ")) == (0, True)
    _with_ttl(config, TTL)
    code, _, err = distjob(config, "run", "vm", "--job", "modify", "--wait", "6s", "--", "true")
    assert code == 75
    assert "new disk" in err
    assert distjob(config, "run", "vm", "--job", "query", "--", "true")[0] == 0
    assert [row["vm"] for row in rows(distjob(config, "ls", "--held")[1])] == ["vm"]
    assert distjob(config, "discard", "vm")[0] == 0
    assert distjob(config, "run", "vm", "--job", "modify", "--wait", "0", "--", "true")[0] == 0


def test_discard_of_what_a_killed_owner_left(config: Path, holder: Any, jobs: Client) -> None:
    _with_ttl(config, 2.0)
    owner = holder("orphan")
    code, _, err = distjob(config, "discard", "vm")
    assert code == 1
    assert "its owner lives" in err
    owner.process.kill()
    until(jobs.orphans)
    [row] = rows(distjob(config, "ls", "--orphans")[1])
    assert (row["left"], row["phase"], row["session"]) == ("orphaned", "copying", "-")
    code, out, err = distjob(config, "discard", "vm")
    assert code == 0
    assert re.search(
        rf"discarded: async backup of .*pid {owner.process.pid}.*token {owner.token}", out
    )
    assert "by force" in err
    assert jobs.list() == []
