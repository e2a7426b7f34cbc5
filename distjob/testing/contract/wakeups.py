"""Wake-ups: whom a commit wakes, how soon, and how a `receive` ends."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from distjob import clock
from distjob.store import ABSENT, Committed, Store, Woken
from distjob.testing.contract.helpers import (
    PATIENCE,
    TTL,
    Connect,
    Receiving,
    committed,
    increment,
    receive_woken,
)


class WakeUps:
    """The last of each VM always arrives, in order, at those it was for."""

    def test_exactly_the_named_sessions_are_woken(self, connect: Connect) -> None:
        stores = [connect() for _ in range(3)]
        first, second, bystander = (store.open_session(TTL, "waiter") for store in stores)
        one = committed(stores[2], "vm-1", b"one", bystander, first, second)
        two = committed(stores[2], "vm-2", b"two", bystander, bystander)
        woken = [Woken(vm="vm-1", version=one, value=b"one")]
        assert receive_woken(stores[0], first, one) == woken
        assert receive_woken(stores[1], second, one) == woken
        assert receive_woken(stores[2], bystander, two) == [
            Woken(vm="vm-2", version=two, value=b"two")
        ]

    def test_a_session_is_woken_by_its_own_commit(self, store: Store, me: str) -> None:
        version = committed(store, "vm", b"x", me, me)
        assert receive_woken(store, me, version) == [Woken(vm="vm", version=version, value=b"x")]

    def test_a_removal_wakes_without_a_value(self, store: Store, me: str) -> None:
        committed(store, "vm", b"x", me)
        version = committed(store, "vm", None, me, me)
        assert receive_woken(store, me, version) == [Woken(vm="vm", version=version, value=None)]

    def test_naming_a_session_twice_is_no_error(self, store: Store, me: str) -> None:
        version = committed(store, "vm", b"x", me, me, me)
        assert receive_woken(store, me, version)[-1].version == version

    def test_wake_ups_of_one_vm_rise_and_the_last_arrives(
        self, store: Store, connect: Connect, me: str
    ) -> None:
        waiter = connect()
        waiting = waiter.open_session(TTL, "waiter")
        versions = [committed(store, "vm", b"%d" % n, me, waiting) for n in range(50)]
        woken = receive_woken(waiter, waiting, versions[-1])
        assert [event.version for event in woken] == sorted({event.version for event in woken})
        assert {event.version for event in woken} <= set(versions)
        for event in woken:
            assert event.value in (b"%d" % versions.index(event.version), None)

    def test_a_wake_up_is_received_once(self, store: Store, me: str) -> None:
        first = committed(store, "vm", b"x", me, me)
        receive_woken(store, me, first)
        assert store.keep_alive(me)
        second = committed(store, "vm", b"x", me, me)
        assert [event.version for event in receive_woken(store, me, second)] == [second]

    def test_a_wake_up_ends_a_receive_under_way(self, store: Store, connect: Connect) -> None:
        waiter = connect()
        waiting = waiter.open_session(TTL, "waiter")
        me = store.open_session(TTL, "me")
        assert list(waiter.receive(waiting, 0.0)) == []
        receiving = Receiving(waiter, waiting, PATIENCE)
        version = committed(store, "vm", b"x", me, waiting)
        assert receiving.result() == [Woken(vm="vm", version=version, value=b"x")]
        assert receiving.seconds < 2

    def test_wake_ups_under_load_all_arrive(self, connect: Connect) -> None:
        """Two clients pass a ball to and fro; one lost wake-up and they would stop."""
        stores = [connect(), connect()]
        sessions = [store.open_session(30.0, "player") for store in stores]

        def play(number: int) -> None:
            store, version = stores[number], ABSENT
            for turn in range(number, 100, 2):
                if turn:
                    version = _woken_with(store, sessions[number], b"%d" % turn)
                reply = store.commit(
                    "vm", version, b"%d" % (turn + 1), sessions[number], (sessions[1 - number],)
                )
                assert isinstance(reply, Committed)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(play, range(2)))
        assert stores[0].read("vm").value == b"100"

    def test_receive_waits_no_longer_than_its_timeout(self, store: Store, me: str) -> None:
        for timeout in (0.0, 0.2):
            begun = clock.monotonic()
            assert list(store.receive(me, timeout)) == []
            assert timeout * 0.9 <= clock.monotonic() - begun < timeout + 2

    def test_interrupt_ends_a_receive_under_way(self, store: Store, me: str) -> None:
        receiving = Receiving(store, me, PATIENCE)
        store.interrupt()
        assert receiving.result() == []
        assert receiving.seconds < 2

    def test_interrupt_before_ends_the_next_receive_only(self, store: Store, me: str) -> None:
        store.interrupt()
        begun = clock.monotonic()
        assert list(store.receive(me, PATIENCE)) == []
        assert clock.monotonic() - begun < 2
        begun = clock.monotonic()
        assert list(store.receive(me, 0.2)) == []
        assert clock.monotonic() - begun >= 0.18

    def test_verbs_go_on_while_one_receives(self, store: Store, me: str) -> None:
        receiving = Receiving(store, me, PATIENCE)
        begun = clock.monotonic()
        versions = increment(store, "vm", me, 10)
        assert store.keep_alive(me)
        assert store.read("vm").version == versions[-1]
        assert clock.monotonic() - begun < 5
        store.interrupt()
        assert receiving.result() == []

    def test_a_watched_session_that_ends(self, store: Store, connect: Connect, me: str) -> None:
        """`Ended` may come or not; if it does, the session has ended."""
        other = connect()
        watched = other.open_session(TTL, "watched")
        assert store.remaining([watched])[watched] > 0
        other.close_session(watched)
        version = committed(store, "vm", b"x", me, me)
        receive_woken(store, me, version)


def _woken_with(store: Store, session: str, value: bytes) -> int:
    until = clock.monotonic() + PATIENCE
    while (left := until - clock.monotonic()) > 0:
        events: Iterable[object] = store.receive(session, left)
        for event in events:
            if isinstance(event, Woken) and (event.value or store.read(event.vm).value) == value:
                return event.version
    msg = f"never woken with {value!r}"
    raise AssertionError(msg)
