"""Which jobs are shown, in which order, and by which columns: the options of ``status`` and ``ls``.

A VM is shown whole if one of its jobs is asked for: who waits says little without who holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from distjob.cli.options import Seconds
from distjob.cli.show import COLUMNS, is_hold
from distjob.drive.choices import suggestion
from distjob.protocol.look import JobStatus, VMStatus

F = TypeVar("F", bound=Callable[..., Any])
SORTS = ("vm", "age", "waiting", "controller")


def column_options(command: F) -> F:
    """``--columns`` and ``--no-header``, for the lines that are no table."""
    columns = click.option(
        "--columns",
        callback=_columns,
        metavar="A,B,...",
        help="Lines of these columns, on a terminal, too.",
    )
    header = click.option("--no-header", is_flag=True, help="Lines without one of column names.")
    return columns(header(command))


def filter_options(command: F) -> F:
    """What `chosen` is given, and ``--sort``."""
    options = (
        click.option("--controller", metavar="NAME", help="Only where this controller has a job."),
        click.option(
            "--older-than", type=Seconds(), metavar="S", help="Only where one is as old: 90, 5m."
        ),
        click.option("--waiting", is_flag=True, help="Only where somebody waits."),
        click.option("--orphans", is_flag=True, help="Only where an async job lost its owner."),
        click.option("--held", is_flag=True, help='Only what "distjob hold" keeps jobs off.'),
        click.option(
            "--sort",
            type=click.Choice(SORTS),
            default="vm",
            help="By name; oldest job, longest line, or controller first.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _columns(context: click.Context, param: click.Parameter, text: str | None) -> Sequence[str]:
    if text is None:
        return COLUMNS
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in COLUMNS:
            known = f"{suggestion(name, COLUMNS)} (known: {', '.join(COLUMNS)})"
            raise click.BadParameter(f"no column {name!r}{known}", context, param)
    return names


def chosen(
    found: Sequence[VMStatus],
    *,
    controller: str | None,
    older_than: float | None,
    waiting: bool,
    orphans: bool,
    held: bool,
    sort: str,
) -> list[VMStatus]:
    """The VMs that are asked for, in the order that is."""

    def wanted(vm: VMStatus) -> bool:
        jobs = (*vm.holders, *vm.waiters)
        return (
            (controller is None or any(job.controller == controller for job in jobs))
            and (older_than is None or any(job.seconds >= older_than for job in jobs))
            and (not waiting or bool(vm.waiters))
            and (not orphans or _is_orphan(vm.long))
            and (not held or (vm.long is not None and is_hold(vm.long)))
        )

    return sorted(filter(wanted, found), key=_KEYS[sort])


def _is_orphan(long: JobStatus | None) -> bool:
    return long is not None and bool(long.left) and not is_hold(long)


def _age(vm: VMStatus) -> float:
    return max(job.seconds for job in (*vm.holders, *vm.waiters))


def _first_controller(vm: VMStatus) -> str:
    return (*vm.holders, *vm.waiters)[0].controller


_KEYS: dict[str, Callable[[VMStatus], Any]] = {
    "vm": lambda vm: vm.vm,
    "age": lambda vm: (-_age(vm), vm.vm),
    "waiting": lambda vm: (-len(vm.waiters), vm.vm),
    "controller": lambda vm: (_first_controller(vm), vm.vm),
}
