"""What the commands share: how they fail, and how foreign text is shown.

Names of VMs, controllers and APIs come from others: a control character in them must never reach
a terminal.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from distjob.errors import (
    BackendUnavailable,
    BadRequest,
    ConfigError,
    DistjobError,
    JobTimeout,
    OutcomeUnknown,
    QueueFull,
    RecordError,
)

EX_USAGE = 2
EX_DATAERR = 65
EX_LOST = 70
EX_OSERR = 71
EX_TEMPFAIL = 75
EX_CONFIG = 78

_CODES: tuple[tuple[type[DistjobError], int], ...] = (
    (BadRequest, EX_USAGE),
    (RecordError, EX_DATAERR),
    (JobTimeout, EX_TEMPFAIL),
    (QueueFull, EX_TEMPFAIL),
    (BackendUnavailable, EX_TEMPFAIL),
    (OutcomeUnknown, EX_TEMPFAIL),
    (ConfigError, EX_CONFIG),
)


class Group(click.Group):
    """Turns distjob's errors into one line and an exit code, and Ctrl-C into 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DistjobError as error:
            fail(str(error), exit_code(error))
        except KeyboardInterrupt:
            fail("interrupted", 130)


def exit_code(error: DistjobError) -> int:
    """The exit code that tells a script what kind of error it was."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def fail(text: str, code: int) -> NoReturn:
    """One line on stderr, and this exit code."""
    say(text)
    raise click.exceptions.Exit(code) from None


def say(text: str) -> None:
    """One line on stderr."""
    click.echo(f"distjob: {printable(text)}", err=True)


def printable(text: str) -> str:
    """``text`` with every character that is not plainly visible escaped as in Python."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def log_to_stderr(verbose: int) -> None:
    """Warnings as lines of `say`; with ``-v`` all from INFO on, with ``-vv`` all from DEBUG on."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    form = "%(asctime)s %(name)s %(levelname)s %(message)s" if verbose else "distjob: %(message)s"
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable(form))
    logging.basicConfig(level=level, handlers=[handler])


class _Printable(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        record.message = printable(record.message)
        return super().formatMessage(record)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP tidy up and end the process, as Ctrl-C does."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {
        number: signal.signal(number, leave)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
