"""``distjob abort``: ask a long job to stop. Its owner decides."""

from __future__ import annotations

import click

from distjob.cli.options import Seconds, Source, store_options, vm_argument
from distjob.cli.output import fail, printable, terminable
from distjob.protocol.look import JobStatus
from distjob.rules.words import owner_name
from distjob.sharded import connect


@click.command()
@vm_argument()
@click.option("--reason", default="", help="Why, for who owns the job.")
@click.option("--wait", type=Seconds(), metavar="S", help="Seconds to wait until it can be asked.")
@store_options
def abort(vm: str, reason: str, wait: float | None, source: Source) -> None:
    """Ask VM's async job to stop. Its owner is told at once, and decides.

    Begins an abort job for that, and ends it; --wait is how long this may wait in line, job.wait of
    the settings if left out. The first request stands. A job without an owner keeps it for who
    adopts it.

    Exit code 0 if it was asked; 1 if no async job runs; 75 if it could not be asked in time.
    """
    with terminable(), connect(source) as client:
        if client.status(vm).long is None:  # else a sync job that is held would be waited for
            fail(f"VM {vm!r}: no async job runs: there is nothing to abort", 1)
        asked = client.abort(vm, reason=reason, api="distjob abort", wait=wait)
    click.echo(printable(f"VM {vm!r}: {_asked(asked)}"))


def _asked(job: JobStatus) -> str:
    who = f"{job.job} (token {job.token})"
    if job.abort is not None:
        why = f": {job.abort.reason}" if job.abort.reason else ""
        return f"{who} was asked to abort before, by {owner_name(job.abort.by)}{why}"
    owner = f"{job.controller} ({job.host}, pid {job.pid})"
    if job.left:
        return f"{who} is {job.left}, {owner} was its owner: whoever adopts it is asked to abort"
    return f"{who} of {owner} was asked to abort"
