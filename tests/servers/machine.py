"""What a server runs in, and how to end, freeze and cut it off; here, a process.

It must not know what kind of server that is, nor when it is ready. Containers are in `containers`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from servers.plan import lacking

PATIENCE = 60.0
"""Seconds for a server to come up, and for a command to end."""
_PORTS = range(15_000, 32_000)
"""Below those that the kernel gives to whoever connects, or asks for any."""


def free_port() -> int:
    """A port of loopback that nobody listens on; no two processes of a run are given the same."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % workers
    while True:
        port = random.choice(_PORTS[own::workers])
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Machine(ABC):
    """Something that runs one server. After `stop` or `kill`, `start` finds its files again."""

    way: str
    """docker, path or package."""

    @abstractmethod
    def start(self) -> None:
        """Start it, unless it runs; returns at once."""

    @abstractmethod
    def stop(self) -> None:
        """End it in good order."""

    @abstractmethod
    def kill(self) -> None:
        """End it by SIGKILL."""

    @abstractmethod
    def pause(self) -> None:
        """Stop it from running, with all connections left as they are."""

    @abstractmethod
    def resume(self) -> None:
        """End `pause`."""

    @abstractmethod
    def exec(self, *command: str) -> str:
        """What ``command``, run beside the server, prints; raises RuntimeError if it fails."""

    @abstractmethod
    def give(self, file: Path) -> str:
        """Let the server have a copy of ``file``; its path over there."""

    @abstractmethod
    def cut_off(self) -> None:
        """Take it from the network: what is sent to it is lost without a word."""

    @abstractmethod
    def rejoin(self) -> None:
        """End `cut_off`, at the same address."""

    @abstractmethod
    def log(self) -> str:
        """The end of what the server printed."""


class Process(Machine):
    """A process of ours, with its files in ``folder``."""

    def __init__(
        self, way: str, argv: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.way = way
        self.argv = list(argv)
        self._folder = folder
        self._env = {**os.environ, **(env or {})}
        self._env["PATH"] = f"{Path(argv[0]).parent}:{self._env['PATH']}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.argv, cwd=self._folder, env=self._env, stdout=log, stderr=log
            )

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def exec(self, *command: str) -> str:
        tool = shutil.which(command[0], path=self._env["PATH"])
        if tool is None:
            lacking(f"there is no {command[0]} on the PATH")
        return output([tool, *command[1:]], env=self._env)

    def give(self, file: Path) -> str:
        there = self._folder / file.name
        shutil.copy(file, there)
        return str(there)

    def cut_off(self) -> None:
        lacking("only a container can be taken from the network")

    def rejoin(self) -> None:
        pass

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        self._signal(signal.SIGCONT)
        if self._process is not None:
            self._process.wait(PATIENCE)


def output(
    command: Sequence[str], give: bytes | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What ``command`` prints, with ``give`` as its input; raises RuntimeError if it fails."""
    done = subprocess.run(
        command, input=give, env=env, capture_output=True, check=False, timeout=PATIENCE
    )
    if done.returncode:
        msg = f"{' '.join(command)}: status {done.returncode}: {done.stderr.decode().strip()}"
        raise RuntimeError(msg)
    return done.stdout.decode()
