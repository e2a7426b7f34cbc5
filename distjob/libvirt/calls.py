"""Which job a call of libvirt's takes: `calls.tsv`, read once.

It knows no libvirt but names: what a flag's name stands for, it is told. The masks are libvirt
9.0.0's, from where it begins each async job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from distjob.rules.jobs import DEFAULT_MASK, AgentJob, AsyncJob, Job, Mask, mask_of

MASKS: Mapping[str, Mask] = MappingProxyType(
    {
        # start, restore, revert: qemu_process.c:4758; snapshot: qemu_snapshot.c:1786
        "none": mask_of(()),
        # save: qemu_driver.c:2635; dump: qemu_driver.c:3197; snapshot delete: qemu_snapshot.c:3133
        "default": DEFAULT_MASK,
        # begun in qemu_migration.c:113
        "migration in": mask_of((Job.MODIFY_MIGRATION_SAFE,)),
        # begun in qemu_migration.c:119
        "migration out": mask_of(
            (*DEFAULT_MASK, Job.SUSPEND, Job.MIGRATION_OP, Job.MODIFY_MIGRATION_SAFE)
        ),
        # begun in qemu_backup.c:793
        "backup": mask_of((*DEFAULT_MASK, Job.SUSPEND, Job.MODIFY)),
    }
)
"""What async jobs let in from the moment they are granted, by the names that the table uses."""

OF_KIND: Mapping[AsyncJob, Mask] = MappingProxyType(
    {
        AsyncJob.MIGRATION_OUT: MASKS["migration out"],
        AsyncJob.MIGRATION_IN: MASKS["migration in"],
        AsyncJob.SAVE: MASKS["default"],
        AsyncJob.DUMP: MASKS["default"],
        AsyncJob.SNAPSHOT: MASKS["none"],
        AsyncJob.START: MASKS["none"],
        AsyncJob.BACKUP: MASKS["backup"],
        AsyncJob.MAINTENANCE: MASKS["default"],
    }
)
"""The mask of each kind when the job is begun for itself, and not for one call."""


class Takes(NamedTuple):
    """The jobs that a call needs: none, a sync one, one of the guest agent, or an async one."""

    job: Job | None = None
    agent: AgentJob | None = None
    kind: AsyncJob | None = None
    mask: Mask = ()


class When(NamedTuple):
    """A condition on one argument, ``flags & NAME`` or ``source = NAME``; none holds always."""

    argument: str = ""
    test: str = ""
    constant: str = ""

    def holds(self, arguments: Mapping[str, object], value_of: Callable[[str], int]) -> bool:
        if not self.argument:
            return True
        given, wanted = int(str(arguments[self.argument] or 0)), value_of(self.constant)
        return bool(given & wanted) if self.test == "&" else given == wanted


class Call(NamedTuple):
    """A row of the table."""

    of: str
    """``virDomain``, ``virDomainSnapshot``, ``virDomainCheckpoint``, ``virConnect``, or
    ``libvirt_qemu``, whose functions are offered as methods of the domain."""
    name: str
    api: str
    """The function of the C library; ``-`` if there is none."""
    alternatives: tuple[tuple[When, Takes], ...]
    where: str
    """Where libvirt begins that job; for a call that takes none, where it does not."""

    @property
    def what(self) -> str:
        """Its name for people: that of libvirt's manual."""
        return f"{self.of}.{self.name}" if self.api == "-" else self.api

    @property
    def by_arguments(self) -> bool:
        """Whether its arguments say what it takes."""
        return len(self.alternatives) > 1

    def takes(self, arguments: Mapping[str, object], value_of: Callable[[str], int]) -> Takes:
        """What it takes with these arguments; ``value_of`` tells a constant of libvirt's."""
        return next(takes for when, takes in self.alternatives if when.holds(arguments, value_of))


@cache
def table() -> Mapping[tuple[str, str], Call]:
    """All rows, by class and method."""
    text = files("distjob.libvirt").joinpath("calls.tsv").read_text()
    rows = [_row(line) for line in text.splitlines() if not line.startswith("#")]
    return MappingProxyType({(row.of, row.name): row for row in rows})


def _row(line: str) -> Call:
    of, name, api, takes, where = line.split("\t")
    alternatives = tuple(_alternative(part) for part in takes.split("; "))
    if alternatives[-1][0] != When() or not where:
        raise ValueError(f"{of}.{name}: the last alternative holds always, and a source is given")
    return Call(of, name, api, alternatives, where)


def _alternative(text: str) -> tuple[When, Takes]:
    condition, colon, takes = text.rpartition(": ")
    when = When(*condition.split()) if colon else When()
    if when.test not in ("", "&", "="):
        raise ValueError(f"{condition}: a condition is made by & or =")
    found = Takes()
    for part in takes.split(" + "):
        found = _plus(found, part)
    return when, found


def _plus(found: Takes, text: str) -> Takes:
    if text == "none":
        return found
    if text.startswith("agent "):
        return found._replace(agent=AgentJob(text.removeprefix("agent ")))
    if text.startswith("async "):
        kind, _, mask = text.removeprefix("async ").removesuffix(")").partition(" (")
        return found._replace(kind=AsyncJob(kind), mask=MASKS[mask])
    return found._replace(job=Job(text))
