"""The guard: what is admitted, what is refused, and that no error admits."""

from __future__ import annotations

import os
import pickle
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distjob.errors import BackendUnavailable, BadRequest, ClientClosed, RecordError, StaleToken
from distjob.fencing import MAX_TOKEN, Guard
from distjob.jobs import Slot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard.db"


@pytest.fixture
def guard(path: Path) -> Iterator[Guard]:
    with Guard(path, wait=5) as guard:
        yield guard


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


def test_marks_rise_and_never_fall(guard: Guard) -> None:
    assert guard.highest("vm", Slot.SYNC) == 0
    guard.admit("vm", Slot.SYNC, 5)
    guard.admit("vm", Slot.SYNC, 5)
    guard.admit("vm", "sync", MAX_TOKEN - 1)
    guard.admit("vm", "sync", MAX_TOKEN)
    with pytest.raises(StaleToken):
        guard.admit("vm", Slot.SYNC, 5)
    assert guard.highest("vm", Slot.SYNC) == MAX_TOKEN


def test_stale_token_says_who_won(guard: Guard) -> None:
    guard.admit("vm\x00ü", Slot.ASYNC, 12)
    with pytest.raises(StaleToken) as caught:
        guard.admit("vm\x00ü", Slot.ASYNC, 10)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.vm, again.slot, again.token, again.highest) == ("vm\x00ü", "async", 10, 12)
    for part in ("10", "12", repr("vm\x00ü"), "async slot", "passed on"):
        assert part in str(again)


def test_slots_and_vms_are_apart(guard: Guard) -> None:
    guard.admit("vm", Slot.SYNC, 12)
    guard.admit("vm", Slot.ASYNC, 10)
    guard.admit("vm", Slot.AGENT, 1)
    guard.admit("vm\x00", Slot.SYNC, 1)
    guard.admit("VM", Slot.SYNC, 1)
    assert [guard.highest("vm", slot) for slot in Slot] == [12, 1, 10]


@pytest.mark.parametrize(
    "token", [0, -1, MAX_TOKEN + 1, pytest.param(10**5000, id="huge"), True, 1.0, "1", None]
)
def test_what_is_no_token(guard: Guard, token: object) -> None:
    with pytest.raises(BadRequest, match="2\\*\\*63-1"):
        guard.admit("vm", Slot.SYNC, token)  # type: ignore[arg-type]


@pytest.mark.parametrize("vm", ["", "x" * 256, "\ud800", None, b"vm"])
def test_what_is_no_vm(guard: Guard, vm: object) -> None:
    with pytest.raises(BadRequest):
        guard.admit(vm, Slot.SYNC, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("slot", ["SYNC", "", None, 3, []])
def test_what_is_no_slot(guard: Guard, slot: object) -> None:
    with pytest.raises(BadRequest, match="sync, agent, async"):
        guard.admit("vm", slot, 1)  # type: ignore[arg-type]


def test_marks_outlive_the_guard(path: Path) -> None:
    with Guard(path) as guard:
        guard.admit("vm", Slot.SYNC, 7)
    with Guard(path) as guard, pytest.raises(StaleToken):
        guard.admit("vm", Slot.SYNC, 6)


def test_the_mark_is_committed_before_the_body(guard: Guard, path: Path) -> None:
    with guard.exclusively("vm", Slot.SYNC, 7), closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT token FROM marks").fetchall() == [(7,)]


def test_nobody_is_admitted_during_the_body(guard: Guard, path: Path) -> None:
    with Guard(path, wait=0.1) as other, guard.exclusively("vm", Slot.SYNC, 7):
        assert other.highest("vm", Slot.SYNC) == 7
        with pytest.raises(BackendUnavailable, match=r"0\.1 s"):
            other.admit("another", Slot.SYNC, 8)
        thread_said: list[BaseException] = []

        def admit() -> None:
            try:
                with Guard(path, wait=0.1) as third:
                    third.admit("vm", Slot.SYNC, 8)
            except BackendUnavailable as error:
                thread_said.append(error)

        thread = threading.Thread(target=admit)
        thread.start()
        thread.join()
        assert len(thread_said) == 1
    guard.admit("vm", Slot.SYNC, 8)


def test_a_stale_body_does_not_run(guard: Guard) -> None:
    guard.admit("vm", Slot.SYNC, 8)
    with pytest.raises(StaleToken), guard.exclusively("vm", Slot.SYNC, 7):
        pytest.fail("ran")
    guard.admit("vm", Slot.SYNC, 9)


def test_a_body_that_raises_lets_go(guard: Guard, path: Path) -> None:
    with pytest.raises(ZeroDivisionError), guard.exclusively("vm", Slot.SYNC, 7):
        raise ZeroDivisionError
    with Guard(path, wait=1) as other:
        other.admit("vm", Slot.SYNC, 8)


def test_calls_in_ones_own_body_are_refused(guard: Guard) -> None:
    with guard.exclusively("vm", Slot.SYNC, 7):
        for call in (
            lambda: guard.admit("vm", Slot.SYNC, 7),
            lambda: guard.highest("vm", Slot.SYNC),
            guard.close,
        ):
            with pytest.raises(BadRequest, match="exclusively"):
                call()
    guard.admit("vm", Slot.SYNC, 8)


def test_closed(guard: Guard) -> None:
    guard.close()
    guard.close()
    with pytest.raises(ClientClosed, match="closed"):
        guard.admit("vm", Slot.SYNC, 1)


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
        guard.admit("vm", Slot.SYNC, 7)
    other = sqlite3.connect(path)
    other.execute("DROP TABLE marks")
    other.close()
    with pytest.raises(RecordError):
        Guard(path)


def test_damage_in_the_middle_is_found(path: Path) -> None:
    with Guard(path) as guard:
        for number in range(300):
            guard.admit(f"vm-{number}" + "x" * 100, Slot.SYNC, 7)
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 64] = b"\xaa" * 64
    path.write_bytes(content)
    with pytest.raises(RecordError, match="corrupt"):
        Guard(path)


@pytest.mark.parametrize("replace", [True, False])
def test_a_swapped_file_admits_nothing_ever(path: Path, replace: bool, guard: Guard) -> None:
    guard.admit("vm", Slot.SYNC, 7)
    path.rename(path.with_suffix(".old"))
    if replace:
        path.touch()
    for _ in range(2):
        with pytest.raises(RecordError, match="deleted or replaced"):
            guard.admit("vm", Slot.SYNC, 8)


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
def test_a_forked_child_goes_on(guard: Guard, path: Path) -> None:
    guard.admit("vm", Slot.SYNC, 1)

    def admit() -> int:
        guard.admit("vm", Slot.SYNC, 2)
        return guard.highest("vm", Slot.SYNC)

    assert in_child(admit) == "2"
    with pytest.raises(StaleToken):
        guard.admit("vm", Slot.SYNC, 1)


@pytest.mark.forks
def test_what_a_child_admits_outlives_the_parents_close(guard: Guard, path: Path) -> None:
    """SQLite alone fails here: its locks are not inherited, the parent removes the child's WAL."""
    told, tell = os.pipe()
    ready, is_ready = os.pipe()
    guard.admit("vm", Slot.SYNC, 1)
    if (pid := os.fork()) == 0:
        guard.admit("vm", Slot.SYNC, 2)
        os.write(is_ready, b"x")
        os.read(told, 1)
        guard.admit("vm", Slot.SYNC, 3)
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
def test_a_child_forked_in_a_body_is_refused(guard: Guard, path: Path) -> None:
    with guard.exclusively("vm", Slot.SYNC, 1):
        assert in_child(lambda: guard.admit("vm", Slot.SYNC, 2)) == "ClientClosed"
        assert in_child(lambda: Guard(path)) == "ClientClosed"
        assert in_child(guard.close) == "None"
    guard.admit("vm", Slot.SYNC, 2)


@pytest.mark.forks
def test_a_child_forked_beside_a_body_is_refused(guard: Guard) -> None:
    inside, leave = threading.Event(), threading.Event()

    def body() -> None:
        with guard.exclusively("vm", Slot.SYNC, 1):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=body)
    thread.start()
    inside.wait()
    assert in_child(lambda: guard.admit("vm", Slot.SYNC, 2)) == "ClientClosed"
    leave.set()
    thread.join()
    guard.admit("vm", Slot.SYNC, 2)


def test_threads_share_a_guard(guard: Guard) -> None:
    def admit(start: int) -> None:
        for token in range(start, 200, 4):
            with suppress(StaleToken):
                guard.admit("vm", Slot.SYNC, token)
            assert guard.highest("vm", Slot.SYNC) >= token

    threads = [threading.Thread(target=admit, args=(start,)) for start in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guard.highest("vm", Slot.SYNC) == 199


keys = st.tuples(st.sampled_from(["a", "b", "a\x00", "🦉"]), st.sampled_from(list(Slot)))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(keys, st.integers(1, 6) | st.just(MAX_TOKEN), st.booleans()), max_size=20
    )
)
def test_it_is_a_maximum_per_key(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[tuple[str, Slot], int, bool]],
) -> None:
    model: dict[tuple[str, Slot], int] = {}
    path = tmp_path_factory.mktemp("guard") / "guard.db"
    with Guard(path) as one, Guard(path) as two:
        for (vm, slot), token, which in steps:
            guard = one if which else two
            if token < model.get((vm, slot), 0):
                with pytest.raises(StaleToken):
                    guard.admit(vm, slot, token)
            else:
                guard.admit(vm, slot, token)
                model[vm, slot] = token
        for (vm, slot), highest in model.items():
            assert one.highest(vm, slot) == two.highest(vm, slot) == highest
