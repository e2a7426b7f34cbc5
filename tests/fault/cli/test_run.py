"""`distjob run` is killed, stopped and cut off: its command must be gone before the job passes on.

The last beat of a command must lie before the moment at which another controller got the job.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from distjob import Fence, Slot, clock
from runs import TTL, Bench, ended


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def child_of(pid: int) -> int:
    """The only child: a run's warden, or a warden's command."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                stat = (folder / "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == pid:
                    return int(folder.name)
    raise AssertionError(f"process {pid} has no child")


# -- in good order -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("no-such-command",), 127),
        (("/no/such/command",), 127),
        (("/etc/passwd",), 126),
        (("/",), 126),
    ],
)
def test_exit_code_is_the_commands(bench: Bench, command: tuple[str, ...], code: int) -> None:
    assert ended(bench.run(*command))[0] == code
    with bench.client() as client:
        assert client.list() == []


@pytest.mark.parametrize(
    ("options", "job", "own"),
    [
        (("--job", "modify"), "modify", (Slot.SYNC,)),
        (("--job", "modify", "--agent", "query"), "modify + agent query", (Slot.SYNC, Slot.AGENT)),
        (("--agent", "modify"), "agent modify", (Slot.AGENT,)),
        (("--async", "migration out"), "async migration out", (Slot.ASYNC,)),
    ],
)
def test_environment(
    bench: Bench, options: tuple[str, ...], job: str, own: tuple[Slot, ...]
) -> None:
    show = "import os, json; print(json.dumps(dict(os.environ)))"
    code, out, err = ended(bench.run(sys.executable, "-c", show, options=options))
    assert (code, err) == (0, "")
    seen = json.loads(out)
    assert (seen["DISTJOB_VM"], seen["DISTJOB_JOB"]) == ("vm", job)
    token = int(seen["DISTJOB_TOKEN"])
    assert Fence.parse(seen["DISTJOB_FENCE"]) == Fence(own, token, token, token)
    with bench.client() as client, client.begin("vm", "modify") as lease:
        assert 0 < token < lease.token


def test_of_several_vms_all_are_held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTJOB_FENCE", "of a run around this one")
    both = ("a vm", "--job", "modify")
    show = "import os, json; print(json.dumps(dict(os.environ))); input()"
    run = bench.run(sys.executable, "-c", show, options=both, stdin=subprocess.PIPE)
    assert run.stdout
    assert run.stdin
    seen = json.loads(run.stdout.readline())
    assert seen["DISTJOB_COUNT"] == "2"
    assert "DISTJOB_FENCE" not in seen
    with bench.client() as other:
        for number, vm in enumerate(("vm", "a vm"), 1):  # as they are named, not as they are begun
            [holder] = other.status(vm).holders
            assert seen[f"DISTJOB_VM_{number}"] == vm
            assert seen[f"DISTJOB_JOB_{number}"] == "modify"
            assert seen[f"DISTJOB_TOKEN_{number}"] == str(holder.token)
            assert Fence.parse(seen[f"DISTJOB_FENCE_{number}"]).token == holder.token
        blocked = bench.run("echo", "ran", options=("b", *both[1:], "--wait", "0"))
        code, out, err = ended(blocked)
        assert (code, out) == (75, "")
        assert "VM 'vm': modify waited" in err
        assert "was given back: 'b'" in err
        run.stdin.write("\n")
        assert ended(run)[0] == 0
        assert other.list() == []


def test_the_loss_of_one_of_several_ends_the_command(bench: Bench) -> None:
    run = bench.run("sleep", "60", options=("other", "--job", "modify"))
    with bench.client() as client:
        bench.until(lambda: client.status("vm").holders)
        client.evict("vm", [client.status("vm").holders[0].ticket])
        code, _, err = ended(run)
        assert code == 70
        assert "VMs 'vm', 'other': one of the leases of modify is lost: stopping" in err
        assert "VM 'vm': the lease of modify" in err
        assert client.list() == []


def test_signals_and_descriptors_are_as_everywhere(bench: Bench) -> None:
    look = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l"
    plain = subprocess.run(["sh", "-c", look], capture_output=True, text=True, check=True)
    assert ended(bench.run("sh", "-c", look)) == (0, plain.stdout, "")


def test_not_begun_in_time(bench: Bench) -> None:
    with bench.client() as holder, holder.begin("vm", "modify", api="attach"):
        run = bench.run("echo", "ran", options=("--job", "modify", "--wait", "0.2"))
        code, out, err = ended(run)
    assert (code, out) == (75, "")
    assert err.startswith("distjob: cannot acquire state change lock (held by monitor=attach)")
    assert err.count("\n") == 1


def test_sigterm_while_waiting_withdraws(bench: Bench) -> None:
    with bench.client() as holder, holder.begin("vm", "modify"):
        run = bench.run("true")
        bench.until(lambda: holder.status("vm").waiters)
        run.send_signal(signal.SIGTERM)
        assert ended(run)[0] == 143
        assert not holder.status("vm").waiters


def test_sigterm_reaches_the_command_and_then_the_job_is_ended(bench: Bench) -> None:
    script = "trap 'echo told; exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    run = bench.run("sh", "-c", script)
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGTERM)
    assert ended(run)[:2] == (9, "told\n")
    with bench.client() as client:
        assert client.list() == []


def test_lives_longer_than_the_ttl(bench: Bench) -> None:
    run = bench.beating(1.5 * TTL)
    assert ended(run) == (0, "", "")
    moments = [moment for _, moment in bench.beats()]
    assert moments[-1] - moments[0] >= 1.4 * TTL


def test_what_the_command_leaves_running_is_stopped(bench: Bench) -> None:
    run = bench.run("sh", "-c", '"$@" & exec sleep 0.3', "sh", *bench.beat(60, "stubborn"))
    code, _, err = ended(run)
    finished = clock.monotonic()
    assert code == 0
    assert "left running" in err
    assert max(moment for _, moment in bench.beats()) < finished


def test_two_runs_never_overlap(bench: Bench) -> None:
    runs = [bench.run(*bench.beat(0.15, name=f"beats-{n}")) for n in range(5)]
    assert [ended(run)[0] for run in runs] == [0] * 5
    spans = []
    for n in range(5):
        moments = [moment for _, moment in bench.beats(f"beats-{n}")]
        spans.append((moments[0], moments[-1]))
    spans.sort()
    assert all(before[1] < after[0] for before, after in pairwise(spans))


# -- killed, stopped, cut off ------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("stubborn",), ("daemon", "stubborn")], ids=repr)
def test_run_is_killed(bench: Bench, how: tuple[str, ...]) -> None:
    run = bench.beating(60, *how)
    run.kill()
    killed = clock.monotonic()
    assert bench.passes_on_after() < killed + TTL + 1
    if not how:  # told at once, not only when the lease runs out
        assert bench.beats()[-1][1] < killed + 0.4 * TTL


@pytest.mark.parametrize("how", [(), ("stubborn",), ("daemon", "stubborn")], ids=repr)
def test_run_is_stopped_beyond_its_ttl(bench: Bench, how: tuple[str, ...]) -> None:
    run = bench.beating(60, *how)
    os.killpg(run.pid, signal.SIGSTOP)  # its whole group, as a shell would
    stopped = clock.monotonic()
    assert bench.passes_on_after() < stopped + TTL + 1
    with bench.client() as other, other.begin("vm", "modify") as lease:
        os.killpg(run.pid, signal.SIGCONT)
        code, _, err = ended(run)
        assert not lease.lost
    assert code == 70
    assert "the command was stopped in time" in err
    assert f"token {lease.token}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_store_is_cut_off(bench: Bench, how: str) -> None:
    run = bench.beating(60, "stubborn")
    if how == "replaced":
        (bench.folder / "other").write_bytes(b"")
        (bench.folder / "other").replace(bench.database)
    else:
        bench.database.rename(bench.folder / "away")
    cut = clock.monotonic()
    code, _, err = ended(run)
    assert code == 70
    assert "was not renewed in time" in err
    assert "Traceback" not in err
    last = max(moment for _, moment in bench.beats())
    assert last < cut + 0.9 * TTL, "the local deadline, had it been renewed at the very last moment"
    assert clock.monotonic() < cut + 2 * TTL + 2


def test_warden_is_killed(bench: Bench) -> None:
    run = bench.beating(60, "daemon", "stubborn")
    os.kill(child_of(run.pid), signal.SIGKILL)
    code, _, err = ended(run)
    finished = clock.monotonic()
    assert code == 70
    assert "warden was killed" in err
    bench.pause.wait(0.05)
    assert max(moment for _, moment in bench.beats()) < finished
    with bench.client() as client:
        assert client.list() == []


def test_warden_is_stopped_and_then_run_is_killed(bench: Bench) -> None:
    run = bench.beating(60, "stubborn")
    os.kill(child_of(run.pid), signal.SIGSTOP)
    run.kill()
    bench.passes_on_after()


def test_nobody_is_told_that_it_was_in_time_if_it_was_not(bench: Bench) -> None:
    run = bench.beating(60)
    warden = child_of(run.pid)
    for pid in (run.pid, warden):  # nobody is left to stop the command
        os.kill(pid, signal.SIGSTOP)
    with bench.client() as other, other.begin("vm", "modify", wait=20):
        for pid in (run.pid, warden):
            os.kill(pid, signal.SIGCONT)
        code, _, err = ended(run)
    assert code == 70
    assert "TOO LATE" in err
