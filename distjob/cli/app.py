"""The command line's top: ``distjob`` and its subcommands."""

from __future__ import annotations

import click

from distjob.cli.abort import abort
from distjob.cli.adopt import adopt, discard
from distjob.cli.config import config
from distjob.cli.demo import demo
from distjob.cli.doctor import doctor
from distjob.cli.evict import evict
from distjob.cli.guard import guard
from distjob.cli.ls import ls
from distjob.cli.output import Group, log_to_stderr
from distjob.cli.run import run
from distjob.cli.status import status


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distjob-vm", prog_name="distjob")
@click.option("-v", "--verbose", count=True, help="Log to stderr; twice: in detail.")
def cli(verbose: int) -> None:
    """Begin and end jobs on virtual machines, from several controllers.

    A job is the right to operate on a VM: one modifying job at a time, whichever machine asks.
    To see it at work, with nothing to install or configure:

    \b
        distjob demo

    To run a script only while it holds the VM's modify job:

    \b
        distjob run vm-42 --job modify -- ./attach-disk.sh

    To see who holds a VM and who waits for it:

    \b
        distjob status vm-42

    To see all VMs, again and again; to stop, take over or break what runs there:

    \b
        distjob ls --watch
        distjob abort vm-42 --reason "the target host is full"
        distjob adopt vm-42 backup -- ./finish-backup.sh vm-42
        distjob evict vm-42 --slot sync

    To refuse, at the resource, a holder whose job was passed on:

    \b
        distjob guard admit /var/lib/vms/marks.db

    To find what makes a store unsafe or slow, before going live:

    \b
        distjob doctor --config distjob.yaml

    Settings are read from the file named by --config or $DISTJOB_CONFIG. Without one the store is
    an SQLite file for the controllers of this host and this user: root's is
    /var/lib/distjob/jobs.db, anybody else's $XDG_STATE_HOME/distjob/jobs.db, or else
    ~/.local/state/distjob/jobs.db. Its folder is made if it is missing. To see which it is:

    \b
        distjob config path
    """
    log_to_stderr(verbose)


for command in (run, status, ls, abort, adopt, discard, evict, guard, config, doctor, demo):
    cli.add_command(command)
