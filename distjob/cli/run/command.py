"""``distjob run``: a command that runs only while its job is held. It decides what is begun."""

from __future__ import annotations

import sys

import click

from distjob.cli.hold import check_system, connected, hold
from distjob.cli.options import Runs, Seconds, Source, Words, store_options, vms_argument
from distjob.cli.output import terminable
from distjob.config import load
from distjob.rules.jobs import PLAIN_JOBS, AgentJob, AnyJobLike, AsyncJob, Job


@click.command(cls=Runs)
@vms_argument()
@click.option("--job", type=Words(PLAIN_JOBS), help="The sync job to hold.")
@click.option("--agent", type=Words(AgentJob), help="The guest agent's job to hold.")
@click.option("--async", "kind", type=Words(AsyncJob), help="The async job to hold.")
@click.option("--wait", type=Seconds(), metavar="S", help="To wait for it, else job.wait.")
@click.option("--api", default="", help="What is being done, shown to whom it keeps waiting.")
@store_options
def run(
    *,
    vms: tuple[str, ...],
    command: tuple[str, ...],
    job: str | None,
    agent: str | None,
    kind: str | None,
    wait: float | None,
    api: str,
    source: Source,
) -> None:
    """Run COMMAND while a job on VM is held, or on each of several VMs.

    \b
        distjob run vm-42 --job modify -- virsh attach-disk vm-42 /dev/sdb vdb
        distjob run vm-42 --async backup --wait 600 -- ./backup.sh vm-42
        distjob run vm-42 vm-43 --job modify -- ./swap-disks.sh

    Give --job, --agent (or both), or --async. The command finds DISTJOB_VM, DISTJOB_JOB,
    DISTJOB_TOKEN (the grant's number, for logs) and DISTJOB_FENCE in its environment. With several
    VMs, all or none are held: then these are DISTJOB_VM_1, DISTJOB_VM_2 and so on, in the order in
    which they are named here, and DISTJOB_COUNT is how many.

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
        wanted = dict.fromkeys(vms, _job(job, agent, kind))
        leases = client.begin_many(wanted, api=api, wait=wait)
        code = hold(client, leases, command, settings=settings, finish=lambda _code: leases.end())
    sys.exit(code)


def _job(job: str | None, agent: str | None, kind: str | None) -> AnyJobLike:
    """What is begun of each VM."""
    if kind:
        return AsyncJob(kind)
    if job and agent:
        return Job(job), AgentJob(agent)
    return Job(job) if job else AgentJob(agent or "")
