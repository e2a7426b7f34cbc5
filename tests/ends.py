"""What a test starts comes to an end: signals end it, and nothing is waited for without a limit.

pytest may have been started with signals ignored, by `nohup` or in a script's background, and what
is ignored is inherited: then Ctrl-C would not end a child, nor Ctrl-\\ a shell's. A time-out
interrupts a test once; what hangs in its cleaning up is interrupted again and again.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

import hypothesis
import pytest

AGAIN = 30.0
"""Seconds from a time-out to the next, for a test that does not end."""
ALL_SERVERS = 600.0
"""Seconds for the end of the last test, with which all servers of the run are removed."""
LAST = 60
"""Seconds that the interpreter has for its exit, in which it waits for threads."""
PATIENCE = 10.0
"""Seconds for a killed process to be gone."""

_settings = pytest.StashKey[Any]()


def pytest_configure() -> None:
    """Handle what is ignored: a handler, unlike that, is not inherited by a program that is run.

    And have hypothesis set no deadline.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # some tests press Ctrl-C here
    for number in (signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _nothing)
    # An example that takes long says of the machine that it is busy, and nothing of the code.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("distjob", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("distjob")


def _nothing(number: int, frame: FrameType | None) -> None:
    """Whoever started pytest wants it to go on."""


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Generator[None, Any, Any]:
    """Repeat the alarm: the first may be followed by a wait for a thread that hangs."""
    done = yield
    item.stash[_settings] = settings
    if settings.method == "signal" and signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN)
    return done


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """Set the alarm anew after a test that failed: pytest-timeout takes it back at a failure."""
    if settings := item.stash.get(_settings, None):
        if not signal.getitimer(signal.ITIMER_REAL)[0]:
            item.config.hook.pytest_timeout_set_timer(item=item, settings=settings)
        if nextitem is None and settings.method == "signal":
            signal.setitimer(signal.ITIMER_REAL, ALL_SERVERS, AGAIN)
    yield


def pytest_unconfigure() -> None:
    """Let SIGALRM end the process if a thread that nobody can interrupt holds up its exit."""
    if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker lives until the others have done, too
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LAST)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[Any]]]:
    """Starts processes, as `subprocess.Popen` does, that are killed after the test."""
    with ExitStack() as stack:

        def start(command: Sequence[str], **how: Any) -> subprocess.Popen[Any]:
            return stack.enter_context(started(command, **how))

        yield start


@contextmanager
def started(command: Sequence[str], **how: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process, as by `subprocess.Popen`, that is killed when its block ends, if it lives yet."""
    process = subprocess.Popen(command, **how)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[Any]) -> None:
    """Kill ``process`` if it lives, and close its pipes; nothing that it left in them is read."""
    process.kill()
    try:
        process.wait(PATIENCE)
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with suppress(BrokenPipeError):  # what it never read
                    pipe.close()
