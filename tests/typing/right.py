"""Programs that must type-check."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import assert_type

import distjob
from distjob import (
    AbortRequest,
    AgentJob,
    AsyncJob,
    AsyncJobLease,
    Client,
    Job,
    Lease,
    OnOwnerLoss,
    Slot,
    VMStatus,
    aio,
)
from distjob.config import Settings, load, open_backend
from distjob.fencing import Fence, Guard
from distjob.hooks import Event, Lost
from distjob.store import Backend, Store, Versioned
from distjob.testing.memory import MemoryServer, MemoryStore


def a_controller(guard: Guard) -> None:
    with distjob.connect(Path("distjob.yaml")) as jobs:
        assert_type(jobs, Client)
        with jobs.begin("vm-42", Job.MODIFY, agent=AgentJob.QUERY, wait=5) as lease:
            assert_type(lease, Lease)
            guard.admit(lease.vm, lease.fence)
            with guard.exclusively(lease.vm, assert_type(lease.fence, Fence)):
                lease.check()
        if tried := jobs.try_begin("vm-42", "query"):
            assert_type(tried, Lease)
            tried.end()
        with jobs.begin_async("vm-42", AsyncJob.BACKUP, api="nightly") as backup:
            assert_type(backup, AsyncJobLease)
            backup.allow(Job.QUERY, "suspend")
            with backup.nested(wait=1.5) as step:
                assert_type(step.token, int)
        with jobs.begin_many(
            {"vm-42": Job.MODIFY, "vm-43": (Job.QUERY, AgentJob.QUERY), "vm-44": AsyncJob.SAVE}
        ) as leases:
            assert_type(leases["vm-42"], Lease)
            for name, one in leases.items():
                guard.admit(assert_type(name, str), one.fence)
        assert_type(jobs.status("vm-42"), VMStatus)
        for vm in jobs.list():
            for job in (*vm.holders, *vm.waiters):
                assert_type(job.slot, Slot | None)


def by_text_or_by_member(jobs: Client, job: Job, kind: AsyncJob, said: str) -> None:
    jobs.begin("vm-42", job, agent="query")
    jobs.begin("vm-42", Job(said), agent=AgentJob(said))
    jobs.try_begin("vm-42", "migration operation", agent=AgentJob.MODIFY)
    jobs.begin_many({"vm-42": "modify", "vm-43": "save"}, wait=0.5).end()
    jobs.begin_many(dict.fromkeys(["vm-42", "vm-43"], job))
    jobs.begin_agent("vm-42", "modify")
    jobs.begin_agent("vm-42", AgentJob.MODIFY)
    jobs.begin_async("vm-42", "migration out", on_owner_loss="orphan")
    jobs.begin_async("vm-42", kind, on_owner_loss=OnOwnerLoss.RELEASE).allow("modify", job)
    jobs.adopt("vm-42", "backup").allow(*[Job.QUERY, Job.MODIFY])
    jobs.adopt("vm-42", kind).allow()


def told(event: Event) -> None:
    match event:
        case Lost():
            assert_type(event.token, int)
        case _:
            pass


async def a_controller_on_asyncio() -> None:
    async with aio.connect("distjob.yaml", hooks=[told]) as jobs:
        assert_type(jobs, aio.AsyncClient)
        async with jobs.begin("vm-42", Job.MODIFY, wait=5) as lease, lease.cancel_if_lost():
            assert_type(lease, aio.Lease)
            lease.check()
        if tried := await jobs.try_begin("vm-42", "query"):
            assert_type(tried, aio.Lease)
            await tried.end()
        backup = await jobs.begin_async("vm-42", "backup", on_owner_loss=OnOwnerLoss.ORPHAN)
        assert_type(backup, aio.AsyncJobLease)
        await backup.set_phase("copy")
        async with backup.nested() as step:
            assert_type(step, aio.Lease)
        assert_type(await backup.wait_abort(0.1), AbortRequest | None)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(jobs.begin("vm-43", Job.QUERY))
        assert_type(task.result(), aio.Lease)
        assert_type(await jobs.status("vm-42"), VMStatus)


async def by_text_or_by_member_on_asyncio(jobs: aio.AsyncClient, job: Job, kind: AsyncJob) -> None:
    await jobs.begin("vm-42", job, agent="query")
    await jobs.try_begin("vm-42", "migration operation", agent=AgentJob.MODIFY)
    await jobs.begin_agent("vm-42", "modify")
    await jobs.begin_agent("vm-42", AgentJob.MODIFY)
    save = await jobs.begin_async("vm-42", kind, on_owner_loss=OnOwnerLoss.RELEASE)
    await save.allow("modify", job)
    async with jobs.adopt("vm-42", "backup") as backup:
        await backup.allow(*[Job.QUERY, Job.MODIFY])
    await jobs.begin_async("vm-42", "migration out", on_owner_loss="orphan")


def by_hand() -> Client:
    settings = load({"backend": "sqlite", "sqlite": {"path": "jobs.db"}})
    assert_type(settings, Settings)
    store: Store = open_backend(settings)
    store.close()
    return Client(MemoryStore(MemoryServer()), controller="ctl-a", ttl=2, wait=1, max_queued=3)


def what_went_wrong(error: distjob.DistjobError) -> str:
    match error:
        case distjob.JobTimeout() | distjob.QueueFull():
            return f"{error.libvirt_text}: {[holder.token for holder in error.blockers]}"
        case distjob.StaleToken():
            assert_type(error.highest, int)
        case distjob.LeaseLost():
            return f"{error.vm} {error.job} {error.token}"
    return str(error)


def look(store: Store, backend: Backend) -> str:
    found = store.read("vm-42")
    assert_type(found, Versioned)
    return f"{found.version} {len(found.value or b'')} {backend.extra}"
