"""distjob: begin and end jobs on virtual machines, from several controllers on several machines.

    jobs.py ticket.py           types of jobs; what stands in a VM's record
    record.py async_job.py line.py  the rules, pure: a record, an async job's life, who wakes whom
    codec.py words.py           a record as bytes; what a caller is told about who is in the way
    protocol/                   every operation as a generator of effects, sans IO
    driver.py client.py lease.py  blocking: run the generators; Client; leases
    sharded.py shards.py        connect; a client over several stores; which of them has a VM
    aio/                        the same on asyncio
    arguments.py choices.py     what both are asked, checked; one of a few, told if it is none
    store.py                    THE boundary: what a store must do; backend/: how a backend does it
    greenlets.py                who has patched this process, for the libraries that can't bear it
    hooks.py logs.py metrics.py what a client tells of its jobs, and two that listen
    names.py errors.py clock.py what arguments may be, how it fails, the two clocks
    foreign.py forgotten.py     another project's package in our folder; clients that nobody closed
    config/ sections.py         YAML -> typed, checked settings; opens the backend; how that refuses
    fence.py                    what a grant made void, pure: a lease's fence
    fencing.py sqlitefile.py    the guard for the resource's side, and the file it is kept in;
    forks.py filesystems.py     what a fork leaves of an open file; where a file can't be shared
    cli/ testing/               the command; contract suite, memory store, simulation, replay

What is promised: one holder a slot as long as the store keeps its word and the holder heeds its
lease's deadline. A holder that was stopped for longer, or a store that lost acknowledged writes,
can leave two who believe they hold: the fence tells the resource who is right, always. Waits and
deadlines are measured on one machine's clock; no two machines' clocks are ever compared, only
their rates must agree within a few per cent. Not promised: exactly-once effects without a guard.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from distjob.errors import (
    BackendUnavailable,
    BadRequest,
    ClientClosed,
    ConfigError,
    DistjobError,
    JobTimeout,
    LeaseLost,
    NotOwner,
    OutcomeUnknown,
    QueueFull,
    RecordError,
    StaleToken,
    WrongJob,
)

if TYPE_CHECKING:
    from distjob import aio
    from distjob.client import Client
    from distjob.fence import Fence
    from distjob.jobs import AgentJob, AsyncJob, Job, OnOwnerLoss, Slot
    from distjob.lease import AsyncJobLease, Lease
    from distjob.protocol.look import JobStatus, VMStatus
    from distjob.sharded import connect
    from distjob.ticket import AbortRequest, Left, Progress

    __version__: str

_HOMES = ("jobs", "ticket", "fence", "protocol.look", "lease", "client", "sharded")
"""Where the names below come from that are imported when they are first asked for."""

__all__ = [
    "AbortRequest",
    "AgentJob",
    "AsyncJob",
    "AsyncJobLease",
    "BackendUnavailable",
    "BadRequest",
    "Client",
    "ClientClosed",
    "ConfigError",
    "DistjobError",
    "Fence",
    "Job",
    "JobStatus",
    "JobTimeout",
    "Lease",
    "LeaseLost",
    "Left",
    "NotOwner",
    "OnOwnerLoss",
    "OutcomeUnknown",
    "Progress",
    "QueueFull",
    "RecordError",
    "Slot",
    "StaleToken",
    "VMStatus",
    "WrongJob",
    "aio",
    "connect",
]


if not TYPE_CHECKING:  # type checkers see the imports above

    def __getattr__(name: str) -> object:
        """What was not asked for is not imported: errors, guards and `distjob --help` need little,
        a blocking program no asyncio.
        """
        if name == "__version__":
            from importlib.metadata import version

            found = version("distjob-vm")
        elif name == "aio" or name in _HOMES:
            return import_module(f"distjob.{name}")
        elif name in __all__:
            homes = (import_module(f"distjob.{home}") for home in _HOMES)
            found = next(getattr(home, name) for home in homes if hasattr(home, name))
        else:
            raise AttributeError(f"module 'distjob' has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "__version__"})
