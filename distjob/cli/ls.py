"""``distjob ls``: the VMs that are not idle, once or again and again.

It decides when it looks, and that a store which is away for a while ends no watch.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import click

from distjob.cli.choose import chosen, column_options, filter_options
from distjob.cli.data import status_json
from distjob.cli.hold import connected
from distjob.cli.options import Seconds, Source, complete_vms, store_options
from distjob.cli.output import mute_stores, printable, say, terminable
from distjob.cli.show import rows_of, show
from distjob.config import load
from distjob.errors import BackendUnavailable, DistjobError
from distjob.protocol.look import VMStatus

_FASTEST, _SLOWEST = 0.1, 86_400.0
Show = Callable[[Sequence[VMStatus] | DistjobError], None]


@click.command()
@click.argument("vms", nargs=-1, metavar="[VM]...", shell_complete=complete_vms)
@filter_options
@click.option(
    "--watch",
    type=Seconds(),
    is_flag=False,
    flag_value="2",
    metavar="[S]",
    help="Look again every S seconds (2), until Ctrl-C.",
)
@column_options
@click.option("--json", "json_", is_flag=True, help="JSON; with --watch one text a line.")
@store_options
def ls(
    *,
    vms: tuple[str, ...],
    source: Source,
    watch: float | None,
    json_: bool,
    columns: Sequence[str],
    no_header: bool,
    **filters: Any,
) -> None:
    """List the jobs of all VMs that are not idle, or of the VMs that are named.

    Who holds, who waits for whom, for how long.

    With each async job its phase, its progress, whether it was asked to abort, and whether it has
    lost its owner. The columns are those of "distjob status". Walks the whole namespace at each
    look, unless VMs are named.

    --watch goes on until Ctrl-C, then exits with 0. On a terminal it shows what fits, and says how
    many more there are. While the store can't be reached it says so, and tries again.
    """
    if watch is not None and not _FASTEST <= watch <= _SLOWEST:
        raise click.UsageError(f"--watch takes {_FASTEST:g} to {_SLOWEST:.0f} seconds")

    def lines(found: Sequence[VMStatus]) -> bool:
        return show(found, columns, header=not no_header)

    mute_stores()
    empty = _nothing(vms=vms, **filters)
    with terminable(), connected(load(source)) as client:

        def look() -> Sequence[VMStatus]:
            found = [client.status(vm) for vm in vms] if vms else client.list()
            return chosen([vm for vm in found if not vm.idle], **filters)

        if watch is None:
            found = look()
            if json_:
                click.echo(status_json(found))
            elif not lines(found):
                click.echo(empty)
            return
        with nullcontext(_line) if json_ else _screen(empty, lines) as shown:
            _watch(look, watch, shown)


def _nothing(*, orphans: bool, sort: str, **narrowed: Any) -> str:  # noqa: ARG001  no filter
    if any(narrowed.values()):
        return "nothing that is under way is like that"
    return "no async job is without an owner" if orphans else "nothing is under way"


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
        click.echo(status_json(found, indent=None))


@contextmanager
def _screen(empty: str, lines: Callable[[Sequence[VMStatus]], bool]) -> Iterator[Show]:
    """On a terminal a table that changes in place; elsewhere one table below the other."""
    if not sys.stdout.isatty():

        def below(found: Sequence[VMStatus] | DistjobError) -> None:
            if isinstance(found, DistjobError):
                say(str(found))
            else:
                click.echo("" if lines(found) else f"{empty}\n")

        yield below
        return
    from rich.live import Live

    from distjob.cli.table import Screenful

    shown = Screenful()
    with Live(shown, screen=True, auto_refresh=False) as live:

        def in_place(found: Sequence[VMStatus] | DistjobError) -> None:
            shown.trouble = printable(str(found)) if isinstance(found, DistjobError) else ""
            if not isinstance(found, DistjobError):
                shown.rows, shown.empty = rows_of(found), empty
            live.refresh()

        yield in_place
