"""``distjob evict``: an operator breaks jobs by force.

It decides what is broken (exactly what it has shown, and the steps of what falls), and that
somebody has said yes to it.
"""

from __future__ import annotations

import sys

import click

from distjob.cli.options import Source, store_options, vm_argument
from distjob.cli.output import EX_USAGE, fail, mute, printable, say, terminable
from distjob.cli.show import facts_of
from distjob.protocol.look import JobStatus, VMStatus
from distjob.rules.jobs import Slot
from distjob.sharded import connect


@click.command()
@vm_argument()
@click.option("--slot", type=click.Choice([slot.value for slot in Slot]), help="Its holder.")
@click.option("--ticket", metavar="ID", help='Who holds or waits by it: see "distjob status".')
@click.option("--all", "everybody", is_flag=True, help="All who hold or wait.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_options
def evict(
    *,
    vm: str,
    slot: str | None,
    ticket: str | None,
    everybody: bool,
    yes: bool,
    source: Source,
) -> None:
    """Break jobs on VM by force. For when their holder can't be reached, or must not go on.

    \b
        distjob evict vm-42 --slot sync

    The holder may be at work, and only a guard keeps it off the VM once the next has come: stop it
    first if you can. It is told at once that its lease is lost; its late end changes nothing. The
    steps of an async job fall with it. Who waits and lives asks again, at the end of the line.
    A job whose session has ended needs no eviction: whoever comes next takes its place.

    Shows what it would break and asks; without a terminal --yes is needed.

    Exit code 0 if something was broken; 1 if there was nothing to break, or the answer was no.
    """
    if (slot is not None) + (ticket is not None) + everybody != 1:
        raise click.UsageError("what is to be broken? give one of --slot, --ticket and --all")
    mute(lambda record: getattr(record, "event", "") == "Evicted")  # it is printed: "broken: ..."
    with terminable(), connect(source) as client:
        shown = _chosen(client.status(vm), slot, ticket)
        if not shown:
            fail(f"VM {vm!r}: there is nothing to break: {_what(slot, ticket)}", 1)
        click.echo(f"on VM {printable(repr(vm))}:")
        for job in shown:
            click.echo(f"  {printable(facts_of(job))}")
        if not yes:
            _ask(len(shown))
        broken = client.evict(vm, [job.ticket for job in shown])
    gone = {job.ticket for job in broken}
    for job in broken:
        click.echo(printable(f"broken: {facts_of(_as_seen(job, shown))}"))
    for job in shown:
        if job.ticket not in gone:
            say(f"VM {vm!r}: {job.job} (ticket {job.ticket}) had ended by itself")
    if not broken:
        fail(f"VM {vm!r}: nothing was broken", 1)


def _chosen(found: VMStatus, slot: str | None, ticket: str | None) -> list[JobStatus]:
    """Each job once, a job in two slots in the first of them; with an async job its steps."""
    jobs = {job.ticket: job for job in reversed((*found.holders, *found.waiters))}
    if slot is not None:
        wanted = {job.ticket for job in found.holders if job.slot == slot}
    elif ticket is not None:
        wanted = {ticket}
    else:
        wanted = set(jobs)
    if (long := found.long) is not None and long.ticket in wanted:
        wanted |= {job.ticket for job in jobs.values() if _is_step_of(long, job)}
    return [job for job in reversed(jobs.values()) if job.ticket in wanted]


def _is_step_of(long: JobStatus, job: JobStatus) -> bool:
    return job.session == long.session and job.job.startswith("nested step of ")


def _what(slot: str | None, ticket: str | None) -> str:
    if slot is not None:
        return f"nobody holds the {slot} slot"
    return "nothing is under way" if ticket is None else f"nobody holds or waits by {ticket!r}"


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        fail("nothing was broken: no terminal to ask on, give --yes", EX_USAGE)
    jobs = "this job" if count == 1 else f"these {count} jobs"
    if not click.confirm(f"Break {jobs} by force?", default=False):
        fail("nothing was broken", 1)


def _as_seen(job: JobStatus, shown: list[JobStatus]) -> JobStatus:
    """Whether its session lived was asked before; a step may have come since."""
    return next((seen for seen in shown if seen.ticket == job.ticket), job)
