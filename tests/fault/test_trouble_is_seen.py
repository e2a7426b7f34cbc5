"""A store that is killed under a client that holds a job: what is seen where, and in which order.

With ``-s`` it prints what each place said, by the second since the kill.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from book import Book
from distjob import clock, connect
from distjob.hooks import Event, Lost, RenewalFailed, SessionLost, SessionOpened
from distjob.hooks.logs import LogHook
from ends import end
from serving import Served, served
from until import until

pytestmark = pytest.mark.xdist_group("browser")
TTL = 6.0
LS = (sys.executable, "-c", "from distjob.cli import main; main()", "ls", "--watch")


class Journal:
    """What was said where, and when, by the seconds since the store was killed."""

    def __init__(self) -> None:
        self.began = clock.monotonic()
        self.lines: list[tuple[float, str, str]] = []
        self._told: dict[str, str] = {}

    def say(self, where: str, what: str) -> None:
        if what and self._told.get(where) != what:  # once, until it changes
            self._told[where] = what
            self.lines.append((clock.monotonic(), where, what))

    def first(self, where: str, what: str) -> float:
        return next(
            when - self.began
            for when, at, said in self.lines
            if at == where and re.search(what, said)
        )

    def has(self, where: str, what: str) -> bool:
        return any(at == where and re.search(what, said) for _, at, said in self.lines)

    def __str__(self) -> str:
        return "\n".join(
            f"{when - self.began:6.2f} s  {at:8} {said}" for when, at, said in self.lines
        )


class _ToJournal(logging.Handler):
    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self.journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self.journal.say("log", f"{record.levelname} {record.getMessage()}")


def _reader(stream: Any, tell: Callable[[str], None]) -> threading.Thread:
    def read() -> None:
        for line in stream:
            tell(line.strip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return reader


def _look(journal: Journal, book: Book, server: Served, browser: Any) -> None:
    ready = server.ask("/readyz")
    trouble = ready.json["store"]["trouble"]
    journal.say("readyz", f"{ready.status} {trouble}".strip())
    journal.say("page", browser.find_element(By.ID, "trouble").text)
    names = ("session_up", "renewals_failed_total", "held")
    values = [book(name, **({"type": "modify"} if name == "held" else {})) for name in names]
    lost = book("lost_total", type="modify", how="session")
    journal.say(
        "metrics",
        f"up {values[0]:g}, failed renewals {values[1]:g}, held {values[2]:g}, lost {lost:g}",
    )


def test_a_store_is_killed_under_a_client_that_holds(
    redis_server: Any, fresh_namespace: str, tmp_path: Path, book: Book, browser: Any
) -> None:
    settings = {
        "namespace": fresh_namespace,
        "session": {"ttl": TTL},
        "redis": {"url": redis_server.url, "timeout": 1.0},
    }
    journal = Journal()
    handler, log = _ToJournal(journal), logging.getLogger("distjob")

    def hook(event: Event) -> None:
        if isinstance(event, RenewalFailed | Lost | SessionLost | SessionOpened):
            journal.say("hook", type(event).__name__)

    log.addHandler(handler)
    config = tmp_path / "distjob.yaml"
    with (
        served(settings, tmp_path) as server,
        connect(settings, hooks=[hook, LogHook(), book.metrics]) as jobs,
    ):
        config.write_text((tmp_path / "serve.json").read_text())
        watching = subprocess.Popen(
            [*LS, "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        reader = _reader(watching.stdout, partial(journal.say, "ls"))
        browser.get(server.url)
        try:
            lease = jobs.begin("vm-1", "modify")
            look = partial(_look, journal, book, server, browser)
            until(lambda: "vm-1" in browser.find_element(By.ID, "vms").text)
            until(lambda: journal.has("ls", "vm-1"))
            look()
            journal.began = clock.monotonic()
            redis_server.kill()
            try:
                until(lambda: look() or book("session_up") == 0)
                assert lease.lost
                until(lambda: journal.has("ls", "Redis") and journal.has("page", "can.t be read"))
                look()
            finally:
                redis_server.start()
            until(lambda: look() or (server.ask("/readyz").status == 200 and book("session_up")))
            until(lambda: not browser.find_element(By.ID, "trouble").is_displayed())
        finally:
            watching.send_signal(signal.SIGINT)
            end(watching)
            reader.join(20)
            log.removeHandler(handler)
            print(f"\n{journal}")

    assert journal.first("hook", "RenewalFailed") < journal.first("hook", "^Lost")
    assert journal.first("log", "could not be renewed") < journal.first("log", "is lost after")
    assert journal.first("metrics", "up 1, failed renewals [1-9]") < journal.first(
        "metrics", "up 0"
    )
    assert journal.has("metrics", "up 0, .* held 0, lost 1")
    assert journal.has("readyz", "^503 .")
    assert journal.first("hook", "SessionOpened") < 0, "before the kill"
    assert sum(at == "hook" and said == "SessionOpened" for _, at, said in journal.lines) == 2
