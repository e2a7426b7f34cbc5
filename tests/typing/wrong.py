"""Programs that must not type-check: mypy must object to each marked line, and to no other."""

from __future__ import annotations

from distjob import Client, Job, Lease, Slot, aio, connect
from distjob.fencing import Guard
from distjob.store import Store


def arguments(jobs: Client, guard: Guard) -> None:
    jobs.begin(42, Job.MODIFY)  # wrong
    jobs.begin("vm-42")  # wrong
    jobs.begin("vm-42", Job.MODIFY, "modify")  # wrong
    jobs.begin("vm-42", Job.MODIFY, timeout=3)  # wrong
    jobs.begin("vm-42", Job.MODIFY, wait="3")  # wrong
    guard.admit("vm-42", Slot.SYNC, "7")  # wrong
    connect(b"distjob.yaml")  # wrong


def results(jobs: Client) -> int:
    jobs.try_begin("vm-42", Job.QUERY).end()  # wrong
    jobs.begin("vm-42", Job.QUERY).nested()  # wrong
    jobs.begin("vm-42", Job.QUERY).token = 7  # wrong
    jobs.status("vm-42").version = 7  # wrong
    return jobs.begin("vm-42", Job.QUERY)  # wrong


async def on_asyncio(jobs: aio.AsyncClient, lease: aio.Lease) -> None:
    (jobs.begin("vm-42", Job.MODIFY)).end()  # wrong
    await jobs.begin(42, Job.MODIFY)  # wrong
    await lease.check()  # wrong
    with jobs.begin("vm-42", Job.MODIFY):  # wrong
        pass


class HalfAStore:
    def read(self, vm: str) -> None: ...


def stores(lease: Lease) -> Store:
    lease.vm.append("x")  # wrong
    return HalfAStore()  # wrong
