"""One server as the tests see it: where it is, and what can be done to it.

It must not know whether it is a process or a container: see `machine`.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from distjob import clock
from servers.machine import PATIENCE, Machine


def wait_for(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Return when ``condition``, asked of the servers again and again, holds.

    Raises RuntimeError with ``what`` after ``patience`` seconds.
    """
    until, pause = clock.monotonic() + patience, threading.Event()
    while not condition():
        if clock.monotonic() > until:
            msg = f"not within {patience:.0f} s: {what}"
            raise RuntimeError(msg)
        pause.wait(0.02)


class Node:
    """A server of the tests' own. After `stop` or `kill`, `start` brings it back with its data."""

    def __init__(self, machine: Machine, host: str, port: int) -> None:
        self.machine = machine
        self.host = host
        self.port = port
        self.version = ""
        self.touched = False
        """Whether anything was done to it since `heal`."""
        self._done: list[str] = []
        """What was done to it and not undone."""

    @property
    def kind(self) -> str:
        """docker, path or package."""
        return self.machine.way

    @property
    def address(self) -> str:
        """As host:port."""
        return f"{self.host}:{self.port}"

    def stop(self) -> None:
        """End it in good order."""
        self._note("down")
        self.machine.stop()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._note("down")
        self.machine.kill()

    def start(self) -> None:
        """Start it again; returns when it answers."""
        self.machine.start()
        self._done = [word for word in self._done if word == "cut off"]
        if not self._done:
            self.wait_until_ready()

    def pause(self) -> None:
        """Stop it from running, with all connections left as they are."""
        self._note("paused")
        self.machine.pause()

    def resume(self) -> None:
        """End `pause`."""
        self.machine.resume()
        self._done.remove("paused")

    def cut_off(self) -> None:
        """Take it from the network: what is sent to it is lost. Skips the test for a process."""
        self.machine.cut_off()
        self._note("cut off")

    def rejoin(self) -> None:
        """End `cut_off`, at the same address."""
        self.machine.rejoin()
        self._done.remove("cut off")

    def exec(self, *command: str) -> str:
        """What ``command``, run beside the server, prints; raises RuntimeError if it fails."""
        return self.machine.exec(*command)

    def give(self, file: Path) -> str:
        """Let the server have a copy of ``file``; its path over there."""
        return self.machine.give(file)

    def heal(self) -> None:
        """Undo what was done to it and not undone."""
        done = list(self._done)
        if "cut off" in done:
            self.rejoin()
        if "paused" in done and "down" not in done:
            self.resume()
        if "down" in done:
            self.start()
        self.touched = False

    def wait_until_ready(self) -> None:
        """Return when it answers."""
        try:
            wait_for(self.answers, f"an answer of {type(self).__name__} at {self.address}")
        except RuntimeError as error:
            msg = f"{error}\n{self.machine.log()}"
            raise RuntimeError(msg) from error

    @abstractmethod
    def answers(self) -> bool:
        """Whether it can be used now."""

    def _note(self, what: str) -> None:
        self._done.append(what)
        self.touched = True


class Group:
    """Several servers that are one."""

    nodes: Sequence[Node]

    @property
    def touched(self) -> bool:
        """Whether anything was done to a node since `heal`."""
        return any(node.touched for node in self.nodes)

    def heal(self) -> None:
        """Bring all nodes back, and wait until they are one again."""
        for node in self.nodes:
            node.heal()
        self.wait_until_ready()

    @abstractmethod
    def wait_until_ready(self) -> None:
        """Return when all nodes are up and agree."""


Servers = TypeVar("Servers", bound=Node | Group)
RUNNING: dict[str, Node | Group] = {}
"""What is to be healthy before each test, by the fixture's name."""


@contextmanager
def running(fixture: str, servers: Servers) -> Iterator[Servers]:
    """Have ``servers`` healed after the tests that touched them, for as long as this lasts."""
    RUNNING[fixture] = servers
    try:
        yield servers
    finally:
        del RUNNING[fixture]
