"""Controllers on SQLite that fork: nothing is lost in the parent, and nothing in a child.

SQLite alone fails here: a child inherits its memory of locks, but not the locks.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from distjob import Client, clock
from distjob.config import backends
from distjob.errors import BackendUnavailable, ClientClosed, DistjobError
from distjob.files.forks import FORKS
from distjob.store import ABSENT, Committed, Store, Woken
from distjob_sqlite import SqliteSettings
from distjob_sqlite.database import Database

pytestmark = pytest.mark.forks

ROUNDS = 20
LONG = 20.0
"""Seconds that a fork would take, in the test that uses `patient`, if it waited in vain."""


def connect(path: Path, busy_timeout: float = 5.0) -> Store:
    settings = SqliteSettings(path=str(path), busy_timeout=busy_timeout)
    return backends.connect("sqlite", settings, "default", 10.0)


def database_of(store: Any) -> Database:
    """The connection by which verbs are done."""
    database: Database = store.verbs.source.database
    return database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = connect(path)
    yield store
    store.close()


@pytest.fixture
def client(path: Path) -> Iterator[Client]:
    with Client(connect(path), controller="parent") as client:
        yield client


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork waits so long for a call that a machine that is just busy can't be mistaken for it."""
    monkeypatch.setattr(FORKS, "PATIENCE", LONG)


def fork(work: Callable[[], object]) -> Callable[[], str]:
    """Run ``work`` in a forked child; what was returned waits for what it returned, or raised."""
    receive, send = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            said = repr(work())
        except BaseException as error:  # noqa: BLE001  a test's child must not run pytest's exit
            said = f"{type(error).__name__}: {error}"
        os.write(send, said.encode())
        os._exit(0)
    os.close(send)

    def wait() -> str:
        with os.fdopen(receive, "rb") as file:
            said = file.read().decode()
        os.waitpid(pid, 0)
        return said

    return wait


def write(store: Store, prefix: str) -> None:
    session = store.open_session(10.0, prefix)
    for number in range(ROUNDS):
        reply = store.commit(f"{prefix}-{number}", ABSENT, b"x", session, ())
        assert isinstance(reply, Committed)


def parent_and_child(path: Path) -> None:
    """The parent holds a job, and closes and exits before the child, which connects anew."""
    parent_is_there, parents_end = os.pipe()
    child_is_ready, childs_end = os.pipe()
    client = Client(connect(path), controller="parent")
    lease = client.begin("parents", "modify")
    if os.fork() == 0:
        os.close(parents_end)
        work_in_child(path, lambda: os.write(childs_end, b"x"), lambda: os.read(parent_is_there, 1))
        os._exit(0)
    os.close(childs_end)
    assert os.read(child_is_ready, 1) == b"x"
    lease.end()
    client.begin("parents", "modify").end()
    client.close()


def work_in_child(path: Path, tell: Callable[[], object], wait: Callable[[], object]) -> None:
    store = connect(path)
    with Client(connect(path), controller="child", wait=5) as client:
        assert client.try_begin("parents", "modify") is None, "the parent holds it"
        client.begin("childs", "modify").end()
        lease = client.begin("childs", "modify")
        write(store, "before")
        tell()
        wait()  # for the end of the parent
        write(store, "after")
        client.begin("parents", "modify").end()
        status = subprocess.run(
            [sys.executable, __file__, "status", path], check=True, capture_output=True, text=True
        )
        print(status.stdout, flush=True)
        lease.end()
    store.close()


def run_parent_and_child(path: Path, hooks: str) -> tuple[str, set[str]]:
    """What a third process sees of the child's job meanwhile, and what is there in the end."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, hooks, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if hooks == "with" else subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )
    with closing(connect(path)) as store:
        return ended.stdout.strip(), {vm for vm, _ in store.scan()}


WRITTEN = {f"{when}-{number}" for when in ("before", "after") for number in range(ROUNDS)}


def test_the_parent_ends_before_the_child(path: Path) -> None:
    seen, found = run_parent_and_child(path, "with")
    assert seen == "child holds childs"
    assert WRITTEN - found == set()
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_without_the_hooks_it_would_be_lost(path: Path) -> None:
    """That the test above tests something."""
    seen, found = run_parent_and_child(path, "without")
    assert seen != "child holds childs" or WRITTEN - found != set()


@pytest.mark.usefixtures("patient")
def test_the_parent_works_on_through_forks(client: Client, path: Path) -> None:
    held = client.begin("held", "modify")
    stop, failures, turns = threading.Event(), list[DistjobError](), [0]

    def work() -> None:
        while not stop.is_set():
            try:
                client.begin("worked", "modify").end()
                turns[0] += 1
            except DistjobError as error:
                failures.append(error)

    def work_anew() -> str:
        with Client(connect(path), controller="worker") as worker:
            assert worker.try_begin("held", "modify") is None
            worker.begin("childs", "modify").end()
            worker.begin("worked", "modify").end()
        return "worked"

    thread = threading.Thread(target=work)
    thread.start()
    children, slowest = [], 0.0
    try:
        for _ in range(12):
            before = turns[0]
            begun = clock.monotonic()
            children.append(fork(work_anew))
            slowest = max(slowest, clock.monotonic() - begun)
            while turns[0] <= before and thread.is_alive() and not failures:
                stop.wait(0.001)
        said = [child() for child in children]
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert said == ["'worked'"] * len(children)
    assert slowest < LONG, "a fork waited for a call that it could not wait for"
    held.end()


def test_a_lease_of_the_parent_is_the_parents(client: Client) -> None:
    lease = client.begin("vm", "modify")
    assert fork(lease.end)().startswith(ClientClosed.__name__)
    assert fork(client.close)() == "None"
    assert client.status("vm").holders
    lease.end()


@pytest.mark.parametrize("forks", [1, 2])
def test_mail_that_came_in_between_is_found(store: Store, path: Path, forks: int) -> None:
    """Each connection counts the changes by itself: a new one may say the number of the old."""
    me = store.open_session(10.0, "me")
    assert list(store.receive(me, 0.0)) == []

    def wake() -> int:
        with closing(connect(path)) as child:
            reply = child.commit(
                "vm", child.read("vm").version, b"x", child.open_session(10.0, "child"), (me,)
            )
        assert isinstance(reply, Committed)
        return reply.version

    for _ in range(forks):
        version = int(fork(wake)())
        assert list(store.receive(me, 0.0)) == [Woken(vm="vm", version=version, value=b"x")]


@pytest.mark.usefixtures("patient")
def test_a_poll_under_way_goes_on(store: Store, path: Path) -> None:
    me = store.open_session(10.0, "me")
    received: list[object] = []
    thread = threading.Thread(target=lambda: received.extend(store.receive(me, 20.0)))
    thread.start()
    slowest = 0.0
    for _ in range(20):
        begun = clock.monotonic()
        child = fork(lambda: None)
        slowest = max(slowest, clock.monotonic() - begun)
        assert child() == "None"
    with closing(connect(path)) as other:
        other.commit("vm", ABSENT, b"x", other.open_session(10.0, "other"), (me,))
    thread.join(10)
    assert len(received) == 1
    assert slowest < LONG


def test_busy_threads_let_a_fork_pass(store: Store, path: Path) -> None:
    """They take the file again and again, and a lock is not fair."""
    stop = threading.Event()
    session = store.open_session(10.0, "me")

    def work(vm: str) -> None:
        while not stop.is_set():
            store.commit(vm, store.read(vm).version, b"x", session, ())

    def connect_anew() -> bool:
        with closing(connect(path)) as child:
            return child.keep_alive(session)

    threads = [threading.Thread(target=work, args=(f"vm-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [fork(connect_anew)() for _ in range(10)] == ["True"] * 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.usefixtures("patient")
def test_who_waits_for_another_process_lets_a_fork_pass(
    store: Store, path: Path, start: Callable[..., Any]
) -> None:
    session = store.open_session(10.0, "me")
    replies: list[object] = []
    writer = start(
        [sys.executable, __file__, "hold", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdout.readline()
    thread = threading.Thread(
        target=lambda: replies.append(store.commit("vm", ABSENT, b"x", session, ()))
    )
    thread.start()
    threading.Event().wait(0.05)
    begun = clock.monotonic()
    child = fork(lambda: write(connect(path), "childs"))
    took = clock.monotonic() - begun
    writer.communicate(b"\n", timeout=10)
    assert child() == "None"
    thread.join(10)
    assert isinstance(replies[0], Committed)
    assert took < LONG
    assert len(list(store.scan())) == ROUNDS + 1


def test_a_child_forked_in_a_transaction_is_refused(store: Store, path: Path) -> None:
    session = store.open_session(10.0, "me")
    inside, leave = threading.Event(), threading.Event()

    def write_slowly() -> None:
        with database_of(store).transaction():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=write_slowly)
    thread.start()
    inside.wait()
    link = path.with_name("link.db")
    link.symlink_to(path)
    waits = [
        fork(lambda: store.keep_alive(session)),
        fork(lambda: store.receive(session, 0.0)),  # of the other connection, which was idle
        fork(lambda: connect(path)),
        fork(lambda: connect(link)),
        fork(lambda: write(connect(path.with_name("another.db")), "x")),
        fork(store.close),
    ]
    leave.set()
    thread.join()
    said = [wait() for wait in waits]
    assert [word.partition(":")[0] for word in said] == [BackendUnavailable.__name__] * 4 + [
        "None"
    ] * 2
    assert all("before a fork" in word for word in said[:2])
    assert all("forked while" in word for word in said[2:4])
    assert store.keep_alive(session)
    assert fork(lambda: connect(path).keep_alive(session))() == "True"


def test_a_child_that_leaves_a_transaction_changes_nothing(store: Store, path: Path) -> None:
    session = store.open_session(10.0, "me")
    with database_of(store).transaction() as sql:
        sql.execute("DELETE FROM session")
        if (pid := os.fork()) != 0:
            os.waitpid(pid, 0)
            with closing(sqlite3.connect(path)) as other:
                assert other.execute("SELECT id FROM session").fetchall() == [(session,)]
            sql.execute("ROLLBACK")
    if pid == 0:
        os._exit(0)
    assert store.keep_alive(session)


def test_an_inherited_connection_is_not_closed_at_exit(path: Path) -> None:
    """Its closing would remove the WAL by name: here one that holds a killed writer's commits."""
    subprocess.run([sys.executable, "-W", "ignore", __file__, "exit", path], timeout=60, check=True)
    with closing(connect(path)) as store:
        assert len(list(store.scan())) == ROUNDS


def exit_after_a_fork_in_a_transaction(path: Path) -> None:
    """The child exits as programs do, so that Python collects what is left."""
    store = connect(path)
    parent_has_closed, closed = os.pipe()
    with database_of(store).transaction():
        if (pid := os.fork()) == 0:
            os.read(parent_has_closed, 1)
    if pid == 0:
        sys.exit()
    store.close()
    subprocess.run([sys.executable, __file__, "killed", path], check=True)
    assert path.with_name(path.name + "-wal").stat().st_size
    os.write(closed, b"x")
    assert os.waitpid(pid, 0)[1] == 0


def test_hooks_of_others_find_it_in_use(store: Store) -> None:
    """They may run between our hook and the fork: what they open would be inherited."""
    FORKS.before()
    try:
        with pytest.raises(BackendUnavailable, match="is forking"):
            store.read("vm")
    finally:
        FORKS.after_in_parent()
    assert store.read("vm").version == ABSENT


def test_a_file_lost_during_a_fork_is_not_made_anew(store: Store, path: Path) -> None:
    fork(lambda: None)()
    for file in path.parent.glob("jobs.db*"):
        file.unlink()
    with pytest.raises(BackendUnavailable, match="restart"):
        store.read("vm")
    assert not path.exists()
    path.touch()
    with pytest.raises(BackendUnavailable, match="restart"):
        store.read("vm")
    assert path.stat().st_size == 0


def main(what: str, path: Path) -> None:
    match what:
        case "with":
            parent_and_child(path)
        case "without":
            FORKS.add = lambda _: None
            parent_and_child(path)
        case "status":
            with Client(connect(path)) as client:
                for holder in client.status("childs").holders:
                    print(holder.controller, "holds childs")
        case "exit":
            exit_after_a_fork_in_a_transaction(path)
        case "killed":
            write(connect(path), "killed")
            os._exit(0)
        case "hold":
            with closing(sqlite3.connect(path, isolation_level=None)) as file:
                file.execute("BEGIN IMMEDIATE")
                print(flush=True)
                sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
