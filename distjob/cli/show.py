"""How jobs are shown: a table for people, tab-separated lines for scripts, JSON.

The lines' columns stay as they are; new ones come after them. Everything that others have written
is escaped here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distjob.cli.output import printable
from distjob.jobs import Slot
from distjob.protocol.look import JobStatus, VMStatus
from distjob.ticket import Progress
from distjob.words import owner_name

_COLUMNS = (
    *("vm", "state", "slot", "job", "token", "seconds", "controller", "host", "pid", "session"),
    *("lets_in", "api", "phase", "progress", "abort", "left", "on_owner_loss", "ticket"),
)
_NOTES = (
    *(("lets in ", "lets_in"), ("phase ", "phase"), ("progress ", "progress")),
    *(("asked to abort ", "abort"), ("if its owner is lost: ", "on_owner_loss")),
)


def show(found: Sequence[VMStatus]) -> bool:
    """All jobs, on stdout; False if there are none, and nothing is printed."""
    rows = rows_of(found)
    if rows and sys.stdout.isatty():
        Console().print(table(rows))
    elif rows:
        click.echo("\n".join("\t".join(row) for row in (_COLUMNS, *rows)))
    return bool(rows)


def as_json(found: Sequence[VMStatus], *, indent: int | None = 2) -> str:
    """Names unescaped but for JSON's own escapes."""
    return json.dumps(msgspec.to_builtins(found), indent=indent)


def rows_of(found: Iterable[VMStatus]) -> list[tuple[str, ...]]:
    """One row for each job, what does not apply is ``-``."""
    return [row for vm in found for row in _rows(vm)]


def table(rows: Iterable[tuple[str, ...]]) -> Table:
    """For a terminal; red are those whose session is over, or who have no owner."""
    shown = Table("vm", "slot", "job", box=None, pad_edge=False)
    shown.add_column("token", no_wrap=True, justify="right")
    shown.add_column("seconds", no_wrap=True, justify="right")
    shown.add_column("controller")
    shown.add_column("api")
    for row in rows:
        fact = dict(zip(_COLUMNS, row, strict=True))
        waits, left = fact["state"] == "waits", fact["left"] != "-"
        ended = fact["session"] == "ended"
        notes = [f"{words}{fact[name]}" for words, name in _NOTES if fact[name] != "-"]
        who = f"{fact['controller']} ({fact['host']}, pid {fact['pid']})"
        who += f"\n{fact['left']}: this was its owner" if left else ""
        cells = (
            *(fact["vm"], "waits" if waits else fact["slot"], "\n  ".join([fact["job"], *notes])),
            *(fact["token"], fact["seconds"], who + ("\nsession ended" if ended else "")),
            fact["api"],
        )
        style = "red" if ended or left else "dim" if waits else ""
        shown.add_row(*(Text(cell, style) for cell in cells))
    return shown


def facts_of(job: JobStatus) -> str:
    """One job on one line, with all that an operator decides by."""
    where = "waits" if job.slot is None else f"holds the {job.slot} slot"
    state = job.left or ("session alive" if job.alive else "session ended")
    return (
        f"{job.job} of {job.controller} ({job.host}, pid {job.pid}), api {job.api}, {where},"
        f" {job.seconds:.1f} s, token {job.token or '-'}, {state}, ticket {job.ticket}"
    )


def _rows(found: VMStatus) -> list[tuple[str, ...]]:
    mask = ", ".join(found.mask) if found.mask is not None else ""
    return [
        *(_row(found.vm, "holds", job, mask) for job in found.holders),
        *(_row(found.vm, "waits", job, "") for job in found.waiters),
    ]


def _row(vm: str, state: str, job: JobStatus, lets_in: str) -> tuple[str, ...]:
    session = "-" if job.left else "alive" if job.alive else "ended"
    facts = (
        *(vm, state, job.slot or "-", job.job, str(job.token or "-"), f"{job.seconds:.1f}"),
        *(job.controller, job.host, str(job.pid), session),
        *((lets_in if job.slot is Slot.ASYNC else "") or "-", job.api),
        *(job.phase or "-", _progress(job.progress), _abort(job), job.left or "-"),
        *(job.on_owner_loss or "-", job.ticket),
    )
    return tuple(printable(fact) for fact in facts)


def _progress(progress: Progress | None) -> str:
    """``12/40 GiB, 30 %``."""
    if progress is None:
        return "-"
    text = f"{progress.done:.12g}"
    if progress.total is not None:
        text += f"/{progress.total:.12g}"
    text += f" {progress.unit}" if progress.unit else ""
    return f"{text}, {progress.done / progress.total:.0%}" if progress.total else text


def _abort(job: JobStatus) -> str:
    if job.abort is None:
        return "-"
    return f"by {owner_name(job.abort.by)}" + (f": {job.abort.reason}" if job.abort.reason else "")
