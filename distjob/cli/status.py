"""``distjob status``: who holds and who waits, read without a job.

A table for people on a terminal; elsewhere one line for each job, tab-separated, whose columns
stay as they are; or JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distjob.cli.options import config_option
from distjob.cli.output import printable
from distjob.client import connect
from distjob.jobs import Slot
from distjob.protocol.look import JobStatus, VMStatus

_COLUMNS = (
    *("vm", "state", "slot", "job", "token", "seconds", "controller", "host", "pid", "session"),
    *("lets_in", "api"),
)


@click.command()
@click.argument("vm", required=False)
@config_option
@click.option("--json", "as_json", is_flag=True, help="A JSON list, names unescaped.")
def status(vm: str | None, source: Path | None, as_json: bool) -> None:
    """Show the jobs of VM, or of all VMs: who holds them, who waits, for how long.

    Needs no job and disturbs nobody. "ended" says that a holder's session is over: its job is
    freed by whoever comes next. When the output is no terminal: tab-separated lines under a line
    of column names, control characters escaped as in Python.
    """
    with connect(source) as client:
        found = client.list() if vm is None else [client.status(vm)]
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    rows = [row for one in found for row in _rows(one)]
    if not rows:
        click.echo("nothing is under way" + ("" if vm is None else f" on VM {printable(vm)}"))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        click.echo("\t".join(_COLUMNS))
        for row in rows:
            click.echo("\t".join(row))


def _rows(found: VMStatus) -> list[tuple[str, ...]]:
    mask = ", ".join(found.mask) if found.mask is not None else ""
    return [
        *(_row(found.vm, "holds", job, mask) for job in found.holders),
        *(_row(found.vm, "waits", job, "") for job in found.waiters),
    ]


def _row(vm: str, state: str, job: JobStatus, lets_in: str) -> tuple[str, ...]:
    facts = (
        *(vm, state, job.slot or "-", job.job, str(job.token or "-"), f"{job.seconds:.1f}"),
        *(job.controller, job.host, str(job.pid), "alive" if job.alive else "ended"),
        *((lets_in if job.slot is Slot.ASYNC else "") or "-", job.api),
    )
    return tuple(printable(fact) for fact in facts)


def _print_table(rows: list[tuple[str, ...]]) -> None:
    table = Table("vm", "slot", "job", box=None, pad_edge=False)
    table.add_column("token", no_wrap=True, justify="right")
    table.add_column("seconds", no_wrap=True, justify="right")
    table.add_column("controller")
    table.add_column("api")
    for row in rows:
        fact = dict(zip(_COLUMNS, row, strict=True))
        waits, ended = fact["state"] == "waits", fact["session"] == "ended"
        lets_in = "" if fact["lets_in"] == "-" else f"\nlets in {fact['lets_in']}"
        cells = (
            *(fact["vm"], "waits" if waits else fact["slot"], fact["job"] + lets_in),
            *(fact["token"], fact["seconds"]),
            f"{fact['controller']} ({fact['host']}, pid {fact['pid']})"
            + ("\nsession ended" if ended else ""),
            fact["api"],
        )
        table.add_row(*(Text(cell, "red" if ended else "dim" if waits else "") for cell in cells))
    Console().print(table)
