"""``distjob hold``: a person keeps jobs off a VM, for as long as it takes.

It decides what such a hold is: an async job of type maintenance without an owner, which lets in
queries. It ends by ``distjob discard``, never by itself: whoever is late is not to be surprised.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import click

from distjob import clock
from distjob.cli.hold import connected
from distjob.cli.options import ParamType, Seconds, Source, store_options, vm_argument
from distjob.cli.output import fail, printable, say, terminable
from distjob.cli.show import is_hold
from distjob.config import load
from distjob.drive.names import check_label
from distjob.errors import DistjobError
from distjob.lease import AsyncJobLease
from distjob.rules.jobs import AsyncJob, Job, OnOwnerLoss


class _Moment(ParamType):
    """``2h``, ``18:30``, ``2026-12-24`` or ``2026-12-24T18:30``, to come."""

    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """In the local time zone, if it names none."""
        now = datetime.fromtimestamp(clock.wall()).astimezone()
        text = str(value).strip()
        if re.fullmatch(r"\d{1,2}:\d\d", text):
            hour, minute = map(int, text.split(":"))
            if hour > 23 or minute > 59:
                self.fail(f"{value!r} is no time of a day", param, ctx)
            when = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return when if when > now else when + timedelta(days=1)
        try:
            moment = datetime.fromisoformat(text).astimezone()
        except ValueError:
            moment = now + timedelta(seconds=Seconds().convert(value, param, ctx))
        if moment <= now:
            self.fail(f"{value!r} is over", param, ctx)
        return moment


@click.command()
@vm_argument()
@click.option("--reason", required=True, help="Why, for all who are kept off.")
@click.option(
    "--until", type=_Moment(), metavar="T", help="When you mean to be done: 2h, 18:30, 2026-12-24."
)
@click.option("--wait", type=Seconds(), metavar="S", help="To wait for jobs, else job.wait.")
@store_options
def hold(vm: str, reason: str, until: datetime | None, wait: float | None, source: Source) -> None:
    """Keep jobs off VM while somebody works on it, and return.

    \b
        distjob hold vm-42 --reason "new disk, ask Eve" --until 2h
        distjob discard vm-42

    Waits for the jobs that run. From then on queries, destroy and the guest agent's jobs are let
    in, nothing else; who is kept off is told the reason and --until. The hold needs no process and
    no session, and outlives a restart of the store if jobs do. It ends by "distjob discard VM",
    not by itself: --until is for people. "distjob ls --held" shows all holds.

    Exit code 0; 1 if VM is held so already; 75 if a job did not end in time.
    """
    phase = check_label("a reason", reason if until is None else f"{reason}; until {_shown(until)}")
    with terminable(), connected(load(source)) as client:
        running = client.status(vm).long
        if running is not None and is_hold(running):
            fail(f"VM {vm!r} is held already: {running.api}: {running.phase}", 1)
        lease = client.begin_async(
            vm,
            AsyncJob.MAINTENANCE,
            on_owner_loss=OnOwnerLoss.ORPHAN,
            api=f"held by {_person()}",
            wait=wait,
        )
        with _all_or_nothing(lease):
            lease.set_phase(phase)
            lease.allow(Job.QUERY)
            lease.detach()
    click.echo(printable(f"VM {vm!r} is held: {phase}. To end it: distjob discard {vm}"))


@contextmanager
def _all_or_nothing(lease: AsyncJobLease) -> Iterator[None]:
    """No hold stays that does not say why."""
    try:
        yield
    except BaseException:
        try:
            lease.end()
        except DistjobError as error:
            say(f"{error}; if a hold without a reason stays: distjob discard {lease.vm}")
        raise


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M %Z").strip()


def _person() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError: Python 3.12 and before
        return "somebody"
