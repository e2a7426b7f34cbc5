"""``distjob status``: who holds and who waits, read without a job."""

from __future__ import annotations

from pathlib import Path

import click

from distjob.cli.options import config_option
from distjob.cli.output import printable
from distjob.cli.show import as_json, show
from distjob.sharded import connect


@click.command()
@click.argument("vm", required=False)
@config_option
@click.option("--json", "json_", is_flag=True, help="A JSON list, names unescaped.")
def status(vm: str | None, source: Path | None, json_: bool) -> None:
    """Show the jobs of VM, or of all VMs: who holds them, who waits, for how long.

    Needs no job and disturbs nobody. "ended" says that a holder's session is over: its job is
    freed by whoever comes next. An async job that is "detached" or "orphaned" has no owner: it
    stays until it is adopted or discarded. When the output is no terminal: tab-separated lines
    under a line of column names, control characters escaped as in Python.
    """
    with connect(source) as client:
        found = client.list() if vm is None else [client.status(vm)]
    if json_:
        click.echo(as_json(found))
    elif not show(found):
        click.echo("nothing is under way" + ("" if vm is None else f" on VM {printable(vm)}"))
