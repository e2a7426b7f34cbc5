"""Keys and messages of the etcd store, without a server."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distjob.backend.settling import Numbers
from distjob.errors import RecordError
from distjob.store import ABSENT, Gone, Missed, Reply, Settled, Stale, Woken
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.commit import Commit, settled, settling
from distjob_etcd.guarantees import LARGEST
from distjob_etcd.layout import Layout, lease_of, new_lease, seconds_left, session_id

LAYOUT = Layout("ns")


def test_a_sessions_id_carries_its_lease_and_ttl() -> None:
    leases = {new_lease() for _ in range(1000)}
    assert len(leases) == 1000
    assert all(0 < lease < 1 << 63 for lease in leases)
    for lease in leases:
        session = session_id("0" * 16, lease, 1.2)
        assert lease_of(session) == lease
        alive = rpc.RangeResponse(kvs=[rpc.KeyValue(lease=lease)])
        assert seconds_left(session, alive) == 1.2
        assert seconds_left(session, rpc.RangeResponse()) == 0.0
    first, behind = LAYOUT.sessions_of("0" * 16)
    assert first < LAYOUT.session_key(session) < behind
    assert not first <= LAYOUT.session_key("0" * 17) < behind


@pytest.mark.parametrize(
    "garbage",
    ["", ".", "a.b.c", f"{'0' * 16}.{'f' * 16}.1", f"{'0' * 16}.{'x' * 16}.1", f"{'0' * 16}.1"],
)
def test_other_ids_carry_none(garbage: str) -> None:
    assert lease_of(garbage) == 0
    found = rpc.RangeResponse(kvs=[rpc.KeyValue(lease=1)])
    assert seconds_left(garbage, found) == math.inf


@given(vm=st.text(min_size=1, max_size=80), value=st.none() | st.binary(max_size=100))
def test_a_wake_up_is_read_as_it_was_written(vm: str, value: bytes | None) -> None:
    commit = Commit(LAYOUT, vm, 7, value, "me", ("you", "me", "you"))
    assert commit.woken == ["me", "you"]
    txn = commit.request()
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
        assert not LAYOUT.sessions <= LAYOUT.owner_key(name) < LAYOUT.sessions_end


def test_a_commit_writes_something_in_any_case() -> None:
    """Else it had no revision of its own, and so no version."""
    for expected in (0, 5):
        for value in (None, b"", b"x"):
            for wake in ((), ("me",), ("you",)):
                txn = Commit(LAYOUT, "vm", expected, value, "me", wake).request()
                assert txn.success
                keys = [op.request_put.key or op.request_delete_range.key for op in txn.success]
                assert len(keys) == len(set(keys)), "etcd refuses a key that is written twice"


def test_a_value_that_is_too_large() -> None:
    Commit(LAYOUT, "vm", 0, b"x" * LARGEST, "me", ()).request()
    with pytest.raises(RecordError, match=r"'vm'.*1000001.*1000000"):
        Commit(LAYOUT, "vm", 0, b"x" * (LARGEST + 1), "me", ()).request()


def refused(commit: Commit, version: int, number: int, **alive: bool) -> Reply:
    """What comes of ``commit`` where its VM and its author stand so."""

    def found(there: object, **kv: int) -> rpc.ResponseOp:
        kvs = [rpc.KeyValue(value=b"x", **kv)] if there else []
        return rpc.ResponseOp(response_range=rpc.RangeResponse(kvs=kvs, count=len(kvs)))

    answers = [
        found(version, mod_revision=version),
        found(number, version=number),
        *(found(alive.get(session, False)) for session in commit.woken),
    ]
    return commit.reply(rpc.TxnResponse(succeeded=False, responses=answers))


def test_the_order_of_refusals() -> None:
    """An ended author, a settling, the version, whom to wake."""
    commit = Commit(LAYOUT, "vm", 7, b"y", "me", ("you",), number=2)
    assert refused(commit, 8, 0) == Gone(frozenset({"me", "you"}))
    assert refused(commit, 8, 0, you=True) == Gone(frozenset({"me"}))
    assert refused(commit, 8, 3) == Settled()
    assert refused(commit, 8, 2) == Stale(8, b"x")
    assert refused(commit, 0, 2) == Stale(ABSENT, None)
    assert refused(commit, 7, 2) == Gone(frozenset({"you"}))
    with pytest.raises(RecordError, match="no reason"):
        refused(commit, 7, 2, you=True)


def test_a_commit_names_its_authors_number() -> None:
    """That is what says that the author lives, too: no more is compared than that."""
    txn = Commit(LAYOUT, "vm", 7, b"y", "me", ("you",), number=5).request()
    compared = {(one.key, one.WhichOneof("target_union")) for one in txn.compare}
    assert compared == {
        (LAYOUT.vm_key("vm"), "mod_revision"),
        (LAYOUT.owner_key("me"), "version"),
        (LAYOUT.session_key("you"), "create_revision"),
    }
    assert [one.version for one in txn.compare if one.key == LAYOUT.owner_key("me")] == [5]


def test_a_settling_raises_the_number_once() -> None:
    txn = settling(LAYOUT, "me", 5)
    assert [one.version for one in txn.compare] == [5]
    (put,) = [op.request_put for op in txn.success]
    assert (put.key, put.ignore_value, put.ignore_lease) == (LAYOUT.owner_key("me"), True, True)
    assert settled(rpc.TxnResponse(succeeded=True), 5) == 6
    for there, number in ([rpc.KeyValue(version=6)], 6), ([], 0):  # another did it; it has ended
        op = rpc.ResponseOp(response_range=rpc.RangeResponse(kvs=there))
        assert settled(rpc.TxnResponse(succeeded=False, responses=[op]), 5) == number


def test_numbers_never_fall() -> None:
    numbers = Numbers()
    assert numbers.of("me") == 1
    numbers.learn("me", 3)
    numbers.learn("me", 2)
    assert numbers.of("me") == 3
    numbers.learn("me", 0)
    assert numbers._known == {}
