"""``distjob run``: a command that runs only while its job is held.

It decides what is begun, what the command finds in its environment, and the exit code. That no
process of the command outlives the lease is supervise.py's and warden.py's work.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import click

from distjob.cli.options import config_option
from distjob.cli.output import EX_LOST, EX_OSERR, EX_TEMPFAIL, fail, say, terminable
from distjob.cli.supervise import Outcome, supervise
from distjob.client import Client, connect
from distjob.config import Settings, load
from distjob.errors import DistjobError, LeaseLost
from distjob.jobs import PLAIN_JOBS, AgentJob, AsyncJob, Slot
from distjob.lease import Lease

_NOT_RUN = {errno.ENOENT: 127, errno.ENOTDIR: 127}


def _names(kinds: Iterable[StrEnum]) -> click.Choice[str]:
    return click.Choice([kind.value for kind in kinds])


@click.command()
@click.argument("vm")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--job", type=_names(PLAIN_JOBS), help="The sync job to hold.")
@click.option("--agent", type=_names(AgentJob), help="The guest agent's job to hold.")
@click.option("--async", "kind", type=_names(AsyncJob), help="The async job to hold.")
@click.option("--wait", type=float, metavar="S", help="Seconds to wait for it, else job.wait.")
@click.option("--api", default="", help="What is being done, shown to whom it keeps waiting.")
@config_option
def run(
    *,
    vm: str,
    command: tuple[str, ...],
    job: str | None,
    agent: str | None,
    kind: str | None,
    wait: float | None,
    api: str,
    source: Path | None,
) -> None:
    """Run COMMAND while a job on VM is held.

    \b
        distjob run vm-42 --job modify -- virsh attach-disk vm-42 /dev/sdb vdb
        distjob run vm-42 --async backup --wait 600 -- ./backup.sh vm-42

    Give --job, --agent (or both), or --async. The command finds DISTJOB_VM, DISTJOB_JOB,
    DISTJOB_SLOT and the fencing token, DISTJOB_TOKEN, in its environment.

    All its processes are stopped (SIGTERM, then SIGKILL) before the job can pass to another: also
    if this process is killed or stopped, or its store is cut off. What they start elsewhere
    (by systemd, docker or ssh, say) is out of reach: give DISTJOB_TOKEN to a guard there.

    Exit code: the command's, or 128+N if signal N ended it; 70 if it was stopped because the job
    was about to be lost; 75 if the job could not be begun in time; 78 settings; 126 and 127 the
    command can't be run, or found.
    """
    if kind and (job or agent):
        raise click.UsageError("--async goes without --job and --agent")
    if not (kind or job or agent):
        raise click.UsageError("which job? give --job, --agent or --async")
    if not sys.platform.startswith("linux"):
        fail("distjob run needs Linux", EX_OSERR)
    settings = load(source)
    with terminable(), _connected(settings) as client:
        if kind:
            lease: Lease = client.begin_async(vm, kind, api=api, wait=wait)
            slot = Slot.ASYNC
        elif job:
            lease = client.begin(vm, job, agent=agent, api=api, wait=wait)
            slot = Slot.SYNC
        else:
            lease = client.begin_agent(vm, agent or "", api=api, wait=wait)
            slot = Slot.AGENT
        code = _hold(client, lease, slot, settings, command)
    sys.exit(code)


def _hold(
    client: Client, lease: Lease, slot: Slot, settings: Settings, command: tuple[str, ...]
) -> int:
    facts = {
        "DISTJOB_VM": lease.vm,
        "DISTJOB_JOB": lease.job,
        "DISTJOB_SLOT": slot.value,
        "DISTJOB_TOKEN": str(lease.token),
    }
    environment = os.environ | facts
    try:
        outcome = supervise(lease, settings.session.ttl, command, environment, say)
    except OSError as error:
        fail(f"no process can be started: {error}", EX_OSERR)
    if outcome.forced or outcome.late:
        _tell_loss(client, lease, outcome)
    try:
        if not lease.lost:
            lease.end()
    except DistjobError as error:
        say(str(error))
    return _code(outcome, command[0])


def _code(outcome: Outcome, program: str) -> int:
    if outcome.orphaned:
        say("the command's warden was killed, and so the command was, too")
        return EX_LOST
    if outcome.failure:
        say(f"{program}: {os.strerror(outcome.failure)}")
        return _NOT_RUN.get(outcome.failure, 126)
    if outcome.late:
        return EX_TEMPFAIL
    if outcome.forced:
        return EX_LOST
    code = os.waitstatus_to_exitcode(outcome.status or 0)
    return code if code >= 0 else 128 - code


def _tell_loss(client: Client, lease: Lease, outcome: Outcome) -> None:
    """Why the lease was lost and, as far as can be seen, to whom."""
    what = "the command was stopped in time"
    if outcome.late:
        what = "the command was not started"
    elif outcome.overdue:
        what = "the command was stopped TOO LATE, only the token told it from the next holder"
    try:
        lease.check()
    except LeaseLost as error:
        say(f"{error}; {what}")
    else:
        say(f"VM {lease.vm!r}: the lease of {lease.job} was not renewed in time; {what}")
    try:
        found = client.status(lease.vm)
    except DistjobError as error:
        say(f"who holds the VM now can't be seen: {error}")
        return
    for other in found.holders:
        if other.alive and other.token != lease.token:
            who = f"{other.controller} ({other.host}, pid {other.pid})"
            say(f"VM {lease.vm!r}: {who} holds {other.job} now, token {other.token}")


@contextmanager
def _connected(settings: Settings) -> Iterator[Client]:
    """A client; that it can't be closed in good order does not change the exit code."""
    client = connect(settings)
    try:
        yield client
    finally:
        try:
            client.close()
        except DistjobError as error:
            say(f"{error}; the session ends by itself, with its TTL")
