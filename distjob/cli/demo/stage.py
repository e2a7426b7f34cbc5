"""The demo's stage: the controllers' processes, what they report, and the timeline that shows it.

It decides nothing of the play. Whatever happens, leaving the stage ends all processes.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from distjob import clock
from distjob.cli.output import printable

PATIENCE = 15.0
"""Seconds in which every step of the demo must have happened."""
_COLORS = {"ctl-a": "cyan", "ctl-b": "magenta", "ctl-c": "yellow", "demo": "bold"}


class Event(NamedTuple):
    """What a controller reported."""

    who: str
    name: str
    at: float
    facts: dict[str, Any]

    @property
    def token(self) -> int:
        return int(self.facts.get("token", 0))


class Missing(Exception):
    """A step of the demo did not happen in time, or a controller failed."""


class Remote:
    """A controller in a process of its own."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.process = process

    def tell(self, verb: str, **arguments: object) -> None:
        if self.process.stdin is None:
            raise Missing(f"{self.name} can't be told anything")
        try:
            self.process.stdin.write(json.dumps({"do": verb, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise Missing(f"{self.name} has ended") from error

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        """By its closed stdin if it listens, by force if not."""
        with suppress(OSError):
            self.send(signal.SIGCONT)
        if self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()
        for seconds, number in ((1, signal.SIGTERM), (3, signal.SIGKILL)):
            try:
                self.process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                self.send(number)
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


class Stage:
    """Starts controllers, shows and keeps their events, waits for one of them."""

    def __init__(self, config: str | Path, ttl: float, vm: str, folder: Path) -> None:
        self._arguments = (str(config), repr(ttl))
        self._place = (vm, str(folder))
        self._selector = selectors.DefaultSelector()
        self._remotes: list[Remote] = []
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = clock.monotonic()
        self.events: list[Event] = []

    def start(self, name: str) -> Remote:
        """A controller; it says ``ready`` when it has a session."""
        process = subprocess.Popen(  # noqa: S603  its own program
            [
                *(sys.executable, "-P", "-m", "distjob.cli.demo.controller"),
                *(*self._arguments, name, *self._place),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is the demo's alone
        )
        remote = Remote(name, process)
        self._remotes.append(remote)
        if process.stdout:
            self._selector.register(process.stdout, selectors.EVENT_READ, (remote, bytearray()))
        return remote

    def wait(self, what: str, wanted: Callable[[Event], bool], *, after: int = 0) -> Event:
        """The first event since number ``after`` that is ``wanted``. Raises Missing."""
        limit, seen = clock.monotonic() + PATIENCE, after
        while True:
            for event in self.events[seen:]:
                if wanted(event):
                    return event
            seen = len(self.events)
            left = limit - clock.monotonic()
            ready = self._selector.select(max(0.0, left))
            if left <= 0 or not ready:
                raise Missing(f"{what}: did not happen within {PATIENCE:g} s")
            for key, _ in ready:
                remote, buffer = key.data
                data = os.read(key.fd, 65536)
                if not data:
                    self._selector.unregister(key.fileobj)
                buffer += data
                *lines, rest = bytes(buffer).split(b"\n")
                buffer[:] = rest
                for line in lines:
                    self._note(remote.name, json.loads(line))

    def expect(self, who: Remote, *names: str, after: int = 0) -> Event:
        """The next event of ``who`` of one of these names; any other refusal is a failure."""

        def wanted(event: Event) -> bool:
            if event.who != who.name:
                return False
            if event.name == "refused" and "refused" not in names:
                raise Missing(f"{who.name} was refused: {event.facts['said']}")
            return event.name in names

        return self.wait(f"{who.name}: {' or '.join(names)}", wanted, after=after)

    def order(self, who: Remote, verb: str, *names: str, **arguments: object) -> Event:
        """Tell, and wait for the event that answers it."""
        after = len(self.events)
        who.tell(verb, **arguments)
        return self.expect(who, *names, after=after)

    def say(self, text: str) -> None:
        """A line of the demo's own in the timeline."""
        self._show(clock.monotonic(), "demo", text)

    def title(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, "bold"))

    def verdict(self, text: str, *, good: bool) -> None:
        mark = Text("ok      ", "green") if good else Text("FAILED  ", "bold red")
        self._console.print(mark + Text(printable(text)))

    def close(self) -> None:
        for remote in self._remotes:  # all at once, then one after the other
            if remote.process.stdin:
                with suppress(OSError):
                    remote.send(signal.SIGCONT)
                    remote.process.stdin.close()
        for remote in self._remotes:
            remote.end()
        self._selector.close()

    def _note(self, who: str, facts: dict[str, Any]) -> None:
        event = Event(who, facts.pop("event"), facts.pop("at"), facts)
        self.events.append(event)
        self._show(event.at, who, _words(event))

    def _show(self, at: float, who: str, text: str) -> None:
        when = Text(f"{at - self._started:7.2f} s  ", "dim")
        self._console.print(when + Text(f"{who:<7}", _COLORS[who]) + Text(printable(text)))


@contextmanager
def staged(config: str | Path, ttl: float, vm: str, folder: Path) -> Iterator[Stage]:
    """A stage that is cleared in the end."""
    stage = Stage(config, ttl, vm, folder)
    try:
        yield stage
    finally:
        stage.close()


def _words(event: Event) -> str:
    facts = event.facts
    match event.name:
        case "ready":
            return f"is connected, pid {facts['pid']}"
        case "waits":
            return f"wants {facts['job']}, waits for {', '.join(facts['for']) or 'its turn'}"
        case "begun":
            return f"holds {facts['job']}, token {facts['token']}"
        case "wrote":
            return f"writes {facts['text']!r} with token {facts['token']}"
        case "ends":
            return f"ends {facts['job']}, token {facts['token']}"
        case "allows":
            return f"lets in {', '.join(facts['jobs'])} from now on"
        case "checked":
            state = "lost" if facts["lost"] else "held"
            return f"sees that its lease, token {facts['token']}, is {state}"
        case _:
            return f"is refused: {facts['error']}: {facts['said']}"
