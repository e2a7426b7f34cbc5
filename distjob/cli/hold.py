"""A command that runs only while a lease is held, and what is said when the lease is lost.

It decides what the command finds in its environment, and the exit code. What becomes of the job
afterwards is the caller's; that no process of the command outlives the lease is supervise.py's and
warden.py's work.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from distjob.cli.output import EX_LOST, EX_OSERR, EX_TEMPFAIL, fail, say
from distjob.cli.run.supervise import Outcome, supervise
from distjob.client import Client
from distjob.config import Settings
from distjob.errors import DistjobError, LeaseLost
from distjob.hooks.logs import LogHook
from distjob.lease import Lease
from distjob.leases import Leases
from distjob.sharded import connect

_TOLD = re.compile(r"DISTJOB_(COUNT|(VM|JOB|TOKEN|FENCE)(_\d+)?)")
"""Variables of the command's environment that a `distjob run` around this one may have set."""
_NOT_RUN = {errno.ENOENT: 127, errno.ENOTDIR: 127}


def check_system() -> None:
    """Fail where no warden can be."""
    if not sys.platform.startswith("linux"):
        fail("running a command under a job needs Linux", EX_OSERR)


def hold(
    client: Client,
    lease: Lease | Leases,
    command: tuple[str, ...],
    *,
    settings: Settings,
    finish: Callable[[int], None],
    **more: str,
) -> int:
    """Run ``command`` while ``lease`` is held, and return the exit code.

    ``finish`` is given the exit code if the lease is held then, and does what is to be done with
    the job. ``more``: variables of the environment, beside VM, job, token and fence.
    """
    each = [lease] if isinstance(lease, Lease) else list(lease.values())
    environment = _environment(each) | more
    try:
        ttl = settings.session.ttl
        outcome = supervise(lease, ttl, command, environment, say, name=_name(each))
    except OSError as error:
        fail(f"no process can be started: {error}", EX_OSERR)
    if outcome.forced or outcome.late:
        _tell_loss(client, each, outcome)
    code = _code(outcome, command[0])
    try:
        if not lease.lost:
            finish(code)
    except DistjobError as error:
        say(str(error))
    return code


def _environment(leases: Sequence[Lease]) -> dict[str, str]:
    """That of this process, and what the command is told of its jobs.

    Of several VMs there is none that a script could take for the only one.
    """
    inherited = {name: text for name, text in os.environ.items() if not _TOLD.fullmatch(name)}
    told = {"DISTJOB_COUNT": str(len(leases))}
    for number, lease in enumerate(leases, 1):
        for ending in ("", f"_{number}") if len(leases) == 1 else (f"_{number}",):
            told[f"DISTJOB_VM{ending}"] = lease.vm
            told[f"DISTJOB_JOB{ending}"] = lease.job
            told[f"DISTJOB_TOKEN{ending}"] = str(lease.token)
            told[f"DISTJOB_FENCE{ending}"] = str(lease.fence)
    return inherited | told


def _name(leases: Sequence[Lease]) -> str:
    vms = ", ".join(repr(lease.vm) for lease in leases)
    if len(leases) == 1:
        return f"VM {vms}: the lease of {leases[0].job}"
    return f"VMs {vms}: one of the leases of {leases[0].job}"


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


def _tell_loss(client: Client, leases: Sequence[Lease], outcome: Outcome) -> None:
    """Why the leases that are lost are and, as far as can be seen, to whom."""
    what = "the command was stopped in time"
    if outcome.late:
        what = "the command was not started"
    elif outcome.overdue:
        what = "the command was stopped TOO LATE, only its fence tells it from the next holder"
    lost = [lease for lease in leases if lease.lost]
    if not lost:
        say(f"{_name(leases)} was not renewed in time; {what}")
    for lease in lost or leases:
        try:
            lease.check()
        except LeaseLost as error:
            say(f"{error}; {what}")
        _tell_holder(client, lease)


def _tell_holder(client: Client, lease: Lease) -> None:
    """Who holds the VM now."""
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
def connected(settings: Settings) -> Iterator[Client]:
    """A client; that it can't be closed in good order does not change the exit code."""
    client = connect(settings, hooks=[LogHook()])
    try:
        yield client
    finally:
        try:
            client.close()
        except DistjobError as error:
            say(f"{error}; the session ends by itself, with its TTL")
