"""Everything that can be wrong with the file, provoked, and what the store says then."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from distjob import clock
from distjob.config import backends, load
from distjob.errors import BackendUnavailable, ConfigError, DistjobError, RecordError
from distjob.files.filesystems import filesystems
from distjob.store import ABSENT, Committed, Gone, Store
from distjob_sqlite import SqliteSettings, backend, database

T = TypeVar("T")
Connect = Callable[..., Store]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def connect(path: Path) -> Iterator[Connect]:
    stores: list[Store] = []

    def connect(busy_timeout: float = 5.0, ttl: float = 10.0, path: Path = path) -> Store:
        settings = SqliteSettings(path=str(path), busy_timeout=busy_timeout)
        stores.append(backends.connect("sqlite", settings, "default", ttl))
        return stores[-1]

    yield connect
    for store in stores:
        store.close()


def everything(store: Store, session: str) -> Iterator[Callable[[], object]]:
    yield lambda: store.open_session(1.0, "me")
    yield lambda: store.keep_alive(session)
    yield lambda: store.close_session(session)
    yield lambda: store.read("vm")
    yield lambda: store.commit("vm", ABSENT, b"x", session, ())
    yield lambda: store.remaining([session])
    yield lambda: store.receive(session, 0.1)
    yield lambda: list(store.scan())


# -- at connect -------------------------------------------------------------------------------


def test_missing_directory(connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"make the directory {tmp_path}/none"):
        connect(path=tmp_path / "none" / "jobs.db")


def test_a_directory_in_place_of_the_file(connect: Connect, path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigError, match=r"it is no regular file: set sqlite\.path"):
        connect()


def test_a_fifo_in_place_of_the_file(connect: Connect, path: Path) -> None:
    """It is refused, as is all that is no file."""
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"it is no regular file: set sqlite\.path"):
        connect()
    path.unlink()
    path.symlink_to("/dev/null")
    with pytest.raises(ConfigError, match="it is no regular file"):
        connect()


def test_a_fifo_that_takes_the_place_of_an_open_file(connect: Connect, path: Path) -> None:
    store = connect()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BackendUnavailable, match="replaced while it was open"):
        store.read("vm")
    with pytest.raises(BackendUnavailable, match="replaced while it was open"):
        store.read("vm")


def test_a_path_through_a_file(connect: Connect, path: Path) -> None:
    path.write_text("x")
    with pytest.raises(ConfigError, match="make the directory"):
        connect(path=path / "jobs.db")


@pytest.fixture
def someone_elses() -> Iterator[Path]:
    """A directory that this process may enter and read, but not write to; even if run as root."""
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with closing(sqlite3.connect(folder / "old.db")) as old:
            old.execute("CREATE TABLE x (y)")
        ours = SqliteSettings(path=str(folder / "ours.db"))
        backends.connect("sqlite", ours, "default", 10.0).close()
        (folder / "empty.db").touch()
        os.mkfifo(folder / "fifo.db")  # opened for reading, it waits for who writes
        for file in folder.iterdir():
            file.chmod(0o444)
        (folder / "secret").mkdir(0o000)
        folder.chmod(0o555)
        if me == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(me)
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("file", "advice"),
    [
        ("new.db", "must be a writable SQLite file in a writable directory"),
        ("old.db", "another program's"),
        ("empty.db", "must be a writable SQLite file"),
        ("ours.db", "must be a writable SQLite file"),
        ("secret/jobs.db", "let this user into"),
        ("fifo.db", "it is no regular file"),
    ],
)
def test_unwritable(connect: Connect, someone_elses: Path, file: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        connect(path=someone_elses / file)


@pytest.mark.parametrize("garbage", [b"hello", b"not a database, " * 1000])
def test_garbage(connect: Connect, path: Path, garbage: bytes) -> None:
    path.write_bytes(garbage)
    with pytest.raises(ConfigError, match=r"jobs.db: file is not a database: it must be"):
        connect()
    assert path.read_bytes() == garbage


def test_an_empty_file_is_a_new_one(connect: Connect, path: Path) -> None:
    path.touch()
    assert list(connect().scan()) == []


def test_another_programs_database(connect: Connect, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE record (id)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program's database"):
        connect()
    assert path.read_bytes() == before


def test_another_layout(connect: Connect, path: Path) -> None:
    connect().close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE meta SET schema = 99")
    with pytest.raises(ConfigError, match=f"layout 99, this distjob uses layout {database.SCHEMA}"):
        connect()


def test_network_file_system(connect: Connect, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kind,) = filesystems(path.parent)
    monkeypatch.setattr(database, "NETWORK", {kind})
    with pytest.raises(ConfigError, match=f"is on {kind}: SQLite serves one host"):
        connect()
    assert not path.exists()


def test_no_boot_id(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def boot_id() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(clock, "boot_id", boot_id)
    with pytest.raises(ConfigError, match="needs Linux"):
        connect()


@pytest.mark.parametrize(
    ("path", "right"),
    [
        (":memory:", "':memory:' is no file: nobody else would see"),
        ("/tmp/:memory:", "':memory:' is no file"),
        ("file::memory:?cache=shared", "a path is wanted, such as /var/lib/distjob/jobs.db"),
        ("sqlite:///jobs.db", "a path is wanted"),
    ],
)
def test_what_is_no_path(path: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"^settings: sqlite.path: {right}"):
        load({"sqlite": {"path": path}})


@pytest.mark.parametrize(
    "section",
    [
        {"path": ""},
        {"path": "a\0b"},
        {"path": 1},
        {"busy_timeout": 0},
        {"busy_timeout": 61},
        {"busy_timeout": "5"},
        {"pathh": "x"},
    ],
)
def test_settings(section: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(section, backend.settings)


def test_many_processes_make_the_file_at_once(path: Path, start: Callable[..., Any]) -> None:
    program = """if True:
        import sys
        from distjob.config import backends
        from distjob_sqlite import SqliteSettings
        sys.stdin.readline()
        for n in range(5):
            settings = SqliteSettings(path=f"{sys.argv[1]}-{n}")
            store = backends.connect("sqlite", settings, "default", 10.0)
            session = store.open_session(10.0, "me")
            store.commit(sys.argv[2], 0, b"x", session, ())
            store.close()
    """
    processes = [
        start([sys.executable, "-c", program, str(path), str(number)], stdin=subprocess.PIPE)
        for number in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0] * 6
    for n in range(5):
        store = backends.connect("sqlite", SqliteSettings(path=f"{path}-{n}"), "default", 10.0)
        assert len(list(store.scan())) == 6
        store.close()


# -- later ------------------------------------------------------------------------------------


def test_locked_for_too_long(connect: Connect, path: Path) -> None:
    store = connect(busy_timeout=0.1)
    session = store.open_session(10.0, "me")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begun = clock.monotonic()
        with pytest.raises(BackendUnavailable, match=r"writing for 0\.1 s") as caught:
            store.commit("vm", ABSENT, b"x", session, ())
        assert 0.1 <= clock.monotonic() - begun < 2
        assert not caught.value.unanswered
        assert store.read("vm").version == ABSENT, "readers do not wait for writers"
    assert isinstance(store.commit("vm", ABSENT, b"x", session, ()), Committed)


def test_never_waits_longer_than_the_ttl(connect: Connect, path: Path) -> None:
    store = connect(busy_timeout=60.0, ttl=0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable, match=r"writing for 0\.1 s"):
            store.open_session(0.1, "me")


def test_waits_for_a_short_lock(connect: Connect, path: Path) -> None:
    store = connect()
    session = store.open_session(10.0, "me")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, other.execute, ("COMMIT",))
        timer.start()
        assert isinstance(store.commit("vm", ABSENT, b"x", session, ()), Committed)
        timer.join()


@pytest.mark.parametrize("replaced", [False, True])
def test_deleted_while_open(connect: Connect, path: Path, replaced: bool) -> None:
    store = connect()
    session = store.open_session(10.0, "me")
    for file in path.parent.glob("jobs.db*"):
        file.unlink()
    if replaced:
        connect()
    for verb in everything(store, session):
        with pytest.raises(BackendUnavailable, match="restart") as caught:
            verb()
        assert not caught.value.unanswered


def test_replaced_by_a_copy(connect: Connect, path: Path) -> None:
    store = connect()
    session = store.open_session(10.0, "me")
    store.commit("vm", ABSENT, b"x", session, ())
    other = path.with_name("copy.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(other)) as copy:
        source.backup(copy)
    other.replace(path)
    for verb in everything(store, session):
        with pytest.raises(BackendUnavailable, match="was replaced while it was open"):
            verb()


def test_sessions_of_another_boot_end_when_they_were_seen_at_rest_for_their_ttl(
    connect: Connect, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0  # of before the reboot
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    before = connect()
    session = before.open_session(1000.0, "me")
    version = before.commit("vm", ABSENT, b"x", session, (session,))
    assert isinstance(version, Committed)
    before.close()
    monkeypatch.setattr(clock, "boot_id", lambda: "another boot")
    now = 5.0
    after = connect()
    me = after.open_session(5000.0, "me")
    assert not after.keep_alive(session), "nobody here may renew it"
    assert after.commit("vm", ABSENT, b"y", session, ()) == Gone(frozenset({session}))
    assert after.remaining([session]) == {session: 1000.0}
    now += 999
    assert after.remaining([session]) == {session: 1.0}
    version = after.commit("vm", version.version, b"x", me, (session,))
    assert isinstance(version, Committed), "it may live: its wake-up is kept"
    now += 1
    assert after.remaining([session]) == {session: 0.0}
    assert after.commit("vm", version.version, b"y", me, (session,)) == Gone(frozenset({session}))
    assert after.read("vm").value == b"x"


def test_a_session_of_another_clock_lives_while_it_is_renewed(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers on one file, each with a boot id of its own, and clocks that are far apart."""
    now, there = 5.0, 1_000_000.0
    here = connect()
    me = here.open_session(5000.0, "me")
    with monkeypatch.context() as patched:
        patched.setattr(clock, "boot_id", lambda: "a container's own")
        other = connect()

    def on_other(verb: Callable[..., T], *args: object) -> T:
        with monkeypatch.context() as patched:
            patched.setattr(clock, "monotonic", lambda: there)
            return verb(*args)

    monkeypatch.setattr(clock, "monotonic", lambda: now)
    session = on_other(other.open_session, 10.0, "other")
    for _ in range(5):
        assert here.remaining([session])[session] > 0
        assert here.keep_alive(me), "which purges"
        now, there = now + 8, there + 8
        assert on_other(other.keep_alive, session)
    assert here.remaining([session]) == {session: 10.0}
    now, there = now + 10, there + 10
    assert here.remaining([session]) == {session: 0.0}
    assert not on_other(other.keep_alive, session), "ended is for ever"


def test_ended_sessions_and_received_mail_leave_nothing(connect: Connect, path: Path) -> None:
    store = connect()
    me = store.open_session(10.0, "me")
    for ttl in (0.5, 0.5, 10.0):
        session = store.open_session(ttl, "waiter")
        for vm in ("vm-1", "vm-2"):
            reply = store.commit(vm, store.read(vm).version, b"x", me, (session, me))
            assert isinstance(reply, Committed)
    store.close_session(session)
    while len(store.receive(me, 0.0)):
        pass
    threading.Event().wait(0.51)
    assert store.keep_alive(me)
    with closing(sqlite3.connect(path)) as look:
        assert look.execute("SELECT id FROM session").fetchall() == [(me,)]
        assert look.execute("SELECT count(*) FROM mail").fetchall() == [(0,)]


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE record; DROP TABLE mail; DROP TABLE session; DROP TABLE meta",
        "DROP TABLE session; CREATE TABLE session (id)",
    ],
)
def test_missing_tables(connect: Connect, path: Path, damage: str) -> None:
    store = connect()
    session = store.open_session(10.0, "me")
    with closing(sqlite3.connect(path)) as other:
        other.executescript(damage)
    with pytest.raises(RecordError, match=r"jobs.db is damaged: no such"):
        store.commit("vm", ABSENT, b"x", session, ())
    with pytest.raises(RecordError, match=r"jobs.db is damaged: no such"):
        store.remaining([session])


def test_an_empty_meta_table(connect: Connect, path: Path) -> None:
    store = connect()
    session = store.open_session(10.0, "me")
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("DELETE FROM meta")
    with pytest.raises(RecordError, match="the table meta is empty"):
        store.commit("vm", ABSENT, b"x", session, ())
    with pytest.raises(RecordError, match="the table meta is empty"):
        connect()


def test_a_name_that_is_no_text(connect: Connect, path: Path) -> None:
    store = connect()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO record VALUES ('default', x'ff', 1, x'00')")
    with pytest.raises(RecordError, match="no name of a VM"):
        list(store.scan())


def test_corrupt_pages(connect: Connect, path: Path) -> None:
    store = connect()
    session = store.open_session(10.0, "me")
    for number in range(200):
        store.commit(f"vm-{number}", ABSENT, b"x" * 500, session, ())
    store.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    with pytest.raises(RecordError, match=r"jobs.db is damaged: database disk image is malformed"):
        list(connect().scan())


def test_full_disk(connect: Connect) -> None:
    """The file may grow no further: nothing acknowledged is lost, the rest is told apart."""
    store = connect()
    session = store.open_session(60.0, "me")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    acknowledged: set[str] = set()
    refused: set[str] = set()
    unknown: set[str] = set()
    messages: set[str] = set()
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, before[1]))
    try:
        for number in range(40):
            vm = f"vm-{number}"
            try:
                store.commit(vm, ABSENT, b"x" * 500_000, session, ())
                acknowledged.add(vm)
            except BackendUnavailable as error:
                (unknown if error.unanswered else refused).add(vm)
                messages.add(str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert acknowledged
    assert refused | unknown
    assert all("free space" in message for message in messages)
    found = {vm for vm, _ in connect().scan()}
    assert acknowledged <= found
    assert not refused & found
    assert isinstance(store.commit("after", ABSENT, b"x", session, ()), Committed)


@pytest.mark.parametrize("applied", [False, True])
def test_unanswered_when_the_commit_itself_fails(connect: Connect, applied: bool) -> None:
    """As when the checkpoint after the commit fails, and as when the commit is refused."""
    store: Any = connect()
    session = store.open_session(10.0, "me")

    class Failing:
        def __init__(self, sql: sqlite3.Connection) -> None:
            self._sql = sql

        @property
        def in_transaction(self) -> bool:
            return self._sql.in_transaction

        def execute(self, text: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
            if text != "COMMIT":
                return self._sql.execute(text, values)
            if applied:
                self._sql.execute(text)
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        def close(self) -> None:
            self._sql.close()

    file: Any = store.verbs.source.database
    file._sql = Failing(file._sql)
    with pytest.raises(BackendUnavailable, match="disk I/O error") as caught:
        store.commit("vm", ABSENT, b"x", session, ())
    assert caught.value.unanswered is applied
    assert (store.read("vm").version != ABSENT) is applied


def test_closed(connect: Connect) -> None:
    store = connect()
    session = store.open_session(10.0, "me")
    store.close()
    store.close()
    store.interrupt()
    for verb in everything(store, session):
        with pytest.raises(BackendUnavailable, match="was closed"):
            verb()


def test_close_ends_a_receive_under_way(connect: Connect) -> None:
    store = connect()
    session = store.open_session(10.0, "me")
    caught: list[DistjobError] = []

    def receive() -> None:
        try:
            store.receive(session, 60.0)
        except DistjobError as error:
            caught.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    store.close()
    thread.join(10)
    assert not thread.is_alive()
