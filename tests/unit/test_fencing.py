"""The guard: what is admitted, what is refused, and that no error admits."""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distjob import fencing
from distjob.errors import BackendUnavailable, BadRequest, ClientClosed, RecordError, StaleToken
from distjob.files.filesystems import filesystems
from distjob.rules.fence import MAX_TOKEN, Fence
from distjob.rules.jobs import Slot

Guard = partial(fencing.Guard, volatile=True)  # the tests' folder may be in memory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard.db"


@pytest.fixture
def guard(path: Path) -> Iterator[fencing.Guard]:
    with Guard(path, wait=5) as guard:
        yield guard


def fence(token: int, slot: Slot) -> Fence:
    """One that says nothing of other slots."""
    floors = {other: token if other is slot else 1 for other in Slot}
    return Fence((slot,), *floors.values())


def sync(token: int) -> Fence:
    return fence(token, Slot.SYNC)


def marks_of(guard: fencing.Guard, vm: str = "vm") -> list[int]:
    return [guard.highest(vm, slot) for slot in Slot]


def in_child(work: Callable[[], object]) -> str:
    """What ``work`` returned, or raised, in a forked child."""
    receive, send = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            said = repr(work())
        except BaseException as error:  # noqa: BLE001  a test's child must not run pytest's exit
            said = type(error).__name__
        os.write(send, said.encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


def test_marks_rise_and_never_fall(guard: fencing.Guard) -> None:
    assert guard.highest("vm", Slot.SYNC) == 0
    guard.admit("vm", sync(5))
    guard.admit("vm", sync(5))
    guard.admit("vm", sync(MAX_TOKEN - 1))
    guard.admit("vm", sync(MAX_TOKEN))
    with pytest.raises(StaleToken):
        guard.admit("vm", sync(5))
    assert guard.highest("vm", Slot.SYNC) == MAX_TOKEN


def test_stale_token_says_who_won(guard: fencing.Guard) -> None:
    guard.admit("vm\x00ü", fence(12, Slot.ASYNC))
    with pytest.raises(StaleToken) as caught:
        guard.admit("vm\x00ü", fence(10, Slot.ASYNC))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.vm, again.slot, again.token, again.highest) == ("vm\x00ü", "async", 10, 12)
    for part in ("10", "12", repr("vm\x00ü"), "async slot", "passed on"):
        assert part in str(again)


def test_slots_and_vms_are_apart(guard: fencing.Guard) -> None:
    guard.admit("vm", sync(12))
    guard.admit("vm", fence(10, Slot.ASYNC))
    guard.admit("vm", fence(1, Slot.AGENT))
    guard.admit("vm\x00", sync(1))
    guard.admit("VM", sync(1))
    assert marks_of(guard) == [12, 1, 10]


@pytest.mark.parametrize("what", [7, "sync", None, ("sync", 1, 1, 1)])
def test_what_is_no_fence(guard: fencing.Guard, what: object) -> None:
    with pytest.raises(BadRequest, match=r"lease\.fence"):
        guard.admit("vm", what)  # type: ignore[arg-type]


@pytest.mark.parametrize("vm", ["", "x" * 256, "\ud800", None, b"vm"])
def test_what_is_no_vm(guard: fencing.Guard, vm: object) -> None:
    with pytest.raises(BadRequest):
        guard.admit(vm, sync(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("slot", ["SYNC", "", None, 3, []])
def test_what_is_no_slot(guard: fencing.Guard, slot: object) -> None:
    with pytest.raises(BadRequest, match="sync, agent, async"):
        guard.highest("vm", slot)  # type: ignore[arg-type]


def test_marks_outlive_the_guard(path: Path) -> None:
    with Guard(path) as guard:
        guard.admit("vm", sync(7))
    with Guard(path) as guard, pytest.raises(StaleToken):
        guard.admit("vm", sync(6))


def test_the_mark_is_committed_before_the_body(guard: fencing.Guard, path: Path) -> None:
    with guard.exclusively("vm", sync(7)), closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT slot, token FROM marks").fetchall() == [
            *(("agent", 1), ("async", 1), ("sync", 7))
        ]


def test_nobody_is_admitted_during_the_body(guard: fencing.Guard, path: Path) -> None:
    with Guard(path, wait=0.1) as other, guard.exclusively("vm", sync(7)):
        assert other.highest("vm", Slot.SYNC) == 7
        with pytest.raises(BackendUnavailable, match=r"0\.1 s"):
            other.admit("another", sync(8))
        thread_said: list[BaseException] = []

        def admit() -> None:
            try:
                with Guard(path, wait=0.1) as third:
                    third.admit("vm", sync(8))
            except BackendUnavailable as error:
                thread_said.append(error)

        thread = threading.Thread(target=admit)
        thread.start()
        thread.join()
        assert len(thread_said) == 1
    guard.admit("vm", sync(8))


def test_a_stale_body_does_not_run(guard: fencing.Guard) -> None:
    guard.admit("vm", sync(8))
    with pytest.raises(StaleToken), guard.exclusively("vm", sync(7)):
        pytest.fail("ran")
    guard.admit("vm", sync(9))


def test_a_body_that_raises_lets_go(guard: fencing.Guard, path: Path) -> None:
    with pytest.raises(ZeroDivisionError), guard.exclusively("vm", sync(7)):
        raise ZeroDivisionError
    with Guard(path, wait=1) as other:
        other.admit("vm", sync(8))


def test_calls_in_ones_own_body_are_refused(guard: fencing.Guard) -> None:
    with guard.exclusively("vm", sync(7)):
        for call in (
            lambda: guard.admit("vm", sync(7)),
            lambda: guard.highest("vm", Slot.SYNC),
            guard.close,
        ):
            with pytest.raises(BadRequest, match="exclusively"):
                call()
    guard.admit("vm", sync(8))


def test_closed(guard: fencing.Guard) -> None:
    guard.close()
    guard.close()
    with pytest.raises(ClientClosed, match="closed"):
        guard.admit("vm", sync(1))


@pytest.mark.parametrize(
    "content", [b"not a database" * 100, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_garbage_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"guard\.db"):
        Guard(path)
    assert path.read_bytes() == content


def test_another_programs_file_is_left_alone(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(RecordError, match="not the file of a guard"):
        Guard(path)
    assert path.read_bytes() == before


def test_a_lost_table_is_not_an_empty_one(path: Path) -> None:
    with Guard(path) as guard:
        guard.admit("vm", sync(7))
    other = sqlite3.connect(path)
    other.execute("DROP TABLE marks")
    other.close()
    with pytest.raises(RecordError):
        Guard(path)


def test_damage_in_the_middle_is_found(path: Path) -> None:
    with Guard(path) as guard:
        for number in range(300):
            guard.admit(f"vm-{number}" + "x" * 100, sync(7))
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 64] = b"\xaa" * 64
    path.write_bytes(content)
    with pytest.raises(RecordError, match="corrupt"):
        Guard(path)


@pytest.mark.parametrize("replace", [True, False])
def test_a_swapped_file_admits_nothing_ever(
    path: Path, replace: bool, guard: fencing.Guard
) -> None:
    guard.admit("vm", sync(7))
    path.rename(path.with_suffix(".old"))
    if replace:
        path.touch()
    for _ in range(2):
        with pytest.raises(RecordError, match="deleted or replaced"):
            guard.admit("vm", sync(8))


def test_what_is_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused, not waited for."""
    monkeypatch.chdir(path.parent)
    for name in (":memory:", path / ":memory:"):
        with pytest.raises(BadRequest, match="':memory:' is no file"):
            Guard(name)
    os.mkfifo(path)
    with pytest.raises(BackendUnavailable, match=r"no regular file; not admitted\. It must be a f"):
        Guard(path)
    assert list(path.parent.iterdir()) == [path]


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="no/guard"):
        Guard(tmp_path / "no" / "guard.db")


def test_each_opening_forces_the_file_to_the_disk(path: Path) -> None:
    with Guard(path), Guard(path):
        before = path.with_name("guard.db-wal").stat().st_size
        with Guard(path):
            assert path.with_name("guard.db-wal").stat().st_size > before


@pytest.mark.forks
def test_a_forked_child_goes_on(guard: fencing.Guard, path: Path) -> None:
    guard.admit("vm", sync(1))

    def admit() -> int:
        guard.admit("vm", sync(2))
        return guard.highest("vm", Slot.SYNC)

    assert in_child(admit) == "2"
    with pytest.raises(StaleToken):
        guard.admit("vm", sync(1))


@pytest.mark.forks
def test_what_a_child_admits_outlives_the_parents_close(guard: fencing.Guard, path: Path) -> None:
    """SQLite alone fails here: its locks are not inherited, the parent removes the child's WAL."""
    told, tell = os.pipe()
    ready, is_ready = os.pipe()
    guard.admit("vm", sync(1))
    if (pid := os.fork()) == 0:
        guard.admit("vm", sync(2))
        os.write(is_ready, b"x")
        os.read(told, 1)
        guard.admit("vm", sync(3))
        os._exit(0)
    os.read(ready, 1)
    guard.close()
    os.write(tell, b"x")
    os.waitpid(pid, 0)
    for descriptor in (told, tell, ready, is_ready):
        os.close(descriptor)
    with Guard(path) as again:
        assert again.highest("vm", Slot.SYNC) == 3


@pytest.mark.forks
def test_a_child_forked_in_a_body_is_refused(guard: fencing.Guard, path: Path) -> None:
    with guard.exclusively("vm", sync(1)):
        assert in_child(lambda: guard.admit("vm", sync(2))) == "ClientClosed"
        assert in_child(lambda: Guard(path)) == "ClientClosed"
        assert in_child(guard.close) == "None"
    guard.admit("vm", sync(2))


@pytest.mark.forks
def test_a_child_forked_beside_a_body_is_refused(guard: fencing.Guard) -> None:
    inside, leave = threading.Event(), threading.Event()

    def body() -> None:
        with guard.exclusively("vm", sync(1)):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=body)
    thread.start()
    inside.wait()
    assert in_child(lambda: guard.admit("vm", sync(2))) == "ClientClosed"
    leave.set()
    thread.join()
    guard.admit("vm", sync(2))


def test_threads_share_a_guard(guard: fencing.Guard) -> None:
    def admit(start: int) -> None:
        for token in range(start, 200, 4):
            with suppress(StaleToken):
                guard.admit("vm", sync(token))
            assert guard.highest("vm", Slot.SYNC) >= token

    threads = [threading.Thread(target=admit, args=(start,)) for start in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guard.highest("vm", Slot.SYNC) == 199


slots = st.sampled_from([(Slot.SYNC,), (Slot.AGENT,), (Slot.ASYNC,), (Slot.SYNC, Slot.AGENT)])
tokens = st.integers(1, 6) | st.just(MAX_TOKEN)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(
            *(st.sampled_from(["a", "b", "a\x00", "🦉"]), slots, st.tuples(tokens, tokens, tokens)),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_it_is_a_maximum_per_slot_raised_at_once_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, tuple[Slot, ...], tuple[int, int, int], bool]],
) -> None:
    model: dict[str, list[int]] = {}
    path = tmp_path_factory.mktemp("guard") / "guard.db"
    with Guard(path) as one, Guard(path) as two:
        for vm, own, floors, which in steps:
            guard = one if which else two
            given = dict(zip(Slot, floors, strict=True)) | dict.fromkeys(own, floors[0])
            marks = model.setdefault(vm, [0, 0, 0])
            if any(
                given[slot] < mark for slot, mark in zip(Slot, marks, strict=True) if slot in own
            ):
                with pytest.raises(StaleToken):
                    guard.admit(vm, Fence(own, *given.values()))
            else:
                guard.admit(vm, Fence(own, *given.values()))
                model[vm] = list(map(max, marks, given.values()))
        for vm, marks in model.items():
            assert marks_of(one, vm) == marks_of(two, vm) == marks


# -- fences ---------------------------------------------------------------------------------------


def test_all_floors_of_a_fence_are_raised(guard: fencing.Guard) -> None:
    guard.admit("vm", Fence((Slot.SYNC, Slot.AGENT), 12, 12, 10))
    assert marks_of(guard) == [12, 12, 10]
    guard.admit("vm", fence(10, Slot.ASYNC))
    with pytest.raises(StaleToken) as caught:
        guard.admit("vm", Fence((Slot.ASYNC,), 99, 99, 9))
    assert (caught.value.slot, caught.value.highest) == ("async", 10)
    assert marks_of(guard) == [12, 12, 10], "one that is refused raises nothing"


def test_both_slots_of_a_job_must_be_good(guard: fencing.Guard) -> None:
    guard.admit("vm", fence(12, Slot.AGENT))
    with pytest.raises(StaleToken, match="agent slot"):
        guard.admit("vm", Fence((Slot.SYNC, Slot.AGENT), 11, 11, 1))
    assert marks_of(guard) == [1, 12, 1]


def test_a_body_whose_fence_raises_no_mark_is_alone_too(guard: fencing.Guard, path: Path) -> None:
    guard.admit("vm", sync(7))
    with Guard(path, wait=0.1) as other:
        with guard.exclusively("vm", sync(7)), pytest.raises(BackendUnavailable):
            other.admit("vm", sync(8))
        other.admit("vm", sync(8))


def test_forget(guard: fencing.Guard, path: Path) -> None:
    guard.admit("vm", sync(MAX_TOKEN))
    guard.admit("other", sync(7))
    with Guard(path) as another:
        another.forget("vm")
        another.forget("never seen")
    assert marks_of(guard) == [0, 0, 0]
    guard.admit("vm", sync(1))
    with pytest.raises(StaleToken):
        guard.admit("other", sync(6))
    with guard.exclusively("vm", sync(1)), pytest.raises(BadRequest):
        guard.forget("vm")
    with pytest.raises(BadRequest):
        guard.forget("")


def test_another_task_in_a_body_that_awaits_is_told_what_to_do(guard: fencing.Guard) -> None:
    async def both() -> None:
        entered = asyncio.Event()

        async def awaits() -> None:
            with guard.exclusively("vm", sync(1)):
                entered.set()
                await asyncio.sleep(0)

        task = asyncio.create_task(awaits())
        await entered.wait()
        with pytest.raises(BadRequest, match=r"no await in that body.*asyncio\.to_thread"):
            guard.admit("other", sync(1))
        await task

    asyncio.run(both())


# -- files of before, and places ------------------------------------------------------------------

BEFORE = """
CREATE TABLE marks (
    vm BLOB NOT NULL,
    slot TEXT NOT NULL,
    token INTEGER NOT NULL CHECK (typeof(token) = 'integer' AND token > 0),
    PRIMARY KEY (vm, slot)) WITHOUT ROWID;
INSERT INTO marks VALUES (CAST('vm' AS BLOB), 'sync', 12), (CAST('vm' AS BLOB), 'async', 10);
PRAGMA application_id = 1684694884;
PRAGMA journal_mode = WAL;
"""
"""A file of the guard that knew a mark for each slot and no fences, as SQLite's shell dumps it."""


def test_marks_of_before_there_were_fences_are_floors(path: Path) -> None:
    with closing(sqlite3.connect(path)) as before:
        before.executescript(BEFORE)
    with Guard(path) as guard:
        assert marks_of(guard) == [12, 0, 10]
        for old in (sync(11), fence(9, Slot.ASYNC)):
            with pytest.raises(StaleToken):
                guard.admit("vm", old)
        guard.admit("vm", Fence((Slot.SYNC,), 12, 12, 10))
        guard.admit("vm", Fence((Slot.ASYNC,), 13, 13, 13))
        assert marks_of(guard) == [13, 13, 13]


def test_a_mark_of_no_slot_is_damage(path: Path) -> None:
    with closing(sqlite3.connect(path)) as before:
        before.executescript(BEFORE.replace("'async'", "'disk'"))
    with Guard(path) as guard, pytest.raises(RecordError, match="a mark that is none"):
        guard.admit("vm", sync(12))


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "virtiofs", "vboxsf", "9p", "gpfs", "beegfs"])
def test_no_guard_on_a_network_file_system(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fencing, "filesystems", lambda folder: {kind})
    for volatile in (True, False):
        with pytest.raises(BadRequest, match=rf"it is on {kind}: .* one host.* local disk"):
            fencing.Guard(path, volatile=volatile)
    assert not path.exists()


def test_no_guard_in_memory_unless_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real thing, where there is one."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and filesystems(memory) == {"tmpfs"}):
        pytest.skip("/dev/shm is no tmpfs here")
    with TemporaryDirectory(dir=memory) as folder:
        path = Path(folder) / "marks.db"
        with pytest.raises(BadRequest, match="it is on tmpfs: a reboot would forget the marks"):
            fencing.Guard(path)
        assert not path.exists()
        with fencing.Guard(path, volatile=True) as guard:
            guard.admit("vm", sync(1))


def test_the_file_systems_of_this_host(tmp_path: Path) -> None:
    root = filesystems(Path("/proc"))
    assert root == {"proc"}
    with pytest.raises(FileNotFoundError):
        filesystems(tmp_path / "missing")
