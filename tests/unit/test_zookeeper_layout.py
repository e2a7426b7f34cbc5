"""Names, values and wake-ups as ZooKeeper's nodes hold them, and what is remembered of nodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kazoo.protocol.paths import normpath

from distjob.errors import RecordError
from distjob.store import ABSENT, Missed, Woken
from distjob_zookeeper import layout
from distjob_zookeeper.layout import Epoch, Layout, Wakeup
from distjob_zookeeper.seen import Memory, Seen
from distjob_zookeeper.sessions import Session

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
ONE, TWO = Epoch(1, 0), Epoch(1, 1)


@given(NAMES)
def test_every_name_is_one_node(name: str) -> None:
    node = layout.encoded(name)
    assert layout.decoded(node) == name
    assert "/" not in node
    assert not node.startswith("~")
    assert normpath(f"/vm/{node}") == f"/vm/{node}", "no relative path to kazoo"
    assert node.isascii()
    assert node.isprintable()


def test_no_name_has_no_node_of_a_name() -> None:
    assert layout.encoded("") == "%"
    assert Layout("a/b", "/top").vm("..") == "/top/distjob/a%2Fb/vm/%2E%2E"


@given(NAMES, st.none() | st.binary(max_size=50), st.integers(0, 2**62), st.integers(0, 2**31))
def test_wake_ups_come_back(vm: str, value: bytes | None, born: int, number: int) -> None:
    for removed in (False, True):
        sent = Wakeup(vm, None if removed else value, removed, 7, Epoch(born, number))
        assert layout.wakeup(layout.message(sent)) == sent


@pytest.mark.parametrize(
    "data",
    [b"", b"controller host 17", b"1 2 3:vm", b"1 2 3 2:vm?", b"1 2 3 1:\xff", b"a b c d:vm"],
)
def test_other_data_is_no_wake_up(data: bytes) -> None:
    assert layout.wakeup(data) is None


def test_values_come_back() -> None:
    for value in (None, b"", b"=", b"x"):
        assert layout.unpacked(layout.packed(value), "vm") == value
    assert layout.unpacked(None, "vm") is None
    with pytest.raises(RecordError, match="'vm'"):
        layout.unpacked(b"theirs", "vm")


def test_an_id_tells_its_ttl() -> None:
    assert layout.ttl_of(layout.session_id("client", 3, 0.5)) == 0.5
    for other in ("", "*", "a-", "a-\N{SUPERSCRIPT TWO}", "-1.5"):
        assert layout.ttl_of(other) == 0.0


# -- what is remembered --------------------------------------------------------------------------


def test_an_overtaken_look_is_not_kept() -> None:
    memory = Memory(ONE)
    memory.put("vm", Seen(20, 5, ONE))
    memory.put("vm", Seen(10, 4, ONE))
    memory.put("vm", Seen(ABSENT, None, ONE))
    assert memory.get("vm") == Seen(20, 5, ONE)


def test_another_epoch_ends_all_memories() -> None:
    memory = Memory(ONE)
    memory.put("vm", Seen(20, 5, ONE))
    memory.enter(TWO)
    assert memory.get("vm") is None
    memory.put("vm", Seen(20, 5, ONE))  # a look that was under way
    assert memory.get("vm") is None
    memory.put("vm", Seen(30, 0, TWO))
    assert memory.get("vm") == Seen(30, 0, TWO)


def test_the_oldest_are_forgotten() -> None:
    memory = Memory(ONE, most=2)
    for number in range(3):
        memory.put(str(number), Seen(number + 1, 0, ONE))
    assert memory.get("0") is None
    assert memory.get("2") is not None


# -- sessions ------------------------------------------------------------------------------------


def wake(vm: str) -> bytes:
    return layout.message(Wakeup(vm, b"x", removed=False, node=1, epoch=ONE))


def test_a_jump_of_the_version_tells_of_merged_wake_ups() -> None:
    session = Session("s", "/s", 10.0, 0.0)
    session.arrived(b"owner", 0, 1)
    assert session.take() == []
    session.arrived(wake("a"), 1, 5)
    session.arrived(wake("a"), 1, 5)
    assert session.take() == [Woken(vm="a", version=5, value=b"x")]
    session.arrived(wake("b"), 3, 9)
    assert session.take() == [Missed(), Woken(vm="b", version=9, value=b"x")]
    session.arrived(b"something else", 4, 10)
    assert session.take() == [Missed()]


def test_the_end_is_told_once_and_nothing_after() -> None:
    session = Session("s", "/s", 10.0, 0.0)
    session.arrived(wake("a"), 1, 5)
    session.end()
    session.arrived(wake("b"), 2, 6)
    assert session.take() == [Missed()]
    session.end()
    assert session.take() == []


def test_since_when_the_leader_knows() -> None:
    """Of what was sent within the last quarter of a TTL it may not have heard."""
    session = Session("s", "/s", 10.0, 100.0)
    assert session.touch(101.0, 0, 0.0) == 100.0
    assert session.touch(103.0, 0, 0.0) == 100.0
    assert session.touch(104.0, 0, 0.0) == 101.0
    assert session.touch(106.0, 0, 0.0) == 103.0
    assert session.touch(120.0, 0, 0.0) == 106.0
    assert session.touch(121.0, 1, 120.5) == 120.5, "a new connection is told to the leader at once"
