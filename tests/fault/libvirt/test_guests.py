"""Real QEMU guests of two real daemons, which stand for two hosts: long calls, what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import distjob
from distjob.aio import AsyncClient
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from servers import Libvirtd, libvirt_here
from until import until

pytestmark = [pytest.mark.xdist_group("libvirt"), pytest.mark.timeout(180)]
Pair = tuple[Libvirtd, Libvirtd]
GUEST = """<domain type='qemu'><name>guest</name><memory unit='MiB'>2048</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk>
<controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"""
BACKUP = """<domainbackup mode='push'><disks><disk name='vda' type='file'>
<driver type='raw'/><target file='{file}'/></disk></disks></domainbackup>"""
PULL = """<domainbackup mode='pull'><server transport='unix' socket='{folder}/nbd'/>
<disks><disk name='vda' type='file'><scratch file='{folder}/scratch'/></disk></disks>
</domainbackup>"""
SLOW, FAST = 1, 10_000
"""MiB a second of a migration: at the first it lasts for many seconds, though memory is empty."""
MiB = 1 << 20


class Hosts(NamedTuple):
    """Two hosts, the guest on the first of them, and the store of two controllers."""

    source: Any
    target: Any
    guest: Any
    folder: Path
    server: MemoryServer

    @property
    def migration(self) -> tuple[Any, dict[str, str], int]:
        """The arguments of ``migrate3``."""
        flags = libvirt_here().VIR_MIGRATE_LIVE | libvirt_here().VIR_MIGRATE_UNSAFE
        return self.target, {"migrate_uri": "tcp:127.0.0.1"}, flags

    def controller(self) -> distjob.Client:
        return distjob.Client(MemoryStore(self.server), wait=60)

    @property
    def at_work(self) -> bool:
        """Whether libvirt has a job on the guest."""
        with suppress(libvirt_here().libvirtError):  # "backup job data missing", at its begin
            return bool(self.guest.jobInfo()[0] != libvirt_here().VIR_DOMAIN_JOB_NONE)
        return False

    @property
    def stays(self) -> bool:
        """Whether the guest runs where it was, and only there, and nobody holds a job."""
        with self.controller() as jobs:
            idle = not jobs.list()
        return idle and bool(self.guest.isActive()) and self.target.numOfDomains() == 0


@pytest.fixture(scope="module")
def running(libvirt_pair: Pair) -> Iterator[Hosts]:
    libvirt = libvirt_here()
    source, target = (libvirt.open(one.uri("qemu")) for one in libvirt_pair)
    folder = libvirt_pair[0].folder / "data"
    disk = folder / "disk"
    disk.write_bytes(b"\1" * MiB)
    disk.chmod(0o666)
    guest = source.createXML(GUEST.format(disk=disk))
    yield Hosts(source, target, guest, folder, MemoryServer())
    source.close()
    target.close()


@pytest.fixture
def hosts(running: Hosts) -> Hosts:
    return running._replace(server=MemoryServer())


def test_anybodys_abort_reaches_libvirt_and_progress_is_told(hosts: Hosts) -> None:
    libvirt = libvirt_here()
    hosts.guest.migrateSetMaxSpeed(SLOW)
    with hosts.controller() as jobs, hosts.controller() as other, ThreadPoolExecutor() as pool:
        dom = import_module("distjob.libvirt").Domains(jobs).domain(hosts.guest)
        migration = pool.submit(dom.migrate3, *hosts.migration)
        until(lambda: (found := other.status(dom.vm).holders) and found[0].progress, 60)
        (job,) = other.status(dom.vm).holders
        assert (job.job, job.progress.unit) == ("async migration out", "bytes")
        other.abort(dom.vm, reason="the target is full")
        with pytest.raises(libvirt.libvirtError, match="canceled by client") as caught:
            migration.result(60)
        assert caught.value.get_error_code() == libvirt.VIR_ERR_OPERATION_ABORTED
    assert hosts.stays


def test_a_cancelled_task_aborts_its_migration(hosts: Hosts) -> None:
    hosts.guest.migrateSetMaxSpeed(SLOW)

    async def play() -> None:
        domains = import_module("distjob.libvirt.aio").AsyncDomains
        async with AsyncClient(AsyncMemoryStore(hosts.server)) as jobs:
            dom = domains(jobs).domain(hosts.guest)
            task = asyncio.create_task(dom.migrate3(*hosts.migration))
            while not (await dom.jobStats()).get("operation"):
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(play())
    assert hosts.stays


def test_a_lost_lease_stops_the_migration(hosts: Hosts) -> None:
    hosts.guest.migrateSetMaxSpeed(SLOW)
    with hosts.controller() as jobs, hosts.controller() as other, ThreadPoolExecutor() as pool:
        dom = import_module("distjob.libvirt").Domains(jobs).domain(hosts.guest)
        migration = pool.submit(dom.migrate3, *hosts.migration)
        until(lambda: hosts.guest.jobStats().get("operation"), 60)
        (job,) = other.status(dom.vm).holders
        other.evict(dom.vm, [job.ticket])
        with pytest.raises(libvirt_here().libvirtError, match="canceled by client"):
            migration.result(60)
    assert hosts.stays


def test_a_backup_is_held_until_libvirt_has_ended_it(hosts: Hosts) -> None:
    file = hosts.folder / "backup"
    with hosts.controller() as jobs:
        dom = import_module("distjob.libvirt").Domains(jobs).domain(hosts.guest)
        assert dom.backupBegin(BACKUP.format(file=file), None) == 0
        assert not hosts.at_work
    assert file.read_bytes() == b"\1" * MiB
    assert hosts.stays


def test_a_backup_that_is_pulled_lasts_until_it_is_ended(hosts: Hosts) -> None:
    with hosts.controller() as jobs, hosts.controller() as other, ThreadPoolExecutor() as pool:
        dom = import_module("distjob.libvirt").Domains(jobs).domain(hosts.guest)
        with dom.job("backup"):
            assert dom.backupBegin(PULL.format(folder=hosts.folder), None) == 0
            until(lambda: hosts.at_work, 60)
            dom.abortJob()  # whoever pulls has got all of it
        assert not hosts.at_work
        assert not jobs.list()
        backup = pool.submit(dom.backupBegin, PULL.format(folder=hosts.folder), None)
        until(lambda: hosts.at_work, 60)
        other.abort(dom.vm, reason="the network is needed")
        with pytest.raises(libvirt_here().libvirtError, match="asked to stop"):
            backup.result(60)
        assert not hosts.at_work
    assert hosts.stays


def test_a_backup_that_was_left_is_adopted_at_work(hosts: Hosts) -> None:
    with hosts.controller() as jobs, hosts.controller() as other:
        there = import_module("distjob.libvirt").Domains(other).domain(hosts.guest)
        dom = import_module("distjob.libvirt").Domains(jobs).domain(hosts.guest)
        with dom.job("backup") as held:
            dom.backupBegin(PULL.format(folder=hosts.folder), None)
            held.lease.detach()
        with ThreadPoolExecutor() as pool:
            with there.adopt("backup"):
                until(lambda: hosts.at_work, 60)
                ended = pool.submit(dom.abortJob)  # the mask lets it in
            assert ended.result(60) == 0
        assert not hosts.at_work
    assert hosts.stays


def test_a_body_that_fails_ends_its_backup(hosts: Hosts) -> None:
    async def play() -> None:
        async with AsyncClient(AsyncMemoryStore(hosts.server)) as jobs:
            dom = import_module("distjob.libvirt.aio").AsyncDomains(jobs).domain(hosts.guest)
            async with dom.job("backup"):
                await dom.backupBegin(PULL.format(folder=hosts.folder), None)
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(play())
    assert not hosts.at_work
    assert hosts.stays


def test_a_migrated_guest_is_handed_on_with_its_job(hosts: Hosts) -> None:
    hosts.guest.migrateSetMaxSpeed(FAST)
    with hosts.controller() as jobs, hosts.controller() as other:
        there = import_module("distjob.libvirt").Domains(other)
        dom = import_module("distjob.libvirt").Domains(jobs).domain(hosts.guest)
        with dom.job("migration out", on_owner_loss="orphan") as held:
            assert dom.migrate3(*hosts.migration).vm == dom.vm
            held.lease.set_phase("arrived")
            held.lease.detach()
        assert jobs.status(dom.vm).holders[0].phase == "arrived"
        new = there.domain(hosts.target.lookupByUUIDString(dom.vm))
        with new.adopt("migration out") as held:
            assert held.lease.phase == "arrived"
            assert held.state[0] == libvirt_here().VIR_DOMAIN_RUNNING
            new.suspend()
        assert not jobs.list()
        assert new.destroy() == 0
    assert hosts.source.numOfDomains() == hosts.target.numOfDomains() == 0
