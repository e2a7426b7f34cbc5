"""The tooz driver: names, URLs, errors, and what it adds to tooz's own tests."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import distjob
from distjob import AsyncJob, Job
from distjob.errors import BackendUnavailable, OutcomeUnknown
from until import until

tooz = pytest.importorskip("tooz")
coordination = pytest.importorskip("tooz.coordination")
naming = pytest.importorskip("distjob.tooz.naming")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"distjob+sqlite://{tmp_path}/locks.db"


@pytest.fixture
def start(url: str) -> Iterator[Callable[..., Any]]:
    """Starts a coordinator, stopped in the end."""
    started = []

    def start(member: bytes = b"a", **options: Any) -> Any:
        started.append(coordination.get_coordinator(url, member, **options))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        if one.is_started:
            one.stop()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[distjob.Client]:
    """The locks, as distjob sees them."""
    settings = {"sqlite": {"path": str(tmp_path / "locks.db")}, "namespace": "tooz"}
    with distjob.connect(settings) as jobs:
        yield jobs


# -- locks ----------------------------------------------------------------------------------------


def test_a_lock_is_a_job_of_the_vm_of_its_name(start: Any, jobs: distjob.Client) -> None:
    lock = start(b"member-1").get_lock(b"the lock")
    assert lock.name == b"the lock"
    assert (lock.acquired, lock.fence, lock.is_still_owner(), lock.heartbeat()) == (
        *(False, None, False, False),
    )
    with lock:
        [holder] = jobs.status("the lock").holders
        assert (holder.controller, holder.job, holder.api) == ("member-1", "modify", "tooz lock")
        assert (lock.acquired, lock.is_still_owner(), lock.heartbeat()) == (True, True, True)
        assert lock.fence.token == holder.token
        assert jobs.try_begin("the lock", Job.QUERY) is None
    assert jobs.list() == []


def test_a_lock_that_nobody_keeps_stays_acquired(start: Any, jobs: distjob.Client) -> None:
    """Until the coordinator is stopped, as with tooz's own drivers."""
    coordinator = start()
    assert coordinator.get_lock(b"x").acquire()
    gc.collect()
    assert [status.vm for status in jobs.list()] == ["x"]
    assert not coordinator.get_lock(b"x").acquire(blocking=False)
    coordinator.stop()
    assert jobs.list() == []


def test_waiting_has_an_end_or_has_none(start: Any, jobs: distjob.Client) -> None:
    lock = start().get_lock(b"x")
    held = jobs.begin("x", Job.MODIFY)
    for how in ({"blocking": False}, {"blocking": 0.01}, {"timeout": 0.01}, {"timeout": 0}):
        assert not lock.acquire(**how)
        with pytest.raises(coordination.LockAcquireFailed), lock(**how):
            pass
    assert jobs.status("x").waiters == ()
    acquired = threading.Event()
    thread = threading.Thread(target=lambda: lock.acquire() and acquired.set())
    thread.start()
    until(lambda: jobs.status("x").waiters)
    held.end()
    assert acquired.wait(20)
    thread.join()
    assert lock.release()


def test_shared_locks_are_refused(start: Any) -> None:
    with pytest.raises(tooz.NotImplemented, match="exclusive"):
        start().get_lock(b"x").acquire(shared=True)


def test_whoever_breaks_a_lock_breaks_no_other_job(start: Any, jobs: distjob.Client) -> None:
    mine, other = start(b"a", timeout=1).get_lock(b"x"), start(b"b").get_lock(b"x")
    assert not other.break_()
    assert mine.acquire()
    assert other.break_()
    assert not mine.is_still_owner()
    until(lambda: not mine.heartbeat())
    assert mine.acquired
    assert other.acquire(blocking=False)
    assert not mine.release()
    assert not mine.acquired
    assert other.is_still_owner()
    assert other.release()
    with jobs.begin("x", Job.MODIFY) as lease, jobs.begin_async("y", AsyncJob.BACKUP) as backup:
        assert not other.break_()
        assert not start().get_lock(b"y").break_()
        lease.check()
        backup.check()


def test_a_lock_that_waits_may_be_released_by_its_own_object(start: Any) -> None:
    """Two threads that use one lock: the one's release is not the other's."""
    lock, done = start().get_lock(b"x"), []
    assert lock.acquire()

    def second() -> None:
        assert lock.acquire()
        done.append(lock.release())

    thread = threading.Thread(target=second)
    thread.start()
    assert lock.release()
    thread.join(20)
    assert done == [True]


@pytest.mark.parametrize(
    ("name", "vm"),
    [
        (b"plain", "plain"),
        ("\u00fc/\n".encode(), "\u00fc/\n"),
        (b"x" * 255, "x" * 255),
        (
            b"x" * 256,
            "sha256:85e62acd750c4eb56b7b6a1d66dca5bfaac5f062608a1a893410d0288936c09a",
        ),
        (b"\xff", "sha256:a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89"),
    ],
)
def test_every_name_is_a_vms(name: bytes, vm: str) -> None:
    assert naming.vm_of(name) == vm


def test_members_are_shown(start: Any, jobs: distjob.Client) -> None:
    for member, shown in ((b"\xff\n", "\\xff\\n"), (b"", "unknown"), ("text", "text")):
        with start(member).get_lock(b"x"):
            assert jobs.status("x").holders[0].controller == shown


# -- coordinators ---------------------------------------------------------------------------------


def test_from_start_to_stop(start: Any, jobs: distjob.Client) -> None:
    coordinator = start()
    lock = coordinator.get_lock(b"x")
    assert lock.acquire()
    coordinator.stop()
    assert jobs.list() == []
    for call in (lock.acquire, lock.break_, coordinator.stop):
        with pytest.raises(tooz.ToozError, match=r"not (been )?started"):
            call()
    assert not lock.heartbeat()
    with pytest.raises(tooz.ToozError, match="closed"):
        lock.release()
    coordinator.start()
    assert lock.acquire(blocking=False)
    with pytest.raises(ValueError, match="name"):
        coordinator.get_lock(b"")


def test_groups_are_not_offered(start: Any) -> None:
    coordinator = start()
    assert not coordinator.requires_beating
    for call in (
        *(coordinator.create_group, coordinator.join_group, coordinator.join_group_create),
        *(coordinator.leave_group, coordinator.delete_group, coordinator.get_members),
        *(coordinator.get_leader, coordinator.join_partitioned_group),
        lambda group: coordinator.watch_join_group(group, print),
        lambda group: coordinator.watch_leave_group(group, print),
        lambda group: coordinator.watch_elected_as_leader(group, print),
        lambda _: coordinator.get_groups(),
        lambda _: coordinator.run_watchers(),
    ):
        with pytest.raises(tooz.NotImplemented):
            call(b"group")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BackendUnavailable("away"), "ToozConnectionError"),
        (OutcomeUnknown("perhaps"), "OperationTimedOut"),
        (distjob.QueueFull("full"), "ToozError"),
    ],
)
def test_errors_are_toozs(start: Any, monkeypatch: Any, error: Exception, kind: str) -> None:
    coordinator = start()
    lock = coordinator.get_lock(b"x")

    def fails(*_: object, **__: object) -> None:
        raise error

    for name in ("begin", "try_begin", "status"):
        monkeypatch.setattr(coordinator._client, name, fails)
    for call in (lock.acquire, lambda: lock.acquire(blocking=False), lock.break_):
        with pytest.raises(tooz.ToozError, match=str(error)) as caught:
            call()
        assert type(caught.value).__name__ == kind
        assert caught.value.cause is error


def settings(url: str, **options: Any) -> Any:
    coordinator = coordination.get_coordinator(url, b"member", **options)
    return naming.settings_of(coordinator._url, coordinator._options, coordinator._member_id)


def test_a_url_says_where_and_options_say_how(tmp_path: Path) -> None:
    plain = settings("distjob+redis://:secret@host:1/2")
    assert (plain.backend, plain.namespace, plain.session.ttl) == ("redis", "tooz", 10)
    assert plain.section.url == "redis://:secret@host:1/2"
    assert plain.controller == "member"
    told = settings("distjob+rediss://host?namespace=mine&timeout=5&db=3")
    assert (told.namespace, told.session.ttl) == ("mine", 5)
    assert told.section.url == "rediss://host?db=3"
    assert settings("distjob+redis://host?timeout=5", timeout=7).session.ttl == 7
    assert settings("distjob+etcd://a,b:1").section.endpoints == ("a:2379", "b:1")
    assert settings("distjob+zookeeper://a/b").section.hosts
    file = tmp_path / "distjob.yaml"
    file.write_text("backend: etcd\nnamespace: of-the-file\netcd: {endpoints: [h:1]}\n")
    by_file = settings(f"distjob+etcd://?config={file}")
    assert (by_file.namespace, by_file.controller) == ("of-the-file", "member")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("distjob+sqlite:///x?colour=red", "must be sqlite:///"),
        ("distjob+sqlite:///x?timeout=soon", "timeout is a number"),
        ("distjob+sqlite:///x?timeout=0", "ttl"),
        ("distjob+sqlite:///x?namespace=/", "namespace"),
        ("distjob+sqlite:///nowhere/locks.db", "nowhere"),
        ("distjob+redis://host/f00", "redis"),
        ("distjob+sqlite://?config=/nowhere.yaml", "nowhere"),
        ("distjob+sqlite:///x?config=/nowhere.yaml", "nowhere|nothing else"),
    ],
)
def test_mistakes_are_told_at_the_start(url: str, told: str) -> None:
    coordinator = coordination.get_coordinator(url, b"a")
    with pytest.raises(coordination.ToozConnectionError, match=told):
        coordinator.start()
    assert not coordinator.is_started


def test_an_option_that_nobody_knows_is_refused(start: Any) -> None:
    with pytest.raises(tooz.ToozError, match=r"unknown option 'colour' \(known: config, namespace"):
        start(colour="red")


def test_a_file_of_settings_says_all(tmp_path: Path) -> None:
    file = tmp_path / "distjob.yaml"
    file.write_text("backend: sqlite\n")
    for url in (
        f"distjob+redis://?config={file}",
        f"distjob+sqlite://host?config={file}",
        f"distjob+sqlite://?config={file}&timeout=5",
    ):
        with pytest.raises(coordination.ToozConnectionError, match="nothing else"):
            coordination.get_coordinator(url, b"a").start()


def test_characteristics_are_what_the_store_promises(start: Any) -> None:
    hosts = coordination.Characteristics.DISTRIBUTED_ACROSS_HOSTS
    with pytest.raises(coordination.ToozDriverChosenPoorly):
        start(characteristics=[hosts])
    coordination.get_coordinator("distjob+etcd://a", b"a", characteristics=[hosts])
