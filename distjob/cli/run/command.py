"""``distjob run``: a command that runs only while its job is held. It decides what is begun."""

from __future__ import annotations

import sys

import click

from distjob.cli.hold import check_system, connected, hold
from distjob.cli.options import Runs, Seconds, Source, Words, store_options, vm_argument
from distjob.cli.output import terminable
from distjob.config import load
from distjob.lease import Lease
from distjob.rules.jobs import PLAIN_JOBS, AgentJob, AsyncJob, Job


@click.command(cls=Runs)
@vm_argument()
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--job", type=Words(PLAIN_JOBS), help="The sync job to hold.")
@click.option("--agent", type=Words(AgentJob), help="The guest agent's job to hold.")
@click.option("--async", "kind", type=Words(AsyncJob), help="The async job to hold.")
@click.option("--wait", type=Seconds(), metavar="S", help="To wait for it, else job.wait.")
@click.option("--api", default="", help="What is being done, shown to whom it keeps waiting.")
@store_options
def run(
    *,
    vm: str,
    command: tuple[str, ...],
    job: str | None,
    agent: str | None,
    kind: str | None,
    wait: float | None,
    api: str,
    source: Source,
) -> None:
    """Run COMMAND while a job on VM is held.

    \b
        distjob run vm-42 --job modify -- virsh attach-disk vm-42 /dev/sdb vdb
        distjob run vm-42 --async backup --wait 600 -- ./backup.sh vm-42

    Give --job, --agent (or both), or --async. The command finds DISTJOB_VM, DISTJOB_JOB,
    DISTJOB_TOKEN (the grant's number, for logs) and DISTJOB_FENCE in its environment.

    All its processes are stopped (SIGTERM, then SIGKILL) before the job can pass to another: also
    if this process is killed or stopped, or its store is cut off. What they start elsewhere
    (by systemd, docker or ssh, say) is out of reach: give DISTJOB_FENCE to a guard there, as by
    "distjob guard admit".

    Exit code: the command's, or 128+N if signal N ended it; 70 if it was stopped because the job
    was about to be lost; 75 if the job could not be begun in time; 78 settings; 126 and 127 the
    command can't be run, or found.
    """
    if kind and (job or agent):
        raise click.UsageError("--async goes without --job and --agent")
    if not (kind or job or agent):
        raise click.UsageError("which job? give --job, --agent or --async")
    check_system()
    settings = load(source)
    with terminable(), connected(settings) as client:
        if kind:
            lease: Lease = client.begin_async(vm, AsyncJob(kind), api=api, wait=wait)
        elif job:
            both = AgentJob(agent) if agent else None
            lease = client.begin(vm, Job(job), agent=both, api=api, wait=wait)
        else:
            lease = client.begin_agent(vm, AgentJob(agent or ""), api=api, wait=wait)
        code = hold(client, lease, command, settings=settings, finish=lambda _code: lease.end())
    sys.exit(code)
