"""distjob: begin and end jobs on virtual machines, from several controllers on several machines.

    rules/                      the rules, pure: begin with rules/record.py
    protocol/                   every operation as a generator of effects, sans IO
    drive/                      what may be asked; who runs the generators: in threads, on a loop
    client.py lease.py leases.py  Client, and what begin returns, of one VM and of several
    sharded.py                  connect; a client over several stores
    aio/                        the same on asyncio
    libvirt/ tooz/              libvirt's domains, whose calls take jobs; locks by tooz
    store.py                    THE boundary: what a store must do
    backend/                    how a backend does it: waits, listens, fails
    hooks/                      what a client tells of its jobs, and three that listen
    config/                     YAML -> typed, checked settings; opens the backend
    fencing.py files/           the guard for the resource's side, and the file it is kept in
    errors.py clock.py          how it fails; the two clocks
    foreign.py                  another project's package in our folder
    cli/ serve/                 the command; the same for browsers
    testing/                    contract suite, memory store, simulation, replay

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
    from distjob.lease import AsyncJobLease, Lease
    from distjob.leases import Leases
    from distjob.protocol.look import JobStatus, VMStatus
    from distjob.rules.fence import Fence
    from distjob.rules.jobs import AgentJob, AsyncJob, Job, OnOwnerLoss, Slot
    from distjob.rules.ticket import AbortRequest, Left, Progress
    from distjob.sharded import connect

    __version__: str

_HOMES = (
    *("rules.jobs", "rules.ticket", "rules.fence"),
    *("protocol.look", "lease", "leases", "client", "sharded"),
)
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
    "Leases",
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
        elif name in {"aio", "lease", "client", "sharded"}:
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
