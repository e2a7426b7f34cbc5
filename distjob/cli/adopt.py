"""``distjob adopt`` and ``discard``: async jobs that have no owner.

It decides that an adopted job is ended only by a command that succeeded; whatever else happens, it
is left to the next.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from distjob.cli.hold import check_system, connected, hold
from distjob.cli.options import (
    Runs,
    Source,
    Words,
    store_options,
    vm_argument,
)
from distjob.cli.output import printable, say, terminable
from distjob.cli.show import facts_of
from distjob.config import load
from distjob.errors import DistjobError
from distjob.lease import AsyncJobLease
from distjob.rules.jobs import AsyncJob
from distjob.sharded import connect


@click.command(cls=Runs)
@vm_argument()
@click.argument("kind", type=Words(AsyncJob))
@click.option("--api", default="", help="What is being done, shown to whom it keeps waiting.")
@store_options
def adopt(vm: str, kind: str, command: tuple[str, ...], api: str, source: Source) -> None:
    """Adopt VM's async job of type KIND, and run COMMAND as its owner.

    \b
        distjob adopt vm-42 migration-out -- ./finish-migration.sh vm-42

    The job must have been detached, or be an orphan: see "distjob ls --orphans". COMMAND runs as
    under "distjob run", with its own DISTJOB_TOKEN and DISTJOB_FENCE, and beside them
    DISTJOB_PHASE, DISTJOB_PROGRESS and DISTJOB_ABORT: what the owner before has said last, and what
    was asked of it; empty if nothing was.

    If COMMAND exits with 0 the job is ended. If not, or if it could not be run, the job is detached
    again, and keeps its phase.

    Exit code: as "distjob run"; 1 if there is no such job, or its owner lives.
    """
    check_system()
    settings = load(source)
    with terminable(), connected(settings) as client:
        lease = client.adopt(vm, AsyncJob(kind), api=api)
        with _left_to_the_next(lease):
            progress, abort = lease.progress, lease.abort_requested
            code = hold(
                client,
                lease,
                command,
                settings=settings,
                finish=lambda code: _finish(lease, code),
                DISTJOB_PHASE=lease.phase,
                DISTJOB_PROGRESS="" if progress is None else f"{progress.done:.12g}",
                DISTJOB_ABORT="" if abort is None else abort.reason or "no reason given",
            )
    sys.exit(code)


def _finish(lease: AsyncJobLease, code: int) -> None:
    if code == 0:
        lease.end()
    else:
        _detach(lease, f"the command's exit code is {code}")


@contextmanager
def _left_to_the_next(lease: AsyncJobLease) -> Iterator[None]:
    """Closing the client would end a job that is not kept for the next."""
    try:
        yield
    finally:
        if not lease.ended and not lease.lost:
            try:
                _detach(lease, "it did not come to its end")
            except DistjobError as error:
                say(str(error))


def _detach(lease: AsyncJobLease, why: str) -> None:
    lease.detach()
    text = f"VM {lease.vm!r}: {lease.job} (token {lease.token}) is detached again: {why}"
    say(f"{text}. Adopt or discard it")


@click.command()
@vm_argument()
@store_options
def discard(vm: str, source: Source) -> None:
    """End VM's async job if it has no owner: it was detached, is an orphan, or a hold.

    Its steps end with it, by force. What it has half done stays half done: look first, at
    "distjob status VM".

    Exit code 0; 1 if no async job runs, or its owner lives.
    """
    with terminable(), connect(source) as client:
        gone = client.discard(vm)
    click.echo(printable(f"VM {vm!r}: discarded: {facts_of(gone)}"))
