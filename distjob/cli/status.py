"""``distjob status``: who holds and who waits, read without a job."""

from __future__ import annotations

from collections.abc import Sequence

import click

from distjob.cli.choose import column_options
from distjob.cli.options import Source, store_options, vm_argument
from distjob.cli.output import mute_stores, printable
from distjob.cli.show import show
from distjob.sharded import connect


@click.command()
@vm_argument(required=False)
@column_options
@click.option("--json", "json_", is_flag=True, help='JSON: see "distjob schema status".')
@store_options
def status(
    vm: str | None, source: Source, json_: bool, columns: Sequence[str], no_header: bool
) -> None:
    """Show the jobs of VM, or of all VMs: who holds them, who waits for whom, for how long.

    Needs no job and disturbs nobody. "ended" says that a holder's session is over: its job is
    freed by whoever comes next. An async job that is "detached" or "orphaned" has no owner: it
    stays until it is adopted or discarded. When the output is no terminal: tab-separated lines
    under a line of column names, control characters escaped as in Python.
    """
    mute_stores()
    with connect(source) as client:
        found = client.list() if vm is None else [client.status(vm)]
    if json_:
        from distjob.cli.data import status_json

        click.echo(status_json(found))
    elif not show(found, columns, header=not no_header):
        click.echo("nothing is under way" + ("" if vm is None else f" on VM {printable(vm)}"))
