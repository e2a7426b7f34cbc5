"""What the commands share: how they fail, and how foreign text is shown.

Names of VMs, controllers and APIs come from others: a control character in them must never reach
a terminal.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from io import BufferedWriter, FileIO, TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from distjob.drive.choices import suggestion
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

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

EX_USAGE = 2
EX_DATAERR = 65
EX_LOST = 70
EX_OSERR = 71
EX_IOERR = 74
EX_TEMPFAIL = 75
EX_CONFIG = 78

_handler: logging.Handler = logging.NullHandler()
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
    """Knows its subcommands by a table, and imports one when it is used.

    Turns distjob's errors into one line and an exit code, and Ctrl-C into 130.
    """

    def __init__(self, *arguments: Any, table: Mapping[str, tuple[str, str]], **more: Any) -> None:
        """``table``: by name the module of the subcommand, and what it does in a few words."""
        super().__init__(*arguments, **more)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's
        """In the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import it; None if there is none."""
        if cmd_name not in self._table:
            return None
        found = getattr(import_module(self._table[cmd_name][0]), cmd_name.replace("-", "_"))
        if not isinstance(found, click.Command):
            raise AssertionError(f"{cmd_name} is no command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With "did you mean" for what there is not."""
        if args and args[0] not in self._table and not args[0].startswith("-"):
            ctx.fail(f"no such command: {args[0]!r}{suggestion(args[0], self._table)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in self._table.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The table, likewise; then what any command completes."""
        found = [
            CompletionItem(name, help=short)
            for name, (_, short) in self._table.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DistjobError as error:
            notes = getattr(error, "__notes__", ())  # of which VM, and what became of the others
            fail("; ".join((str(error), *notes)), exit_code(error))
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


class Unwritable(OSError):
    """Stdout takes no more: its disk is full, or broken."""


class _Stdout(FileIO):
    """Tells its errors from those of all other files."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:  # who has read enough is no error: click ends quietly
            raise
        except OSError as error:
            raise Unwritable(error.errno, error.strerror) from None


def tell_of_stdout() -> None:
    """Have what goes wrong with stdout raise `Unwritable`."""
    out = sys.stdout
    if isinstance(out, TextIOWrapper):  # None if it was closed before we began
        file = BufferedWriter(_Stdout(out.fileno(), "w", closefd=False))
        lines = out.line_buffering
        sys.stdout = TextIOWrapper(file, out.encoding, out.errors, line_buffering=lines)


def leave_unwritable(error: Unwritable) -> NoReturn:
    """Say it, and exit; the interpreter's own last flush goes nowhere."""
    say(f"stdout can't be written: {error.strerror}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(EX_IOERR)


def printable(text: str) -> str:
    """``text`` with every character that is not plainly visible escaped as in Python."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def log_to_stderr(verbose: int) -> None:
    """Warnings as lines of `say`; with ``-v`` all from INFO on, with ``-vv`` all from DEBUG on.

    The last call is in force; one without ``-v`` leaves loggers that somebody has set up.
    """
    global _handler  # noqa: PLW0603  the process has one stderr
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    form = "%(asctime)s %(name)s %(levelname)s %(message)s" if verbose else "distjob: %(message)s"
    _handler = logging.StreamHandler()
    _handler.setFormatter(_Printable(form))
    logging.basicConfig(level=level, handlers=[_handler], force=verbose > 0)


def mute(warning: Callable[[logging.LogRecord], bool]) -> None:
    """Leave out warnings that say nothing new here; ``-v`` shows them all the same."""
    if logging.getLogger().level >= logging.WARNING:
        _handler.addFilter(lambda record: not warning(record))


def mute_stores() -> None:
    """For who only looks: what a server could have better is said to controllers, and by doctor."""
    mute(lambda it: it.levelno == logging.WARNING and it.name.startswith("distjob."))


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
