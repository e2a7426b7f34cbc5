"""One controller of the demo: a process that does what the lines on its stdin tell it.

Every line in is a command, every line out an event, both JSON; `Remote` in stage.py is the
other end. Its "disk" is a journal that is written only through a guard. It ends with its stdin.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from distjob import clock
from distjob.client import Client
from distjob.config import SessionSettings, load
from distjob.errors import DistjobError
from distjob.fencing import Guard
from distjob.lease import AsyncJobLease, Lease
from distjob.rules.jobs import AsyncJob, Job, Slot
from distjob.sharded import connect


def emit(event: str, **facts: object) -> None:
    """One event, with the time at which it happened."""
    sys.stdout.write(json.dumps({"event": event, "at": clock.monotonic(), **facts}) + "\n")
    sys.stdout.flush()


class Puppet:
    """The commands are its public methods, a lease of each slot its state."""

    def __init__(self, client: Client, vm: str, folder: Path) -> None:
        self._client = client
        self._vm = vm
        self._guard = Guard(folder / "guard.db", volatile=True)  # gone with the demo
        self._journal = folder / "journal"
        self._leases: dict[Slot, Lease] = {}

    def begin(self, job: str, wait: float) -> None:
        """A sync job; if it must wait, says for whom."""
        kind = Job(job)
        lease = self._client.try_begin(self._vm, kind, api=f"demo {job}")
        if lease is None:
            holders = self._client.status(self._vm).holders
            emit("waits", job=job, **{"for": [f"{h.controller}'s {h.job}" for h in holders]})
            lease = self._client.begin(self._vm, kind, api=f"demo {job}", wait=wait)
        self._hold(Slot.SYNC, lease)

    def begin_async(self, kind: str) -> None:
        lease = self._client.begin_async(self._vm, AsyncJob(kind), api=f"demo {kind}")
        self._hold(Slot.ASYNC, lease)

    def nested(self) -> None:
        """A step of its own async job."""
        job = self._leases[Slot.ASYNC]
        if not isinstance(job, AsyncJobLease):
            raise TypeError("no async job")
        self._hold(Slot.SYNC, job.nested())

    def allow(self, jobs: list[str]) -> None:
        job = self._leases[Slot.ASYNC]
        if not isinstance(job, AsyncJobLease):
            raise TypeError("no async job")
        emit("allows", jobs=jobs)
        job.allow(*map(Job, jobs))

    def write(self, text: str, slot: str) -> None:
        """To the disk, on the strength of the fence alone: the guard is asked, not the lease."""
        lease = self._leases[Slot(slot)]
        with (
            self._guard.exclusively(self._vm, lease.fence),
            self._journal.open("a", encoding="utf-8") as journal,
        ):
            journal.write(f"{slot} {lease.token} {text}\n")
        emit("wrote", text=text, token=lease.token)

    def check(self, slot: str) -> None:
        lease = self._leases[Slot(slot)]
        emit("checked", lost=lease.lost, token=lease.token)

    def end(self, slot: str) -> None:
        lease = self._leases.pop(Slot(slot))
        emit("ends", job=lease.job, token=lease.token)
        lease.end()

    def drop(self, slot: str) -> None:
        """Forget a lease that is lost."""
        del self._leases[Slot(slot)]

    def _hold(self, slot: Slot, lease: Lease) -> None:
        self._leases[slot] = lease
        emit("begun", job=lease.job, token=lease.token)


def main(config: str, ttl: str, name: str, vm: str, folder: str) -> None:
    """Connect, and obey until stdin ends."""
    signal.signal(signal.SIGTERM, _leave)
    logging.basicConfig(level=logging.ERROR)  # the demo itself has warned, once
    settings = msgspec.structs.replace(
        load(config), controller=name, session=SessionSettings(ttl=float(ttl))
    )
    with connect(settings) as client:
        puppet = Puppet(client, vm, Path(folder))
        emit("ready", pid=os.getpid())
        try:
            for line in iter(sys.stdin.readline, ""):
                _obey(puppet, json.loads(line))
        except BrokenPipeError:  # the demo was interrupted, nobody listens
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _obey(puppet: Puppet, command: dict[str, Any]) -> None:
    try:
        getattr(puppet, command.pop("do"))(**command)
    except DistjobError as error:
        emit("refused", error=type(error).__name__, said=str(error))


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main(*sys.argv[1:])
