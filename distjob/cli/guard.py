"""``distjob guard``: the guard of `distjob.fencing` for scripts, at the resource.

It decides nothing itself: VM and fence are what the job's holder has passed along.
"""

from __future__ import annotations

from pathlib import Path

import click

from distjob.cli.options import Seconds
from distjob.cli.output import printable
from distjob.fencing import Fence, Guard
from distjob.rules.jobs import Slot

_file = click.argument("file", type=click.Path(path_type=Path))
_wait = click.option(
    "--wait",
    type=Seconds(),
    default=30.0,
    show_default=True,
    metavar="S",
    help="To wait while others use the file.",
)
_volatile = click.option(
    "--volatile", is_flag=True, help="Accept a file that a reboot empties, as on tmpfs."
)


@click.group()
def guard() -> None:
    """Refuse, at the resource, a holder whose job was passed on.

    FILE is the guard's: made when it is first used, on a local disk of the host that makes the
    changes. A script that "distjob run" started does, before each change,

    \b
        distjob guard admit /var/lib/vms/marks.db || exit
    """


@guard.command()
@_file
@click.option("--vm", envvar="DISTJOB_VM", required=True, help="Else $DISTJOB_VM.")
@click.option("--fence", envvar="DISTJOB_FENCE", required=True, help="Else $DISTJOB_FENCE.")
@_wait
@_volatile
def admit(*, file: Path, vm: str, fence: str, wait: float, volatile: bool) -> None:
    """Admit the job whose fence this is, or refuse it: it was passed on.

    Under "distjob run" VM and fence are in the environment. Elsewhere, on the host to which a
    change is sent, say, pass them along:

    \b
        ssh host2 "distjob guard admit /var/lib/vms/marks.db --vm $DISTJOB_VM \\
            --fence $DISTJOB_FENCE && ./change.sh"

    Exit code 0: admitted, and the marks are on the disk. Anything else: not admitted, change
    nothing. 1: a newer job was admitted before; 2: no VM or fence, or a place where no guard may
    be; 65: the file is no guard's, or damaged; 75: it can't be used now.
    """
    with Guard(file, wait=wait, volatile=volatile) as marks:
        marks.admit(vm, Fence.parse(fence))


@guard.command()
@_file
@click.argument("vm")
@_wait
@_volatile
def marks(*, file: Path, vm: str, wait: float, volatile: bool) -> None:
    """Show VM's marks, slot by slot: smaller tokens are refused. 0: none was admitted yet."""
    with Guard(file, wait=wait, volatile=volatile) as found:
        for slot in Slot:
            click.echo(f"{slot}\t{found.highest(vm, slot)}")


@guard.command()
@_file
@click.argument("vm")
@_wait
@_volatile
def forget(*, file: Path, vm: str, wait: float, volatile: bool) -> None:
    """Remove VM's marks: the next fence is admitted, whatever it is.

    For marks above all that a holder can reach: a fence made by hand, or a store whose tokens
    began anew. End all old holders first: whoever comes first is admitted.
    """
    with Guard(file, wait=wait, volatile=volatile) as found:
        found.forget(vm)
    click.echo(printable(f"VM {vm!r}: forgotten"))
