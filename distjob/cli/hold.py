"""A command that runs only while a lease is held, and what is said when the lease is lost.

It decides what the command finds in its environment, and the exit code. What becomes of the job
afterwards is the caller's; that no process of the command outlives the lease is supervise.py's and
warden.py's work.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distjob.cli.output import EX_LOST, EX_OSERR, EX_TEMPFAIL, fail, say
from distjob.cli.run.supervise import Outcome, supervise
from distjob.client import Client
from distjob.config import Settings
from distjob.errors import DistjobError, LeaseLost
from distjob.hooks.logs import LogHook
from distjob.lease import Lease
from distjob.sharded import connect

_NOT_RUN = {errno.ENOENT: 127, errno.ENOTDIR: 127}


def check_system() -> None:
    """Fail where no warden can be."""
    if not sys.platform.startswith("linux"):
        fail("running a command under a job needs Linux", EX_OSERR)


def hold(
    client: Client,
    lease: Lease,
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
    facts = {
        "DISTJOB_VM": lease.vm,
        "DISTJOB_JOB": lease.job,
        "DISTJOB_TOKEN": str(lease.token),
        "DISTJOB_FENCE": str(lease.fence),
    }
    environment = os.environ | facts | more
    try:
        outcome = supervise(lease, settings.session.ttl, command, environment, say)
    except OSError as error:
        fail(f"no process can be started: {error}", EX_OSERR)
    if outcome.forced or outcome.late:
        _tell_loss(client, lease, outcome)
    code = _code(outcome, command[0])
    try:
        if not lease.lost:
            finish(code)
    except DistjobError as error:
        say(str(error))
    return code


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
        what = "the command was stopped TOO LATE, only its fence tells it from the next holder"
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
