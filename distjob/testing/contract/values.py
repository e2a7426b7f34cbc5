"""Values and versions: what `commit`, `read` and `scan` do, alone and with many at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from distjob.store import ABSENT, Committed, Stale, Store, Versioned, Woken
from distjob.testing.contract.helpers import (
    PATIENCE,
    TTL,
    Connect,
    committed,
    increment,
    receive_woken,
)

ODD_NAMES = (
    "a", "A", "a ", " a", "a\0", "a\0\0", "\0a", "a\nb", "a\rb", "\t", "/", "a/b", "../a", ".",
    "..", "*", "a*", "[a]", "{a}", "{a}b", "a:b", "a%b", "a_b", "\\", '"',
    "'; DROP TABLE record; --",
    "\N{SNOWMAN}", "\N{PILE OF POO}", "e\N{COMBINING ACUTE ACCENT}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}", "x" * 255, "x" * 254 + "y",
    "\N{PILE OF POO}" * 63 + "abc",
)  # fmt: skip
ODD_VALUES = (b"", b"\0", b"0", b"None", bytes(range(256)), b"\xff\xfe", b"x" * 1_000_000)


class Values:
    """Compare-and-set on opaque bytes; versions that rise over all VMs."""

    def test_a_vm_without_a_value_is_absent(self, store: Store) -> None:
        assert store.read("vm") == Versioned(version=ABSENT, value=None)

    def test_commit_on_absent_then_read(self, store: Store, connect: Connect, me: str) -> None:
        reply = store.commit("vm", ABSENT, b"one", me, ())
        assert isinstance(reply, Committed)
        assert reply.version > ABSENT
        for reader in (store, connect()):
            assert reader.read("vm") == Versioned(version=reply.version, value=b"one")

    def test_commit_on_the_current_version(self, store: Store, me: str) -> None:
        first = committed(store, "vm", b"one", me)
        reply = store.commit("vm", first, b"two", me, ())
        assert isinstance(reply, Committed)
        assert reply.version > first
        assert store.read("vm") == Versioned(version=reply.version, value=b"two")

    def test_stale_brings_the_current_value(self, store: Store, me: str) -> None:
        first = committed(store, "vm", b"one", me)
        second = committed(store, "vm", b"two", me)
        for expected in (ABSENT, first, second + 1):
            for value in (b"three", None):
                reply = store.commit("vm", expected, value, me, ())
                assert reply == Stale(version=second, value=b"two")
        assert store.read("vm") == Versioned(version=second, value=b"two")

    def test_stale_on_an_absent_vm(self, store: Store, me: str) -> None:
        assert store.commit("vm", 7, b"one", me, ()) == Stale(version=ABSENT, value=None)
        assert store.commit("vm", 7, None, me, ()) == Stale(version=ABSENT, value=None)
        assert list(store.scan()) == []

    def test_none_removes(self, store: Store, me: str) -> None:
        first = committed(store, "vm", b"one", me)
        reply = store.commit("vm", first, None, me, ())
        assert isinstance(reply, Committed)
        assert reply.version > first
        assert store.read("vm") == Versioned(version=ABSENT, value=None)
        assert list(store.scan()) == []
        assert store.commit("vm", first, b"x", me, ()) == Stale(version=ABSENT, value=None)
        assert store.commit("vm", reply.version, b"x", me, ()) == Stale(version=ABSENT, value=None)

    def test_none_on_absent_is_a_commit_like_others(self, store: Store, me: str) -> None:
        first = committed(store, "vm", b"one", me)
        reply = store.commit("other", ABSENT, None, me, ())
        assert isinstance(reply, Committed)
        assert reply.version > first
        assert store.read("other") == Versioned(version=ABSENT, value=None)

    def test_versions_rise_across_vms_clients_and_recreation(
        self, store: Store, connect: Connect, me: str
    ) -> None:
        other = connect()
        you = other.open_session(TTL, "you")
        versions: list[tuple[str, int]] = []
        for value in (b"x", None, b"x", b"x", None):
            for vm in ("vm-1", "vm-2"):
                versions.append((vm, committed(store, vm, value, me)))
                versions.append((vm, committed(other, vm, value, you)))
        apart = ("vm-1", "vm-2") if store.guarantees.versions == "shard" else ("vm-1 vm-2",)
        for together in apart:
            risen = [version for vm, version in versions if vm in together]
            assert risen == sorted(set(risen))

    @pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value[:10]))
    def test_every_value_comes_back(self, store: Store, me: str, value: bytes) -> None:
        version = committed(store, "vm", value, me, me)
        assert store.read("vm") == Versioned(version=version, value=value)
        assert dict(store.scan()) == {"vm": Versioned(version=version, value=value)}
        assert store.commit("vm", ABSENT, b"?", me, ()) == Stale(version=version, value=value)
        woken = receive_woken(store, me, version)[-1]
        assert woken.vm == "vm"
        assert woken.value in (value, None)

    def test_names_are_kept_apart(self, store: Store, connect: Connect, me: str) -> None:
        expected = {}
        for name in ODD_NAMES:
            reply = store.commit(name, ABSENT, name.encode(), me, ())
            assert isinstance(reply, Committed), name
            expected[name] = Versioned(version=reply.version, value=name.encode())
        for reader in (store, connect()):
            assert {name: reader.read(name) for name in ODD_NAMES} == expected
            assert dict(reader.scan()) == expected
        for name, found in expected.items():  # one by one: wake-ups may be merged
            version = committed(store, name, b"woken", me, me)
            assert version > found.version
            woken = receive_woken(store, me, version, name)
            assert {event.vm for event in woken} <= set(ODD_NAMES)
            assert woken[-1] == Woken(vm=name, version=version, value=b"woken")

    def test_scan_gives_each_value_once(self, store: Store, me: str) -> None:
        for number in range(500):
            store.commit(f"vm-{number}", ABSENT, b"%d" % number, me, ())
            assert number % 100 or store.keep_alive(me)  # it takes its time on a busy machine
        committed(store, "vm-0", None, me)
        found = list(store.scan())
        assert len(found) == 499
        assert {vm: value.value for vm, value in found} == {
            f"vm-{number}": b"%d" % number for number in range(1, 500)
        }

    def test_scan_while_others_write(self, store: Store, me: str) -> None:
        for number in range(300):
            store.commit(f"vm-{number:03}", ABSENT, b"", me, ())
            assert number % 100 or store.keep_alive(me)
        seen = set()
        for vm, _ in store.scan():
            committed(store, vm, None, me)
            seen.add(vm)
            assert len(seen) % 100 or store.keep_alive(me)
        assert len(seen) == 300
        assert list(store.scan()) == []

    # -- many at once -------------------------------------------------------------------------

    @pytest.fixture
    def restless(self) -> Iterator[None]:
        """Threads give way a thousand times more often, so that races show in little time."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(5e-6)
        yield
        sys.setswitchinterval(before)

    @pytest.mark.usefixtures("restless")
    @pytest.mark.parametrize("clients", [8, 2, 1])
    def test_no_increment_is_lost(self, connect: Connect, clients: int) -> None:
        stores = [connect() for _ in range(clients)]
        sessions = [store.open_session(60.0, "counter") for store in stores]
        with ThreadPoolExecutor(8) as pool:
            running = [
                pool.submit(increment, stores[n % clients], "vm", sessions[n % clients], 50)
                for n in range(8)
            ]
            versions = [future.result() for future in running]
        assert stores[0].read("vm").value == b"400"
        assert all(own == sorted(own) for own in versions)
        assert len({version for own in versions for version in own}) == 400

    @pytest.mark.usefixtures("restless")
    def test_one_of_many_wins(self, connect: Connect) -> None:
        stores = [connect() for _ in range(4)]
        sessions = [store.open_session(TTL, "racer") for store in stores]
        together = threading.Barrier(4)

        def race(number: int) -> list[bool]:
            won = []
            for vm in range(25):
                together.wait(PATIENCE)
                reply = stores[number].commit(f"vm-{vm}", ABSENT, b"x", sessions[number], ())
                won.append(isinstance(reply, Committed))
            return won

        with ThreadPoolExecutor(4) as pool:
            winners = list(zip(*pool.map(race, range(4)), strict=True))
        assert [sum(won) for won in winners] == [1] * 25
