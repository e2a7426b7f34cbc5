"""A bench for `distjob run` as a process: a store with a short TTL, and commands that write down
the time, on the clock of `distjob.clock`, every few milliseconds for as long as they live.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from distjob import clock
from distjob.client import Client
from distjob.sharded import connect

TTL = 4.0
PATIENCE = 60.0
"""Seconds that a busy machine may take for what takes one."""
DISTJOB = (sys.executable, "-c", "from distjob.cli import main; main()")

BEAT = """
import os, signal, sys, time
log, seconds, *how = sys.argv[1:]
if "daemon" in how:  # leaves its group, its session and its parent
    if os.fork():
        time.sleep(float(seconds))
        sys.exit()
    os.setsid()
    if os.fork():
        os._exit(0)
if "stubborn" in how:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
now = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
until = now() + float(seconds)
while now() < until:
    os.write(file, b"%d %r\\n" % (os.getpid(), now()))
    time.sleep(0.004)
os.write(file, b"%d %r\\n" % (os.getpid(), now()))
"""


class Bench:
    """One store, the runs on it, and a clock's book for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "store" / "jobs.db"
        self.database.parent.mkdir()
        self.config = folder / "distjob.json"  # JSON is YAML
        section = {"path": str(self.database)}
        text = {"sqlite": section, "session": {"ttl": TTL}, "job": {"wait": PATIENCE}}
        self.config.write_text(json.dumps(text))
        self.pause = threading.Event()
        self.running: list[subprocess.Popen[str]] = []

    def client(self) -> Client:
        return connect(self.config)

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = ("--job", "modify"),
        stdin: int | None = None,
        through: tuple[str, ...] = (),
    ) -> subprocess.Popen[str]:
        own = [*DISTJOB, "run", "vm", *options, "--config", str(self.config), "--"]
        process = subprocess.Popen(
            [*through, *own, *command],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE if stdin in (None, subprocess.PIPE) else stdin,
            stderr=subprocess.PIPE if stdin in (None, subprocess.PIPE) else stdin,
            text=True,
            process_group=None if through else 0,
        )
        self.running.append(process)
        return process

    def beats(self, name: str = "beats") -> list[tuple[int, float]]:
        path = self.folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(pid), float(moment)) for pid, moment in map(str.split, lines)]

    def beating(self, seconds: float, *how: str, name: str = "beats") -> subprocess.Popen[str]:
        """A run whose command beats already."""
        process = self.run(*self.beat(seconds, *how, name=name))
        self.until(lambda: len(self.beats(name)) > 2)
        return process

    def beat(self, seconds: float, *how: str, name: str = "beats") -> tuple[str, ...]:
        log = str(self.folder / name)
        return (sys.executable, "-I", "-S", "-c", BEAT, log, str(seconds), *how)

    def until(self, happened: object, seconds: float = PATIENCE) -> None:
        assert callable(happened)
        limit = clock.monotonic() + seconds
        while not happened():
            assert clock.monotonic() < limit, [p.stderr.read() for p in self.running if p.stderr]
            self.pause.wait(0.005)

    def passes_on_after(self, name: str = "beats") -> float:
        """Begin the job as another controller; nothing may beat after that. Returns when."""
        with self.client() as other, other.begin("vm", "modify", wait=PATIENCE):
            granted = clock.monotonic()
            self.pause.wait(0.1)
        last = max(moment for _, moment in self.beats(name))
        assert last < granted, f"the command lived {last - granted:.3f} s too long"
        return granted

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
                process.kill()
            process.communicate(timeout=10)


def ended(process: subprocess.Popen[str], seconds: float = PATIENCE) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err
