"""Commits that hang on their way, and a settling that overtakes them: none arrives late."""

from __future__ import annotations

import threading

from distjob import clock
from distjob.store import ABSENT, Committed, Store, Versioned
from distjob.testing.contract.faults.base import SETTLED, TTL, Connect, Faults, failed
from distjob.testing.contract.faults.proxy import Proxy
from distjob.testing.contract.faults.replies import LOST, SHORT
from distjob.testing.contract.helpers import try_until


class Late(Faults):
    """After a settling, what is seen is so."""

    def test_a_commit_that_is_held_back_arrives_after_a_settling_and_is_not_made(
        self, connect: Connect, proxy: Proxy
    ) -> None:
        store = connect(proxy.address, timeout=SHORT)
        me = store.open_session(TTL, "me")
        proxy.hold_next_request(holding=LOST.encode())
        assert failed(lambda: store.commit(LOST, ABSENT, b"late", me, ())).unanswered
        assert proxy.holding.is_set(), "the request never came to the proxy"
        proxy.cut()
        try_until(lambda: store.settle(me))
        assert try_until(lambda: store.read(LOST)) == Versioned(version=ABSENT, value=None)
        proxy.release()
        stays(store, LOST, None)
        assert isinstance(store.commit(LOST, ABSENT, b"next", me, ()), Committed)
        assert store.keep_alive(me)

    def test_what_was_made_is_seen_after_a_settling(self, through: Store, proxy: Proxy) -> None:
        me = through.open_session(TTL, "me")
        for _ in range(5):  # some servers give up a request with its connection
            proxy.drop_next_reply(to=LOST.encode())
            assert failed(lambda: through.commit(LOST, ABSENT, b"one", me, ())).unanswered
            try_until(lambda: through.settle(me))
            found = try_until(lambda: through.read(LOST))
            stays(through, LOST, found.value)
            if found.value == b"one":
                return
        raise AssertionError("none of the commits was made")

    def test_a_settling_that_was_lost_is_sent_again(self, connect: Connect, proxy: Proxy) -> None:
        """Whether it was carried out or not, what follows the next one is made."""
        store = connect(proxy.address, timeout=SHORT)
        me = store.open_session(TTL, "me")
        proxy.stall()
        failed(lambda: store.settle(me))
        proxy.flow()
        try_until(lambda: store.settle(me))
        until = clock.monotonic() + TTL / 2
        while not isinstance(store.commit("vm", ABSENT, b"x", me, ()), Committed):
            assert clock.monotonic() < until, "a settling that was given up still overtakes"


def stays(store: Store, vm: str, value: bytes | None) -> None:
    """What was held back has arrived by now, and has changed nothing."""
    until = clock.monotonic() + SETTLED
    while clock.monotonic() < until:
        assert store.read(vm).value == value
        threading.Event().wait(0.05)
