"""Names, values, versions and wake-ups as ZooKeeper's nodes hold them."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kazoo.protocol.paths import normpath

from distjob.errors import RecordError
from distjob.store import Versioned, Woken
from distjob_zookeeper import layout
from distjob_zookeeper.layout import Layout, Version

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
LIVES = st.from_regex(r"[0-9a-f]{16}-[0-9]{1,12}", fullmatch=True)


def based(base: int) -> Layout:
    made = Layout("n")
    assert made.agreed(b"%d %d" % (layout.FORMAT, base))
    return made


@given(NAMES)
def test_every_name_is_one_node(name: str) -> None:
    node = layout.encoded(name)
    assert layout.decoded(node) == layout.decoded(f"/vm/{node}") == name
    assert "/" not in node
    assert not node.startswith("~")
    assert normpath(f"/vm/{node}") == f"/vm/{node}", "no relative path to kazoo"
    assert node.isascii()
    assert node.isprintable()


def test_no_name_has_no_node_of_a_name() -> None:
    assert layout.encoded("") == "%"
    assert Layout("a/b", "/top").vm("..") == "/top/distjob/a%2Fb/vm/%2E%2E"


@given(LIVES, st.binary(max_size=50), st.integers(1, 2**62), st.integers(0, 2**31))
def test_values_come_back_with_all_that_a_commit_compares(
    life: str, value: bytes, zxid: int, number: int
) -> None:
    stat = SimpleNamespace(mzxid=zxid, version=number)
    ours = based(1000)
    found = ours.found("vm", layout.packed(life, value), stat)
    assert found == Versioned(version=1000 + zxid, value=value)
    assert isinstance(found.version, Version)
    assert (found.version.life, found.version.number) == (life, number)


@pytest.mark.parametrize("data", [b"", b"theirs", b"=x", b"\xff=x"])
def test_what_others_wrote_is_no_record(data: bytes) -> None:
    with pytest.raises(RecordError, match="'vm'"):
        Layout("n").found("vm", data, SimpleNamespace(mzxid=1, version=0))


@given(NAMES, st.none() | st.binary(max_size=50), LIVES, st.integers(0, 2**31))
def test_wake_ups_come_back(vm: str, value: bytes | None, life: str, number: int) -> None:
    ours = based(1000)
    woken = ours.woken(layout.wakeup(vm, value, life, number), 77)
    assert woken == Woken(vm=vm, version=1077, value=value)
    assert woken is not None
    assert isinstance(woken.version, Version)
    assert (woken.version.life, woken.version.number) == (life, number)
    removed = layout.wakeup(vm, None, life, number, removed=True)
    assert ours.woken(removed, 77) == Woken(vm=vm, version=1077, value=None)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"controller host 17", b"life 2", b"life 2 vm", b"life 2 vm ?"),
        *(b"\xff 2 vm ", b"life b vm ", b"controller of mine, pid 7"),
    ],
)
def test_other_data_is_no_wake_up(data: bytes) -> None:
    assert Layout("n").woken(data, 1) is None


@pytest.mark.parametrize("data", [b"", b"1", b"3", b"3 x", b"3 -1", b"4 77", b"\xff 77"])
def test_a_base_of_another_layout_is_not_kept(data: bytes) -> None:
    ours = based(1000)
    assert not ours.agreed(data)
    assert ours.base == 1000


def test_a_version_is_a_number_to_everybody_else() -> None:
    version = Version(7, "life", 3)
    assert version == 7
    assert hash(version) == hash(7)
    assert {version: 1}[7] == 1
    assert f"{version} {version!r} {version:d}" == "7 7 7"
    assert version + 1 == 8
    assert msgspec.to_builtins(int(version)) == 7
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(version))  # it is of one store, and goes nowhere
    assert copy.copy(int(version)) == 7


def test_an_id_tells_its_ttl() -> None:
    assert layout.ttl_of(layout.session_id("client", 3, 0.5)) == 0.5
    for other in ("", "*", "a-", "a-\N{SUPERSCRIPT TWO}", "-1.5"):
        assert layout.ttl_of(other) == 0.0
