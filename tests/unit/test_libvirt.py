"""`distjob.libvirt` on libvirt's test driver, in this process: each call under its job.

What two processes see, and real guests, are in tests/fault/libvirt.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import distjob
from distjob import AgentJob, AsyncJob, BadRequest, Fence, Job, JobTimeout, LeaseLost, StaleToken
from distjob.aio import AsyncClient
from distjob.fencing import Guard
from distjob.hooks import Begun, Event
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from servers import libvirt_here
from until import until

ABSENT = """
import sys
sys.modules["libvirt"] = None  # as if it were not installed
try:
    import distjob.libvirt
except ModuleNotFoundError as error:
    print(error)
"""
DOMAIN = """<domain type='test'><name>%s</name>%s<memory>8388608</memory><vcpu>2</vcpu>
<os><type>hvm</type></os></domain>"""
UUID = "0d8f0c2e-5f3b-4d0c-9b7e-5a4f1a3c9d10"


def test_without_libvirt_the_error_names_the_extra_and_the_package() -> None:
    command = [sys.executable, "-c", ABSENT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    for word in ('pip install "distjob-vm[libvirt]"', "libvirt-dev", "python3-libvirt"):
        assert word in done.stdout


# -- the table ------------------------------------------------------------------------------------


@pytest.fixture
def libvirt() -> Any:
    return libvirt_here()


@pytest.fixture
def calls(libvirt: Any) -> Any:
    return import_module("distjob.libvirt.calls")


def test_every_method_of_libvirts_is_in_the_table(libvirt: Any, calls: Any) -> None:
    counted = {}
    for of in ("virDomain", "virDomainSnapshot", "virDomainCheckpoint"):
        kind = getattr(libvirt, of)
        methods = {name for name in vars(kind) if not name.startswith("_")}
        known = {name for cls, name in calls.table() if cls == of}
        assert known <= methods, of
        if libvirt.getVersion() < 9_001_000:  # what came later is refused by name
            assert methods <= known, of
        counted[of] = len(known)
    assert counted == {"virDomain": 167, "virDomainSnapshot": 14, "virDomainCheckpoint": 10}
    for of, name in calls.table():
        home = import_module(of) if of == "libvirt_qemu" else getattr(libvirt, of)
        assert callable(getattr(home, name)), name


def test_every_row_has_a_source_and_every_condition_is_libvirts(libvirt: Any, calls: Any) -> None:
    for row in calls.table().values():
        assert row.where
        for when, _ in row.alternatives[:-1]:
            assert isinstance(getattr(libvirt, when.constant), int)
            method = getattr(getattr(libvirt, row.of), row.name)
            assert when.argument in inspect.signature(method).parameters


@pytest.mark.parametrize(
    ("name", "arguments", "takes"),
    [
        ("suspend", {}, "suspend"),
        ("resume", {}, "modify"),
        ("info", {}, "none"),
        ("memoryStats", {}, "query"),
        ("abortJob", {}, "abort"),
        ("migrateSetMaxSpeed", {}, "migration operation"),
        ("fsFreeze", {}, "agent modify"),
        ("authorizedSSHKeysSet", {}, "agent query"),
        ("setTime", {}, "modify + agent modify"),
        ("shutdownFlags", {"flags": 0}, "modify + agent modify"),
        ("shutdownFlags", {"flags": "VIR_DOMAIN_SHUTDOWN_GUEST_AGENT"}, "agent modify"),
        ("shutdownFlags", {"flags": "VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN"}, "modify"),
        ("setVcpusFlags", {"flags": "VIR_DOMAIN_VCPU_GUEST"}, "agent modify"),
        ("setVcpusFlags", {"flags": 0}, "modify"),
        ("vcpusFlags", {"flags": 0}, "none"),
        ("hostname", {"flags": 0}, "agent query"),
        ("hostname", {"flags": "VIR_DOMAIN_GET_HOSTNAME_LEASE"}, "query"),
        ("interfaceAddresses", {"source": 0}, "none"),
        ("interfaceAddresses", {"source": 1}, "agent query"),
        ("save", {}, "async save: query destroy abort"),
        ("create", {}, "async start: destroy"),
        ("snapshotCreateXML", {"flags": 0}, "async snapshot: destroy"),
        (
            "snapshotCreateXML",
            {"flags": "VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE"},
            "agent modify + async snapshot: destroy",
        ),
        ("backupBegin", {}, "async backup: query destroy suspend modify abort"),
        (
            "migrate3",
            {},
            (
                "async migration out: query destroy suspend abort migration operation"
                " modify migration safe"
            ),
        ),
    ],
)
def test_what_calls_take(
    libvirt: Any, calls: Any, name: str, arguments: dict[str, Any], takes: str
) -> None:
    flags = {
        key: getattr(libvirt, value) if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    found = calls.table()["virDomain", name].takes(flags, lambda word: getattr(libvirt, word))
    told = [str(found.job)] if found.job else []
    told += [f"agent {found.agent}"] if found.agent else []
    told += [f"async {found.kind}: {' '.join(found.mask)}"] if found.kind else []
    assert (" + ".join(told) or "none") == takes


# -- calls ----------------------------------------------------------------------------------------


class Scene:
    """A client, libvirt's test driver, and its one domain, which nobody else has."""

    def __init__(self, libvirt: Any, folder: Path) -> None:
        self.begun: list[str] = []
        self.server = MemoryServer()
        self.jobs = distjob.Client(MemoryStore(self.server), hooks=[self._note], wait=5.0)
        file = folder / "node.xml"
        file.write_text(f"<node>{DOMAIN % ('test', '')}</node>")
        self.conn = libvirt.open(f"test://{file}")
        self.raw = self.conn.lookupByName("test")
        self.vm = self.raw.UUIDString()
        self.have()

    def have(self, **options: Any) -> None:
        """Domains with these options."""
        self.domains = import_module("distjob.libvirt").Domains(self.jobs, **options)
        self.dom = self.domains.domain(self.raw)

    def _note(self, event: Event) -> None:
        if isinstance(event, Begun):
            self.begun.append(event.job)

    def took(self) -> list[str]:
        """The jobs that were begun since this was asked last; none is held now."""
        assert list(self.jobs.list()) == []
        begun, self.begun = self.begun, []
        return begun

    @asynccontextmanager
    async def on_asyncio(self, **options: Any) -> AsyncIterator[Any]:
        """The same domain, on asyncio."""
        kind = import_module("distjob.libvirt.aio").AsyncDomains
        async with AsyncClient(AsyncMemoryStore(self.server), hooks=[self._note], wait=5.0) as jobs:
            yield kind(jobs, **options).domain(self.raw)


@pytest.fixture
def scene(libvirt: Any, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(libvirt, tmp_path)
    with scene.jobs:
        yield scene


class Admits:
    """A guard that does what the test wants, in the middle of a call."""

    def __init__(self, act: Callable[[Fence], object]) -> None:
        self.act = act

    def admit(self, vm: str, fence: Fence) -> None:
        self.act(fence)


def test_calls_take_their_jobs_by_the_uuid(scene: Scene, tmp_path: Path) -> None:
    assert scene.dom.vm == scene.vm
    assert scene.dom.info()[0] == 1
    assert scene.took() == []
    scene.dom.suspend()
    scene.dom.setMemory(1_000_000)
    scene.dom.resume()
    scene.dom.setVcpusFlags(nvcpus=1, flags=1)
    with suppress(import_module("libvirt").libvirtError):  # which this driver does not offer
        scene.dom.qemuMonitorCommand("{}", 0)
    assert scene.took() == ["suspend", "modify", "modify", "modify", "query"]
    scene.dom.save(str(tmp_path / "image"))
    assert scene.domains.restore(scene.conn, str(tmp_path / "image")).vm == scene.vm
    assert scene.took() == ["async save", "async start"]
    new = scene.domains.createXML(scene.conn, DOMAIN % ("new", ""))
    assert (new.name(), scene.took()) == ("new", ["async start"])
    assert new.destroy() == 0
    assert (
        scene.domains.createXML(scene.conn, DOMAIN % ("new", f"<uuid>{UUID.upper()}</uuid>")).vm
        == UUID
    )


def test_what_comes_back_is_wrapped(scene: Scene) -> None:
    snapshot = scene.dom.snapshotCreateXML("<domainsnapshot/>")
    assert scene.took() == ["async snapshot"]
    (found,) = scene.dom.listAllSnapshots()
    assert found.domain().vm == scene.vm
    assert scene.dom.revertToSnapshot(found) == 0
    snapshot.delete()
    assert scene.took() == ["async start", "async snapshot"]
    assert "delete" in dir(snapshot)
    assert "suspend" in dir(scene.dom)


def test_asyncio_takes_the_same(scene: Scene, tmp_path: Path) -> None:
    async def play() -> None:
        async with scene.on_asyncio() as dom:
            async with dom.job("modify") as held:
                assert held.state[0] == 1
                await dom.suspend()
                await dom.resume()
            async with dom.job("save"):
                await dom.suspend()
                await dom.save(str(tmp_path / "image"))
            domains = import_module("distjob.libvirt.aio").AsyncDomains(dom._settings.jobs)
            again = await domains.restore(scene.conn, str(tmp_path / "image"))
            assert await again.isActive()
            snapshot = await dom.snapshotCreateXML("<domainsnapshot/>")
            await snapshot.delete()
            await dom.destroy()
            with pytest.raises(import_module("libvirt").libvirtError, match="not running"):
                await dom.destroy()

    asyncio.run(play())
    assert scene.took() == [
        *("modify", "async save", "nested step of save", "async start"),
        *("async snapshot", "async snapshot", "destroy", "destroy"),
    ]


def test_asyncio_has_the_same_arguments_and_words(libvirt: Any) -> None:
    here, there = (import_module(f"distjob.libvirt.{name}") for name in ("blocking", "aio"))
    for mine, its in ((here.Domains, there.AsyncDomains), (here.Domain, there.AsyncDomain)):
        names = {name for name in dir(mine) if not name.startswith("_")}
        assert names == {name for name in dir(its) if not name.startswith("_")}
        for name in names & {"domain", "createXML", "restore", "job", "adopt"}:
            one, other = getattr(mine, name), getattr(its, name)
            assert one.__doc__
            assert inspect.getdoc(one) == inspect.getdoc(other)
            assert list(inspect.signature(one).parameters.values()) == list(
                inspect.signature(other).parameters.values()
            )


def test_masks_are_in_force_and_the_call_is_named_while_it_runs(scene: Scene) -> None:
    seen = []
    scene.have(guard=Admits(lambda _: seen.append(scene.jobs.status(scene.vm))))
    scene.dom.managedSave()
    scene.dom.create()
    save, start = seen
    assert save.mask == (Job.QUERY, Job.DESTROY, Job.ABORT)
    assert start.mask == (Job.DESTROY,)
    assert [one.holders[0].api for one in seen] == ["virDomainManagedSave", "virDomainCreate"]


# -- blocks ---------------------------------------------------------------------------------------


def test_a_block_is_one_job_for_its_own_thread_alone(scene: Scene) -> None:
    with ThreadPoolExecutor() as pool, scene.dom.job("modify", api="resize") as held:
        scene.dom.suspend()
        with scene.dom.job("query"):
            scene.dom.memoryStats()
        other = pool.submit(scene.dom.injectNMI)
        until(lambda: scene.jobs.status(scene.vm).waiters)
        assert scene.jobs.status(scene.vm).holders[0].api == "resize"
        assert held.fence == held.lease.fence
        scene.dom.resume()
        assert scene.begun == ["modify"]
    with suppress(import_module("libvirt").libvirtError):  # which this driver does not offer
        other.result()
    assert scene.took() == ["modify", "modify"]


def test_in_an_async_job_calls_are_its_steps(scene: Scene, tmp_path: Path) -> None:
    with scene.dom.job("save", mask=["query"]) as held:
        assert scene.jobs.status(scene.vm).mask == (Job.QUERY, Job.DESTROY)
        scene.dom.suspend()
        scene.dom.fsFreeze()
        scene.dom.save(str(tmp_path / "image"))
        assert held.lease.phase == "virDomainSave"
    assert scene.took() == ["async save", "nested step of save", "agent modify"]


def test_the_state_is_asked_anew_when_the_job_is_held(scene: Scene) -> None:
    entered = threading.Event()

    def other() -> int:
        with scene.dom.job("modify") as held:
            entered.set()
            return int(held.state[0])

    with ThreadPoolExecutor() as pool, scene.dom.job("modify"):
        assert scene.dom.state()[0] == 1
        waiting = pool.submit(other)
        until(lambda: scene.jobs.status(scene.vm).waiters)
        assert not entered.is_set()
        scene.dom.suspend()
    assert waiting.result() == 3


def test_a_domain_that_has_gone_meanwhile_is_told_and_the_job_ended(
    scene: Scene, libvirt: Any
) -> None:
    new = scene.domains.createXML(scene.conn, DOMAIN % ("new", ""))
    new.raw.destroy()
    with pytest.raises(libvirt.libvirtError, match="Domain not found"), new.job("modify"):
        pytest.fail("the body ran")
    assert scene.took() == ["async start", "modify"]


def test_a_block_whose_job_was_taken_makes_no_more_calls(scene: Scene) -> None:
    block = scene.dom.job("modify")
    held = block.__enter__()
    (mine,) = scene.jobs.status(scene.vm).holders
    scene.jobs.evict(scene.vm, [mine.ticket])
    until(lambda: held.lease.lost)
    with pytest.raises(LeaseLost):
        scene.dom.suspend()
    with pytest.raises(LeaseLost):
        block.__exit__(None, None, None)
    assert scene.raw.state()[0] == 1


@pytest.mark.parametrize(
    ("outer", "call", "says"),
    [
        ({"job": "query"}, ("suspend",), "takes suspend, and this block holds query"),
        ({"job": "modify"}, ("abortJob",), "takes abort, and this block holds modify"),
        ({"job": "modify"}, ("managedSave",), "in a block of its own, dom.job\\('save'\\)"),
        ({"job": "save"}, ("create",), "takes async start"),
        ({"agent": "modify"}, ("suspend",), "dom.job\\('suspend', agent='modify'\\)"),
        ({"job": "save", "agent": "modify"}, ("suspend",), "slots are taken in one order"),
        ({"agent": "query"}, ("fsFreeze",), "make the block one of agent='modify'"),
    ],
)
def test_what_would_wait_for_itself_is_refused(
    scene: Scene, outer: dict[str, str], call: tuple[str], says: str
) -> None:
    with scene.dom.job(**outer), pytest.raises(BadRequest, match=says):
        getattr(scene.dom, call[0])()
    assert scene.raw.state()[0] == 1
    scene.took()


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"job": "modfy"}, "did you mean 'modify'"),
        ({}, "a block is of a job"),
        ({"job": "modify", "mask": ["query"]}, "only an async job has a mask"),
        ({"job": "async nested"}, "is no job"),
        ({"job": AgentJob.MODIFY}, "guest agent"),
    ],
)
def test_blocks_that_can_not_be(scene: Scene, block: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        scene.dom.job(**block)


# -- unknown calls, guards ------------------------------------------------------------------------


def test_calls_that_the_table_does_not_know_are_refused_and_one_switch_allows_them(
    scene: Scene, calls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = {key: row for key, row in calls.table().items() if key != ("virDomain", "suspend")}
    monkeypatch.setattr(import_module("distjob.libvirt.subject"), "table", lambda: rest)
    with pytest.raises(
        BadRequest, match=r"virDomain\.suspend takes is not known.*unknown='modify'"
    ):
        scene.dom.suspend()
    assert scene.raw.state()[0] == 1
    scene.have(unknown="modify")
    scene.dom.suspend()
    assert scene.took() == ["modify"]
    with pytest.raises(AttributeError, match="frobnicate"):
        scene.dom.frobnicate()
    with pytest.raises(BadRequest, match=r"libvirt\.virDomain is wanted"):
        scene.domains.domain(scene.conn)
    with pytest.raises(BadRequest, match="AsyncDomains for what"):
        import_module("distjob.libvirt.aio").AsyncDomains(scene.jobs)


def test_a_guard_is_asked_with_the_fence_before_each_call(scene: Scene, tmp_path: Path) -> None:
    with Guard(tmp_path / "marks.db", volatile=True) as guard:
        scene.have(guard=guard)
        with scene.dom.job("modify") as held:
            scene.dom.suspend()
            assert guard.highest(scene.vm, "sync") == held.fence.sync
        guard.admit(scene.vm, Fence.parse("sync:sync=9999,agent=9999,async=9999"))
        with pytest.raises(StaleToken):
            scene.dom.resume()
    assert scene.raw.state()[0] == 3


# -- destroy --------------------------------------------------------------------------------------


def test_destroy_kills_first_and_asks_later(scene: Scene) -> None:
    with ThreadPoolExecutor() as pool, scene.dom.job("modify"):
        killing = pool.submit(scene.dom.destroy)
        until(lambda: not scene.raw.isActive())  # while the job that it will ask for is not free
        until(lambda: scene.jobs.status(scene.vm).waiters)
    assert killing.result() == 0
    assert scene.took() == ["modify", "destroy"]


def test_what_was_started_again_meanwhile_is_killed_again(scene: Scene) -> None:
    with ThreadPoolExecutor() as pool, scene.dom.job("modify"):
        killing = pool.submit(scene.dom.destroyFlags, 0)
        until(lambda: scene.jobs.status(scene.vm).waiters)
        scene.raw.create()
    assert killing.result() == 0
    assert not scene.raw.isActive()


def test_a_destroy_that_gets_no_job_says_that_it_has_killed(scene: Scene) -> None:
    scene.have(wait=0.05)
    with ThreadPoolExecutor() as pool, scene.dom.job("modify"):
        error = pool.submit(scene.dom.destroy).exception()
    assert isinstance(error, JobTimeout)
    assert "the domain was killed before" in error.__notes__[0]
    assert not scene.raw.isActive()


def test_destroy_in_a_block_goes_under_its_job(scene: Scene) -> None:
    with scene.dom.job("modify"):
        assert scene.dom.destroy() == 0
    assert scene.took() == ["modify"]


# -- interrupted ----------------------------------------------------------------------------------


def test_ctrl_c_in_a_long_call_keeps_the_job_until_libvirt_has_done(scene: Scene) -> None:
    watched, held = threading.Event(), []

    def act(_: Fence) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        until(watched.is_set)
        held.extend(scene.jobs.status(scene.vm).holders)

    scene.have(guard=Admits(act))
    watch = import_module("distjob.libvirt.watch").Watch
    before = watch.stop

    def stop(self: Any, *args: object) -> None:
        before(self, *args)
        watched.set()

    watch.stop = stop
    try:
        with pytest.raises(KeyboardInterrupt):
            scene.dom.managedSave()
    finally:
        watch.stop = before
    assert [one.job for one in held] == ["async save"]
    assert scene.took() == ["async save"]


@pytest.mark.parametrize("call", ["suspend", "managedSave"])
def test_a_cancelled_task_holds_the_job_until_libvirt_has_done(scene: Scene, call: str) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def act(_: Fence) -> None:
        entered.set()
        go_on.wait(30)

    async def play() -> None:
        async with scene.on_asyncio(guard=Admits(act)) as dom:
            task = asyncio.create_task(getattr(dom, call)())
            await asyncio.to_thread(entered.wait, 30)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            assert not (await asyncio.wait((task,), timeout=0.1))[0]
            assert len(scene.jobs.status(scene.vm).holders) == 1
            go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert scene.jobs.status(scene.vm).holders == ()

    asyncio.run(play())
    assert scene.raw.state()[0] != 1  # it was done


# -- from one owner to the next -------------------------------------------------------------------


def test_an_async_job_is_handed_on_with_its_phase(scene: Scene) -> None:
    with scene.dom.job(AsyncJob.MIGRATION_OUT) as held:
        held.lease.set_phase("arrived")
        held.lease.detach()
    with scene.dom.adopt("migration out") as held:
        assert held.lease.phase == "arrived"
        assert held.state[0] == 1
        scene.dom.suspend()

    async def play() -> None:
        async with scene.on_asyncio() as dom:
            async with dom.job("migration out") as held:
                await held.lease.detach()
            async with dom.adopt("migration out") as held:
                assert held.state[0] == 3
                await dom.resume()

    asyncio.run(play())
    long = "async migration out"  # begun, and adopted
    assert scene.took() == [long, long, "nested step of migration out"] * 2
