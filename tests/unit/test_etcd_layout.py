"""Keys and messages of the etcd store, without a server."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distjob.errors import RecordError
from distjob.store import Missed, Woken
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.guarantees import LARGEST
from distjob_etcd.layout import Layout, lease_of, new_lease, seconds_left, session_id

LAYOUT = Layout("ns")


def test_a_sessions_id_carries_its_lease_and_ttl() -> None:
    leases = {new_lease() for _ in range(1000)}
    assert len(leases) == 1000
    assert all(0 < lease < 1 << 63 for lease in leases)
    for lease in leases:
        session = session_id(lease, 1.2)
        assert lease_of(session) == lease
        alive = rpc.RangeResponse(kvs=[rpc.KeyValue(lease=lease)])
        assert seconds_left(session, alive) == 1.2
        assert seconds_left(session, rpc.RangeResponse()) == 0.0
    assert session_id(7, 10.0) != session_id(7, 10.0)


@pytest.mark.parametrize(
    "garbage",
    ["", ".", "a.b.c", f"{'f' * 16}.{'0' * 16}.1", f"{'x' * 16}.{'0' * 16}.1", f"{'0' * 16}.1"],
)
def test_other_ids_carry_none(garbage: str) -> None:
    assert lease_of(garbage) == 0
    found = rpc.RangeResponse(kvs=[rpc.KeyValue(lease=1)])
    assert seconds_left(garbage, found) == math.inf


@given(vm=st.text(min_size=1, max_size=80), value=st.none() | st.binary(max_size=100))
def test_a_wake_up_is_read_as_it_was_written(vm: str, value: bytes | None) -> None:
    txn, sessions = LAYOUT.commit(vm, 7, value, "me", ("you", "me", "you"))
    assert sessions == ["me", "you"]
    letters = {
        op.request_put.key: op.request_put.value
        for op in txn.success
        if op.request_put.key.startswith(LAYOUT.sessions)
    }
    assert set(letters) == {LAYOUT.session_key("me"), LAYOUT.session_key("you")}
    for letter in letters.values():
        assert LAYOUT.woken(rpc.KeyValue(value=letter, mod_revision=9)) == Woken(vm, 9, value)


@given(st.binary(min_size=1, max_size=60))
def test_any_other_text_is_a_wake_up_or_missed(text: bytes) -> None:
    found = LAYOUT.woken(rpc.KeyValue(value=text, mod_revision=9))
    assert isinstance(found, Woken | Missed)


@given(names=st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True))
def test_keys_are_apart(names: list[str]) -> None:
    one, two = (Layout(name or "-") for name in names)
    if one.prefix != two.prefix:
        assert not one.prefix.startswith(two.prefix)
        assert not two.prefix.startswith(one.prefix)
    assert LAYOUT.vm_key(names[0]) != LAYOUT.vm_key(names[1])
    for name in names:
        assert LAYOUT.vms <= LAYOUT.vm_key(name) < LAYOUT.vms_end
        assert LAYOUT.sessions <= LAYOUT.session_key(name) < LAYOUT.sessions_end


def test_a_commit_writes_something_in_any_case() -> None:
    """Else it had no revision of its own, and so no version."""
    for expected in (0, 5):
        for value in (None, b"", b"x"):
            for wake in ((), ("me",), ("you",)):
                txn, _ = LAYOUT.commit("vm", expected, value, "me", wake)
                assert txn.success
                keys = [op.request_put.key or op.request_delete_range.key for op in txn.success]
                assert len(keys) == len(set(keys)), "etcd refuses a key that is written twice"


def test_a_value_that_is_too_large() -> None:
    LAYOUT.commit("vm", 0, b"x" * LARGEST, "me", ())
    with pytest.raises(RecordError, match=r"'vm'.*1000001.*1000000"):
        LAYOUT.commit("vm", 0, b"x" * (LARGEST + 1), "me", ())
