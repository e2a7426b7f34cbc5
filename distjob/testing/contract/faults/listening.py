"""Whoever receives: cut off, left hanging, closed under; what was sent is received, or missed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import Ended, Missed, Store, Woken
from distjob.testing.contract.faults.base import (
    TTL,
    Connect,
    Faults,
    failed,
    made,
    received,
    woken_or_missed,
)
from distjob.testing.contract.faults.harness import Harness
from distjob.testing.contract.faults.proxy import Proxy
from distjob.testing.contract.helpers import PATIENCE, Receiving, committed

SOON = 5.0
"""Seconds in which what is told at once has been told, on a busy machine."""


class Listens(Faults):
    """No gap goes unnoticed."""

    def test_a_cut_is_told_as_missed_or_resumed(
        self, through: Store, proxy: Proxy, connect: Connect
    ) -> None:
        direct = connect()
        me, other = through.open_session(TTL, "me"), direct.open_session(TTL, "other")
        assert list(through.receive(me, 0.0)) == []
        for _ in range(3):
            proxy.cut()
            version = committed(direct, "vm", b"x", other, me)
            events = received(through, me, Missed, Woken("vm", version, b"x"))
            assert woken_or_missed(events, version)
        version = committed(direct, "vm", b"last", other, me)
        received(through, me, Woken("vm", version, b"last"))

    def test_what_came_while_nobody_could_listen_is_told(
        self, through: Store, proxy: Proxy, connect: Connect
    ) -> None:
        direct = connect()
        me, other = through.open_session(TTL, "me"), direct.open_session(TTL, "other")
        assert list(through.receive(me, 0.0)) == []
        proxy.refuse()
        failed(lambda: through.receive(me, SOON))
        version = committed(direct, "vm", b"x", other, me)
        with suppress(BackendUnavailable):
            assert list(through.receive(me, 0.1)) == [], "nothing can have come"
        proxy.accept()
        events = received(through, me, Missed, Woken("vm", version, b"x"))
        assert woken_or_missed(events, version)

    def test_a_half_dead_connection_is_noticed(self, connect: Connect, proxy: Proxy) -> None:
        """It says nothing any more, not even that it is closed."""
        store, direct = connect(proxy.address, ttl=3.0, timeout=1.0), connect()
        me, other = store.open_session(TTL, "me"), direct.open_session(TTL, "other")
        assert list(store.receive(me, 1.2)) == []  # silent, but alive
        proxy.stall()
        begun = clock.monotonic()
        failed(lambda: store.receive(me, PATIENCE))
        assert clock.monotonic() - begun < 8.0
        version = committed(direct, "vm", b"x", other, me)
        proxy.flow()
        events = received(store, me, Missed, Woken("vm", version, b"x"))
        assert woken_or_missed(events, version)

    def test_a_restart_while_waiting(self, harness: Harness, connect: Connect) -> None:
        harness.need("restart")
        store = connect()
        me = store.open_session(3 * TTL, "me")
        receiving = Receiving(store, me, PATIENCE)
        harness.stop()
        try:
            with pytest.raises(BackendUnavailable):
                receiving.result()
        finally:
            harness.start()
        version = made(store, "vm", me, me)
        assert woken_or_missed(received(store, me, Missed, Woken("vm", version, b"x")), version)
        assert store.keep_alive(me)

    def test_close_ends_a_receive_under_way(self, connect: Connect) -> None:
        store = connect()
        me = store.open_session(TTL, "me")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.receive, me, 3 * PATIENCE)
            with pytest.raises(TimeoutError):
                waiting.result(0.1)
            begun = clock.monotonic()
            store.close()
            error = waiting.exception(PATIENCE)
        assert error is None or (isinstance(error, BackendUnavailable) and "closed" in str(error))
        assert clock.monotonic() - begun < SOON
        for verb in (lambda: store.read("vm"), lambda: store.receive(me, 1.0)):
            assert "closed" in str(failed(verb))
        store.interrupt()
        store.close()

    def test_wake_ups_of_an_earlier_session_are_dropped(self, connect: Connect) -> None:
        store, other = connect(), connect()
        old, you = store.open_session(TTL, "old"), other.open_session(TTL, "you")
        committed(other, "vm", b"for the old one", you, old)
        store.close_session(old)
        new = store.open_session(TTL, "new")
        version = committed(other, "vm", b"for the new one", you, new)
        events = received(store, new, Woken("vm", version, b"for the new one"))
        assert [event for event in events if isinstance(event, Woken)] == events[-1:]
        with suppress(BackendUnavailable):
            assert [one for one in store.receive(old, 0.1) if isinstance(one, Woken)] == []

    def test_ones_own_session_that_somebody_ends_is_told(
        self, harness: Harness, connect: Connect
    ) -> None:
        """To whose it was, at once, and to who has asked about it."""
        harness.need("ends")
        store, other = connect(), connect()
        me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
        assert list(store.receive(me, 0.0)) == []
        assert other.remaining([me])[me] > 0
        receiving = Receiving(store, me, PATIENCE)
        other.close_session(me)
        assert receiving.result() == [Ended(me)]
        assert receiving.seconds < SOON
        assert Ended(me) in received(other, you, Ended(me))
        assert not store.keep_alive(me)
