"""How jobs are shown: a table for people, tab-separated lines for scripts.

The lines' columns stay as they are; new ones come after them. Everything that others have written
is escaped here. What is not here: JSON (data.py), and which jobs are shown (choose.py).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

import click

from distjob.cli.output import printable
from distjob.protocol.look import JobStatus, VMStatus
from distjob.rules.jobs import AsyncJob, Slot
from distjob.rules.ticket import Left, Progress
from distjob.rules.words import owner_name

Row = Mapping[str, str]
"""One job, by column."""
COLUMNS = (
    *("vm", "state", "slot", "job", "token", "seconds", "controller", "host", "pid", "session"),
    *("lets_in", "api", "phase", "progress", "abort", "left", "on_owner_loss", "ticket"),
    *("place", "waits_for"),
)


def show(
    found: Sequence[VMStatus], columns: Sequence[str] = COLUMNS, *, header: bool = True
) -> bool:
    """All jobs, on stdout; False if there are none, and nothing is printed.

    On a terminal a table, unless lines are asked for by how they are to look.
    """
    rows = rows_of(found)
    if rows and sys.stdout.isatty() and header and columns is COLUMNS:
        from distjob.cli.table import printed  # rich is slow to import

        printed(rows)
    elif rows:
        lines = [[row[name] for name in columns] for row in rows]
        click.echo("\n".join("\t".join(line) for line in [columns, *lines][not header :]))
    return bool(rows)


def rows_of(found: Iterable[VMStatus]) -> list[Row]:
    """One row for each job, what does not apply is ``-``."""
    return [row for vm in found for row in _rows(vm)]


def is_hold(job: JobStatus) -> bool:
    """Whether it is a person's, begun by `distjob hold`: it needs no owner."""
    return job.job == f"async {AsyncJob.MAINTENANCE}" and job.left is Left.DETACHED


def facts_of(job: JobStatus) -> str:
    """One job on one line, with all that an operator decides by."""
    where = "waits" if job.slot is None else f"holds the {job.slot} slot"
    state = job.left or ("session alive" if job.alive else "session ended")
    return (
        f"{job.job} of {job.controller} ({job.host}, pid {job.pid}), api {job.api}, {where},"
        f" {job.seconds:.1f} s, token {job.token or '-'}, {state}, ticket {job.ticket}"
    )


def _rows(found: VMStatus) -> list[Row]:
    mask = ", ".join(found.mask) if found.mask is not None else ""
    names = {job.ticket: f"{job.controller}'s {job.job}" for job in found.holders}
    return [
        *(_row(found.vm, job, lets_in=mask) for job in found.holders),
        *(
            _row(
                found.vm,
                job,
                place=str(place),
                waits_for=", ".join(names[ticket] for ticket in job.waits_for),
            )
            for place, job in enumerate(found.waiters, 1)
        ),
    ]


def _row(
    vm: str, job: JobStatus, *, lets_in: str = "", place: str = "", waits_for: str = ""
) -> Row:
    facts = {
        "vm": vm,
        "state": "waits" if place else "holds",
        "slot": job.slot or "",
        "job": job.job,
        "token": str(job.token or ""),
        "seconds": f"{job.seconds:.1f}",
        "controller": job.controller,
        "host": job.host,
        "pid": str(job.pid),
        "session": "" if job.left else "alive" if job.alive else "ended",
        "lets_in": lets_in if job.slot is Slot.ASYNC else "",
        "api": job.api,
        "phase": job.phase,
        "progress": _progress(job.progress),
        "abort": _abort(job),
        "left": "held by a person" if is_hold(job) else job.left or "",
        "on_owner_loss": job.on_owner_loss or "",
        "ticket": job.ticket,
        "place": place,
        "waits_for": waits_for,
    }
    return {name: printable(fact) or "-" for name, fact in facts.items()}


def _progress(progress: Progress | None) -> str:
    """``12/40 GiB, 30 %``."""
    if progress is None:
        return ""
    text = f"{progress.done:.12g}"
    if progress.total is not None:
        text += f"/{progress.total:.12g}"
    text += f" {progress.unit}" if progress.unit else ""
    return f"{text}, {progress.done / progress.total:.0%}" if progress.total else text


def _abort(job: JobStatus) -> str:
    if job.abort is None:
        return ""
    return f"by {owner_name(job.abort.by)}" + (f": {job.abort.reason}" if job.abort.reason else "")
