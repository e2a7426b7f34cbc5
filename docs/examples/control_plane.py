"""A control plane's service on asyncio, by the settings in distjob.yaml."""

import asyncio

from distjob import AsyncJob, Job, aio
from distjob.fencing import Guard


class ControlPlane:
    def __init__(self, jobs: aio.AsyncClient, guard: Guard) -> None:
        self.jobs, self.guard, self.disks, self.log = jobs, guard, {"vm-1": ["vda"]}, list[str]()

    async def query(self, vm: str) -> list[str]:
        async with self.jobs.begin(vm, Job.QUERY, wait=5):
            return self.disks[vm]

    async def attach(self, vm: str, disk: str) -> None:
        async with self.jobs.begin(vm, Job.MODIFY, api="attach") as job, job.cancel_if_lost():
            await asyncio.to_thread(self.change, job, self.disks[vm], disk)

    async def migrate(self, vm: str, host: str) -> None:
        async with self.jobs.begin_async(vm, AsyncJob.MIGRATION_OUT, api="migrate") as migration:
            for phase in ("begin", "perform", "confirm"):  # meanwhile queries pass, attach waits
                await migration.set_phase(phase)
                async with migration.nested(api=phase) as step, step.cancel_if_lost():
                    await asyncio.to_thread(self.change, step, self.log, f"{vm} to {host}: {phase}")

    def change(self, job: aio.Lease, what: list[str], new: str) -> None:
        with self.guard.exclusively(job.vm, job.fence):  # refuses whose job was passed on
            what.append(new)


async def main() -> None:
    async with aio.connect("distjob.yaml") as jobs:
        plane = ControlPlane(jobs, Guard("marks.db"))
        await asyncio.gather(plane.migrate("vm-1", "b"), plane.attach("vm-1", "vdb"))
        print(*plane.log, await plane.query("vm-1"), sep="\n")


asyncio.run(main())
