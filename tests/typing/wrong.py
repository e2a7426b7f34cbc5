"""Programs that must not type-check: mypy must object to each marked line, and to no other."""

from __future__ import annotations

from distjob import (
    AgentJob,
    AsyncJob,
    AsyncJobLease,
    Client,
    Job,
    Lease,
    Slot,
    aio,
    connect,
)
from distjob.fencing import Guard
from distjob.store import Store


def arguments(jobs: Client, guard: Guard) -> None:
    jobs.begin(42, Job.MODIFY)  # wrong
    jobs.begin("vm-42")  # wrong
    jobs.begin("vm-42", Job.MODIFY, "modify")  # wrong
    jobs.begin("vm-42", Job.MODIFY, timeout=3)  # wrong
    jobs.begin("vm-42", Job.MODIFY, wait="3")  # wrong
    jobs.begin_many({"vm-42": 3})  # wrong
    jobs.begin_many({"vm-42": "modfy"})  # wrong
    jobs.begin_many(["vm-42"])  # wrong
    jobs.begin_many({"vm-42": (AsyncJob.SAVE, AgentJob.QUERY)})  # wrong
    guard.admit("vm-42", Slot.SYNC, 7)  # wrong
    guard.admit("vm-42", 7)  # wrong
    guard.admit("vm-42", "sync:sync=7,agent=7,async=7")  # wrong
    connect(b"distjob.yaml")  # wrong


def jobs_of_other_kinds(jobs: Client, lease: AsyncJobLease, said: str) -> None:
    jobs.begin("vm-42", AgentJob.MODIFY)  # wrong
    jobs.begin("vm-42", AsyncJob.SAVE)  # wrong
    jobs.begin("vm-42", Slot.SYNC)  # wrong
    jobs.begin("vm-42", "modfy")  # wrong
    jobs.begin("vm-42", "async")  # wrong
    jobs.begin("vm-42", "save")  # wrong
    jobs.begin("vm-42", said)  # wrong
    jobs.begin("vm-42", Job.QUERY, agent=Job.QUERY)  # wrong
    jobs.begin("vm-42", Job.QUERY, agent="destroy")  # wrong
    jobs.try_begin("vm-42", AgentJob.MODIFY)  # wrong
    jobs.try_begin("vm-42", "start")  # wrong
    jobs.try_begin("vm-42", Job.QUERY, agent=Job.QUERY)  # wrong
    jobs.begin_agent("vm-42", Job.MODIFY)  # wrong
    jobs.begin_agent("vm-42", "destroy")  # wrong
    jobs.begin_async("vm-42", Job.MODIFY)  # wrong
    jobs.begin_async("vm-42", "modify")  # wrong
    jobs.begin_async("vm-42", "migration_out")  # wrong
    jobs.begin_async("vm-42", AsyncJob.SAVE, on_owner_loss="keep")  # wrong
    jobs.begin_async("vm-42", AsyncJob.SAVE, on_owner_loss=Job.QUERY)  # wrong
    jobs.adopt("vm-42", Job.MODIFY)  # wrong
    jobs.adopt("vm-42", "query")  # wrong
    lease.allow(AgentJob.MODIFY)  # wrong
    lease.allow(Job.QUERY, AsyncJob.SAVE)  # wrong
    lease.allow("query", "async nested")  # wrong


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


async def jobs_of_other_kinds_on_asyncio(jobs: aio.AsyncClient, lease: aio.AsyncJobLease) -> None:
    await jobs.begin("vm-42", AgentJob.MODIFY)  # wrong
    await jobs.begin("vm-42", AsyncJob.SAVE)  # wrong
    await jobs.begin("vm-42", "modfy")  # wrong
    await jobs.begin("vm-42", "async")  # wrong
    await jobs.begin("vm-42", Job.QUERY, agent=Job.QUERY)  # wrong
    await jobs.try_begin("vm-42", AgentJob.MODIFY)  # wrong
    await jobs.try_begin("vm-42", "start")  # wrong
    await jobs.begin_agent("vm-42", Job.MODIFY)  # wrong
    await jobs.begin_agent("vm-42", "destroy")  # wrong
    await jobs.begin_async("vm-42", Job.MODIFY)  # wrong
    await jobs.begin_async("vm-42", "modify")  # wrong
    await jobs.begin_async("vm-42", AsyncJob.SAVE, on_owner_loss="keep")  # wrong
    await jobs.adopt("vm-42", Job.MODIFY)  # wrong
    await jobs.adopt("vm-42", "query")  # wrong
    await lease.allow(AgentJob.MODIFY)  # wrong
    await lease.allow("query", "async nested")  # wrong


class HalfAStore:
    def read(self, vm: str) -> None: ...


def stores(lease: Lease) -> Store:
    lease.vm.append("x")  # wrong
    return HalfAStore()  # wrong
