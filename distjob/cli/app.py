"""The command line's top: ``distjob`` and its subcommands."""

from __future__ import annotations

import click

from distjob.cli.options import early_options
from distjob.cli.output import Group, log_to_stderr

_COMMANDS = {
    name: (f"distjob.cli.{module}", short)
    for name, module, short in (
        ("run", "run.command", "Run a command while a job on a VM is held."),
        ("status", "status", "Show who holds and who waits, on one VM or on all."),
        ("ls", "ls", "List the VMs that are not idle; filter, sort, watch."),
        ("hold", "maintenance", "Keep jobs off a VM, for a person's maintenance."),
        ("abort", "abort", "Ask a long job to stop."),
        ("adopt", "adopt", "Take over a long job without an owner."),
        ("discard", "adopt", "End a long job without an owner, or a hold."),
        ("evict", "evict", "Break jobs by force."),
        ("guard", "guard", "Refuse, at the resource, a holder whose job was passed on."),
        ("config", "config", "Check settings, or tell which are in force."),
        ("doctor", "doctor", "Find what makes the store unsafe or slow."),
        ("schema", "schema", "Print the JSON Schema of the settings, or of an output."),
        ("completion", "completion", "Print what makes a shell complete distjob's words."),
        ("serve", "serve", "Show all jobs in the browser, live; JSON and metrics."),
        ("demo", "demo.command", "Show what happens when controllers compete, die or sleep."),
    )
}


@click.group(cls=Group, table=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="distjob-vm", prog_name="distjob")
@early_options
def cli() -> None:
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

    To keep jobs off a VM while somebody works on it:

    \b
        distjob hold vm-42 --reason "new disk, ask Eve" --until 2h
        distjob discard vm-42

    To find what makes a store unsafe or slow, before going live:

    \b
        distjob doctor --config distjob.yaml

    Settings are read from the file named by --config or $DISTJOB_CONFIG, or --store URL is all
    that is needed; these options, and -v, stand before or behind the subcommand. Else the store is
    an SQLite file for the controllers of this host and this user: root's is
    /var/lib/distjob/jobs.db, anybody else's $XDG_STATE_HOME/distjob/jobs.db, or else
    ~/.local/state/distjob/jobs.db. Its folder is made if it is missing. To see which it is:

    \b
        distjob config path
    """
    log_to_stderr(0)
