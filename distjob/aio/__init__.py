"""distjob on asyncio: the same names, arguments and errors as in `distjob`, to be awaited.

    async with distjob.aio.connect("distjob.yaml") as jobs:
        async with jobs.begin("vm-42", Job.MODIFY) as lease:
            await attach_disk("vm-42", fence=lease.fence)

    client.py lease.py leases.py  `AsyncClient`; its leases, of one and of several VMs
    opening.py           what begin and connect return: to be awaited, or entered
    sharded.py           `connect`, and a client over several shards

A client belongs to the event loop in which it was opened. A cancelled begin withdraws its ticket, a
cancelled end still ends: in the background, if need be. Nothing here decides anything about jobs.
"""

from distjob.aio.client import AsyncClient
from distjob.aio.lease import AsyncJobLease, Lease
from distjob.aio.leases import Leases
from distjob.aio.opening import Opening
from distjob.aio.sharded import connect

__all__ = ["AsyncClient", "AsyncJobLease", "Lease", "Leases", "Opening", "connect"]
