"""What may name a VM, and which waits and TTLs there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distjob.drive.names import MAX_TTL, MAX_WAIT, check_path, check_ttl, check_vm, check_wait
from distjob.errors import BadRequest


@given(st.text() | st.text("a🦉\x00/\n", min_size=50, max_size=260))
def test_a_name_has_1_to_255_bytes(vm: str) -> None:
    size = len(vm.encode("utf-8", "surrogatepass"))
    lone = any("\ud800" <= character <= "\udfff" for character in vm)
    if 1 <= size <= 255 and not lone:
        assert check_vm(vm) is vm
    else:
        with pytest.raises(BadRequest) as caught:
            check_vm(vm)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "vm", ["x" * 63, "x" * 64, "x" * 255, "é" * 127, "🦉" * 63, "\x00", "a/b\n"]
)
def test_right_names(vm: str) -> None:
    assert check_vm(vm) is vm


@pytest.mark.parametrize(
    ("vm", "told"),
    [
        ("", "empty"),
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("vm\udc80", "surrogate at index 2"),
        (b"vm", "not by bytes"),
        (None, "not by NoneType"),
    ],
)
def test_wrong_names(vm: object, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        check_vm(vm)


def test_paths() -> None:
    for path in ("jobs.db", "/a/jobs.db", "a:b", "memory", ":memory:.db", "/:memory:/jobs.db"):
        assert check_path(path) == path
    for path in (":memory:", "/a/:memory:", "file:a", "file:///a", "sqlite:///a", "redis://a"):
        with pytest.raises(BadRequest):
            check_path(path)


def test_right_seconds() -> None:
    assert [check_wait(0), check_wait(0.5), check_wait(MAX_WAIT)] == [0.0, 0.5, MAX_WAIT]
    assert [check_ttl(0.1), check_ttl(MAX_TTL)] == [0.1, MAX_TTL]
    assert isinstance(check_wait(3), float)


@pytest.mark.parametrize("check", [check_wait, check_ttl])
@pytest.mark.parametrize(
    "seconds",
    [-1, float("nan"), float("inf"), -float("inf"), 1e9, True, "3", None]
    + [pytest.param(sign * 10**5000, id=f"huge{sign}") for sign in (1, -1)],
)
def test_wrong_seconds(check: object, seconds: object) -> None:
    with pytest.raises(BadRequest, match="is a number of seconds from"):
        check(seconds)  # type: ignore[operator]
