"""``distjob ls``: all VMs that are not idle, once or again and again.

It decides when it looks, and that a store which is away for a while ends no watch.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from distjob.cli.hold import connected
from distjob.cli.options import config_option
from distjob.cli.output import printable, say, terminable
from distjob.cli.show import as_json, rows_of, show, table
from distjob.config import load
from distjob.errors import BackendUnavailable, DistjobError
from distjob.protocol.look import VMStatus

_NOTHING = "nothing is under way"
_NO_ORPHANS = "no async job is without an owner"
_FASTEST, _SLOWEST = 0.1, 86_400.0
Show = Callable[[Sequence[VMStatus] | DistjobError], None]


@click.command()
@config_option
@click.option("--orphans", is_flag=True, help="Only VMs whose async job has no owner.")
@click.option(
    "--watch",
    type=float,
    is_flag=False,
    flag_value=2.0,
    metavar="[S]",
    help="Look again every S seconds (2), until Ctrl-C.",
)
@click.option("--json", "json_", is_flag=True, help="A JSON list; with --watch one a line.")
def ls(source: Path | None, orphans: bool, watch: float | None, json_: bool) -> None:
    """List the jobs of all VMs that are not idle: who holds, who waits, for how long.

    With each async job its phase, its progress, whether it was asked to abort, and whether it has
    lost its owner. The columns are those of "distjob status". Walks the whole namespace at each
    look.

    --watch goes on until Ctrl-C, then exits with 0. While the store can't be reached it says so,
    and tries again.
    """
    if watch is not None and not _FASTEST <= watch <= _SLOWEST:
        raise click.UsageError(f"--watch takes {_FASTEST:g} to {_SLOWEST:.0f} seconds")
    empty = _NO_ORPHANS if orphans else _NOTHING
    with terminable(), connected(load(source)) as client:
        look = client.orphans if orphans else client.list
        if watch is None:
            found = look()
            if json_:
                click.echo(as_json(found))
            elif not show(found):
                click.echo(empty)
            return
        with nullcontext(_line) if json_ else _screen(empty) as shown:
            _watch(look, watch, shown)


def _watch(look: Callable[[], Sequence[VMStatus]], seconds: float, shown: Show) -> None:
    pause = threading.Event()
    try:
        while True:
            try:
                shown(look())
            except BackendUnavailable as error:
                shown(error)
            pause.wait(seconds)
    except KeyboardInterrupt:
        return


def _line(found: Sequence[VMStatus] | DistjobError) -> None:
    if isinstance(found, DistjobError):
        say(str(found))
    else:
        click.echo(as_json(found, indent=None))


@contextmanager
def _screen(empty: str) -> Iterator[Show]:
    """On a terminal a table that changes in place; elsewhere one table below the other."""
    if not sys.stdout.isatty():

        def below(found: Sequence[VMStatus] | DistjobError) -> None:
            if isinstance(found, DistjobError):
                say(str(found))
            else:
                click.echo("" if show(found) else f"{empty}\n")

        yield below
        return
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        last: list[VMStatus] = []

        def in_place(found: Sequence[VMStatus] | DistjobError) -> None:
            trouble = Text(printable(str(found)), "red") if isinstance(found, DistjobError) else ""
            if not isinstance(found, DistjobError):
                last[:] = found
            body = table(rows_of(last)) if last else Text(empty)
            live.update(Group(trouble, body), refresh=True)  # what is below may not fit

        yield in_place
