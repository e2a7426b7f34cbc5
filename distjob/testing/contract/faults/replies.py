"""Requests and replies that are lost: what may have been made is unanswered, and only that."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Missed, Stale, Store, Woken
from distjob.testing.contract.faults.base import (
    TTL,
    Connect,
    Faults,
    failed,
    made,
    received,
    woken_or_missed,
)
from distjob.testing.contract.faults.proxy import Proxy
from distjob.testing.contract.helpers import try_until

LOST = "lost-on-its-way"
"""A VM's name, by which the proxy knows what is about it."""
SHORT = 0.5
"""Seconds, of a store that is to give up soon."""


def unanswered(verb: Callable[[], object]) -> bool:
    """Whether ``verb`` fails so; it may also not fail."""
    try:
        verb()
    except BackendUnavailable as error:
        return error.unanswered
    return False


class Replies(Faults):
    """Nothing is sent twice, nothing is said to be made, or not to be, that may be otherwise."""

    @pytest.mark.parametrize("how", ["cut", "silent"])
    def test_a_lost_reply_is_unanswered_and_applied_once(
        self, connect: Connect, proxy: Proxy, how: str
    ) -> None:
        store = connect(proxy.address, timeout=SHORT)
        me = store.open_session(TTL, "me")
        for _ in range(5):  # some servers give up a request with its connection
            proxy.dropped.clear()
            (proxy.drop_next_reply if how == "cut" else proxy.swallow_replies)(to=LOST.encode())
            assert failed(lambda: store.commit(LOST, ABSENT, b"one", me, (me,))).unanswered
            assert proxy.dropped.is_set(), "the request never came to the proxy"
            proxy.cut()
            found = try_until(lambda: store.read(LOST))
            if found.value is not None:
                break
        assert found.value == b"one"
        reply = try_until(lambda: store.commit(LOST, ABSENT, b"two", me, ()))
        assert reply == Stale(found.version, b"one")
        events = received(store, me, Missed, Woken(LOST, found.version, b"one"))
        assert woken_or_missed(events, found.version)
        versions = {found.version}
        for _ in range(5):  # it may fall into the gap that the cut has left
            versions.add(version := made(store, LOST, me, me, value=b"three"))
            events += received(store, me, Missed, Woken(LOST, version, b"three"))
            if events[-1] == Woken(LOST, version, b"three"):
                break
        assert events[-1] == Woken(LOST, version, b"three")
        told = {event.version for event in events if isinstance(event, Woken)}
        assert told <= versions, "it was made once more"

    def test_a_lost_request_changes_nothing(self, through: Store, proxy: Proxy) -> None:
        me = through.open_session(TTL, "me")
        proxy.drop_next_request(holding=LOST.encode())
        assert failed(lambda: through.commit(LOST, ABSENT, b"one", me, (me,))).unanswered
        assert proxy.dropped.is_set(), "the request never came to the proxy"
        assert try_until(lambda: through.read(LOST)).value is None
        assert isinstance(try_until(lambda: through.commit(LOST, ABSENT, b"x", me, ())), Committed)

    def test_an_answer_that_takes_too_long_is_unanswered(
        self, connect: Connect, proxy: Proxy
    ) -> None:
        store = connect(proxy.address, timeout=SHORT)
        me = store.open_session(TTL, "me")
        proxy.stall()
        begun = clock.monotonic()
        assert failed(lambda: store.commit("vm", ABSENT, b"one", me, ())).unanswered
        assert clock.monotonic() - begun < TTL / 2, "the session would have been lost"
        proxy.flow()
        assert try_until(lambda: store.keep_alive(me))

    def test_reading_is_never_unanswered(self, connect: Connect, proxy: Proxy) -> None:
        """It may even be sent again."""
        store = connect(proxy.address, timeout=SHORT)
        me = store.open_session(TTL, "me")
        made(store, LOST, me)
        proxy.drop_next_reply(to=LOST.encode())
        assert not unanswered(lambda: store.read(LOST))
        assert proxy.dropped.is_set(), "the request never came to the proxy"
        verbs: tuple[Callable[[], object], ...] = (
            lambda: store.read(LOST),
            lambda: store.remaining(["x"]),
            lambda: list(store.scan()),
        )
        for verb in verbs:
            assert try_until(lambda: store.read(LOST)).value == b"x"
            proxy.stall()
            assert not failed(verb).unanswered
            proxy.flow()

    @pytest.mark.parametrize("verb", ["open_session", "keep_alive", "close_session"])
    def test_verbs_of_sessions_that_are_lost_are_unanswered(
        self, connect: Connect, proxy: Proxy, verb: str
    ) -> None:
        store = connect(proxy.address, timeout=SHORT)
        me = store.open_session(TTL, "me")
        call: dict[str, Callable[[], object]] = {
            "open_session": lambda: store.open_session(TTL, "me"),
            "keep_alive": lambda: store.keep_alive(me),
            "close_session": lambda: store.close_session(me),
        }
        proxy.stall()
        assert failed(call[verb]).unanswered
        proxy.flow()
        alive = try_until(lambda: store.keep_alive(me))
        assert alive or verb == "close_session"

    def test_what_could_not_be_sent_is_not_unanswered(self, connect: Connect, proxy: Proxy) -> None:
        store = connect(proxy.address, timeout=SHORT)
        me = store.open_session(TTL, "me")
        proxy.refuse()
        failed(lambda: store.read("vm"))  # the connection is noticed to be gone
        verbs: tuple[Callable[[], object], ...] = (
            lambda: store.commit("vm", ABSENT, b"one", me, ()),
            lambda: store.keep_alive(me),
            lambda: store.open_session(TTL, "me"),
            lambda: store.close_session(me),
            lambda: store.settle(me),
            lambda: store.read("vm"),
        )
        for verb in verbs:
            assert not failed(verb).unanswered
        proxy.accept()
        assert try_until(lambda: store.read("vm")).value is None
