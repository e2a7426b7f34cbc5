"""Who was stopped for longer than its session lived is refused at the resource, on every store.

The old holder's session is ended behind its back, as it ends when its process is stopped; whether
its client has noticed says nothing of what is on its way to the resource already. Each is shown,
too, to be let in where marks of slots are compared for themselves, as guards once did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distjob import (
    AgentJob,
    AsyncJob,
    Client,
    Fence,
    Job,
    JobTimeout,
    Lease,
    OnOwnerLoss,
    Slot,
    StaleToken,
)
from distjob.fencing import Guard
from distjob.testing.replay import PATIENCE

OUT = AsyncJob.MIGRATION_OUT


class Sites:
    """The same resource twice: guarded by whole fences, and by each slot for itself."""

    def __init__(self, folder: Path) -> None:
        self.guard = Guard(folder / "marks.db", volatile=True)
        self.old = Guard(folder / "old.db", volatile=True)

    def write(self, lease: Lease) -> None:
        self.guard.admit(lease.vm, lease.fence)
        self.old.admit(lease.vm, alone(lease.fence))

    def refuses(self, lease: Lease) -> None:
        """As only fences can."""
        self.old.admit(lease.vm, alone(lease.fence))
        with pytest.raises(StaleToken, match="was passed on"):
            self.guard.admit(lease.vm, lease.fence)


def alone(fence: Fence) -> Fence:
    """The same grant, which says nothing of other slots than its own."""
    floors = {slot: fence.token if slot in fence.own else 1 for slot in Slot}
    return Fence(fence.own, *floors.values())


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    sites = Sites(tmp_path)
    yield sites
    sites.guard.close()
    sites.old.close()


@pytest.fixture
def ends(open_store: Any) -> Iterator[Callable[[Client], None]]:
    """Ends the session of the client that holds the VM."""
    store = open_store()

    def end(client: Client) -> None:
        holders = client.status("vm").holders
        [session] = {holder.session for holder in holders if holder.alive}
        store.close_session(session)

    yield end
    store.close()


def test_a_migration_that_slept_while_another_modified(clients, sites, ends):
    a, b = clients("a"), clients("b")
    migration = a.begin_async("vm", OUT)
    ends(b)
    with b.begin("vm", Job.MODIFY, wait=PATIENCE) as modify:
        sites.write(modify)
        sites.refuses(migration)
        sites.write(modify)


def test_a_modification_that_slept_while_another_migrated(clients, sites, ends):
    a, b = clients("a"), clients("b")
    modify = a.begin("vm", Job.MODIFY)
    ends(b)
    with b.begin_async("vm", OUT, wait=PATIENCE) as migration:
        sites.write(migration)
        sites.refuses(modify)
        with migration.nested() as step:
            sites.write(step)
            sites.write(migration)  # its own calls go on beside its step


def test_a_step_that_slept_while_its_job_was_adopted(clients, sites, ends):
    a, b = clients("a"), clients("b")
    migration = a.begin_async("vm", OUT, on_owner_loss=OnOwnerLoss.ORPHAN)
    step = migration.nested()
    sites.write(step)
    ends(b)
    with b.adopt("vm", OUT) as adopted:
        sites.write(adopted)
        sites.refuses(step)
        with pytest.raises(StaleToken):
            sites.guard.admit("vm", migration.fence)


def test_an_owner_that_slept_while_a_query_was_let_in(clients, sites, ends):
    """The job that it has lost is nobody's, but goes on to keep others out."""
    a, b = clients("a"), clients("b")
    migration = a.begin_async("vm", OUT, on_owner_loss=OnOwnerLoss.ORPHAN)
    ends(b)
    with pytest.raises(JobTimeout, match="orphaned: nobody owns it"):
        b.begin("vm", Job.MODIFY, wait=0.05)
    with b.begin("vm", Job.QUERY, wait=PATIENCE) as query:
        sites.write(query)
        sites.refuses(migration)
    b.discard("vm")


def test_both_slots_that_slept_while_another_migrated(clients, sites, ends):
    a, b = clients("a"), clients("b")
    both = a.begin("vm", Job.MODIFY, agent=AgentJob.MODIFY)
    ends(b)
    with b.begin_async("vm", OUT, wait=PATIENCE) as migration:
        sites.write(migration)
        sites.refuses(both)


def test_whoever_holds_is_never_refused(clients, sites):
    """Side by side, in any order, as often as they like."""
    a, b = clients("a"), clients("b")
    with (
        a.begin_agent("vm", AgentJob.MODIFY) as agent,
        a.begin_async("vm", OUT) as migration,
        b.begin("vm", Job.QUERY) as query,
    ):
        for lease in (query, agent, migration, query, migration, agent):
            sites.write(lease)
        query.end()
        with migration.nested() as step:
            for lease in (migration, step, agent, migration, step, agent):
                sites.write(lease)
        with pytest.raises(StaleToken):
            sites.guard.admit("vm", query.fence)
