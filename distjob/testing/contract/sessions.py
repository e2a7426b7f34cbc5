"""Sessions: how they live and end, and that nothing is committed by or for one that has ended."""

from __future__ import annotations

import threading

import pytest

from distjob import clock
from distjob.store import ABSENT, Committed, Gone, Stale, Store, Versioned, Woken
from distjob.testing.contract.helpers import (
    PATIENCE,
    SHORT,
    TTL,
    Connect,
    committed,
    receive_woken,
    wait_until_ended,
)

GARBAGE_SESSIONS = ("", "*", "no such session", "a\0b", "\N{SNOWMAN}", "x" * 1000, "' OR 1=1 --")


class Sessions:
    """They end with their TTL or when closed, for ever; their values stay."""

    def test_session_ids_are_never_used_twice(self, store: Store, connect: Connect) -> None:
        other = connect()
        ids = []
        for number in range(25):
            ids += [store.open_session(TTL, "same"), other.open_session(TTL, "same")]
            if number % 2:
                store.close_session(ids[-2])
        assert len(set(ids)) == 50

    def test_remaining_counts_down_from_the_ttl(self, store: Store, connect: Connect) -> None:
        session = store.open_session(TTL, "me")
        for reader in (store, connect()):
            assert 0 < reader.remaining([session])[session] <= TTL
        if store.guarantees.ends == "timed":
            assert store.remaining([session])[session] > TTL - 5

    def test_remaining_names_what_was_asked(self, store: Store, me: str) -> None:
        assert dict(store.remaining([])) == {}
        left = store.remaining((me, *GARBAGE_SESSIONS))
        assert set(left) == {me, *GARBAGE_SESSIONS}
        assert 0 < left[me] <= TTL
        assert {left[session] for session in GARBAGE_SESSIONS} == {0.0}

    @pytest.mark.parametrize("garbage", GARBAGE_SESSIONS)
    def test_an_unknown_session_has_ended(self, store: Store, me: str, garbage: str) -> None:
        assert not store.keep_alive(garbage)
        store.close_session(garbage)
        gone = Gone(sessions=frozenset({garbage}))
        assert store.commit("vm", ABSENT, b"x", garbage, ()) == gone
        assert store.commit("vm", ABSENT, b"x", me, (garbage,)) == gone

    def test_a_session_ends_by_itself_for_ever(
        self, store: Store, connect: Connect, short: float
    ) -> None:
        other = connect()
        asked = clock.monotonic()
        session = store.open_session(short, "me")
        begun = clock.monotonic()
        wait_until_ended(other, session)
        ended = clock.monotonic()
        assert 0.9 * short < ended - asked
        assert ended - begun < short + store.guarantees.grace + 2
        for _ in range(2):
            assert not store.keep_alive(session)
            assert store.remaining([session]) == {session: 0.0}
            reply = store.commit("vm", ABSENT, b"x", session, ())
            assert reply == Gone(sessions=frozenset({session}))
        store.close_session(session)
        assert store.open_session(short, "me") != session

    def test_whatever_is_asked_first_the_session_has_ended(
        self, store: Store, connect: Connect, me: str, short: float
    ) -> None:
        ended = [store.open_session(short, "x") for _ in range(4)]
        renewed, author, woken, closed = ended
        if store.guarantees.ends == "told":  # by the server, whoever asks
            other = connect()
            for session in ended:
                wait_until_ended(other, session, PATIENCE + short + store.guarantees.grace)
        else:
            threading.Event().wait(short + store.guarantees.grace + 0.05)
        assert not store.keep_alive(renewed)
        gone = Gone(sessions=frozenset({author}))
        assert store.commit("vm", ABSENT, b"x", author, ()) == gone
        gone = Gone(sessions=frozenset({woken}))
        assert store.commit("vm", ABSENT, b"x", me, (woken,)) == gone
        store.close_session(closed)
        assert store.remaining(ended) == dict.fromkeys(ended, 0.0)

    def test_keep_alive_renews_for_the_full_ttl(
        self, store: Store, connect: Connect, short: float
    ) -> None:
        other = connect()
        for longer in (2, 8, 32):  # on a busy machine a renewal may come too late
            ttl = max(short, longer * SHORT)
            if self._renewed_for(1.5 * ttl, store, other, ttl):
                return
        raise AssertionError("this machine is too busy: each pause lasted longer than a TTL")

    def _renewed_for(self, seconds: float, store: Store, other: Store, ttl: float) -> bool:
        """Whether each renewal was sent in time; then it must have been for the full TTL."""
        session = store.open_session(ttl, "me")
        begun = renewed = clock.monotonic()
        while clock.monotonic() - begun < seconds:
            threading.Event().wait(ttl / 3)
            sent = clock.monotonic()
            alive = store.keep_alive(session)
            left = other.remaining([session])[session]
            seen = clock.monotonic()
            if seen - renewed >= ttl:
                return False
            assert alive
            assert 0 < left <= ttl
            if store.guarantees.ends == "timed":
                assert left >= ttl - (seen - sent) - 0.01
            renewed = sent
        return True

    def test_close_session_ends_it_now(self, store: Store, connect: Connect, me: str) -> None:
        store.close_session(me)
        assert connect().remaining([me]) == {me: 0.0}
        assert not store.keep_alive(me)
        store.close_session(me)

    def test_close_does_not_end_sessions(self, connect: Connect) -> None:
        closing, staying = connect(), connect()
        session = closing.open_session(TTL, "me")
        version = committed(closing, "vm", b"x", session)
        closing.close()
        assert staying.remaining([session])[session] > 0
        me = staying.open_session(TTL, "me")
        assert isinstance(staying.commit("other", ABSENT, b"x", me, (session,)), Committed)
        assert staying.read("vm") == Versioned(version=version, value=b"x")

    def test_values_outlive_their_author(self, store: Store, me: str) -> None:
        version = committed(store, "vm", b"x", me)
        store.close_session(me)
        assert store.read("vm") == Versioned(version=version, value=b"x")

    # -- gone: author, then version, then whom to wake ------------------------------------------

    def test_gone_names_exactly_the_ended_sessions(
        self, connect: Connect, me: str, short: float
    ) -> None:
        other = connect()
        living = other.open_session(TTL, "living")
        closed = other.open_session(TTL, "closed")
        other.close_session(closed)
        expired = other.open_session(short, "expired")
        wait_until_ended(other, expired)
        reply = other.commit("vm", ABSENT, b"x", me, (living, closed, me, expired))
        assert reply == Gone(sessions=frozenset({closed, expired}))

    def test_gone_changes_nothing(self, store: Store, connect: Connect, me: str) -> None:
        other = connect()
        living = other.open_session(TTL, "living")
        first = committed(store, "vm", b"one", me)
        for value in (b"two", None):
            reply = store.commit("vm", first, value, me, (living, "ended"))
            assert reply == Gone(sessions=frozenset({"ended"}))
        assert store.read("vm") == Versioned(version=first, value=b"one")
        second = committed(store, "other vm", b"three", me, living)
        woken = receive_woken(other, living, second)
        assert woken == [Woken(vm="other vm", version=second, value=b"three")]

    def test_stale_changes_nothing(self, store: Store, connect: Connect, me: str) -> None:
        other = connect()
        living = other.open_session(TTL, "living")
        first = committed(store, "vm", b"one", me)
        reply = store.commit("vm", ABSENT, b"two", me, (living,))
        assert reply == Stale(version=first, value=b"one")
        second = committed(store, "other vm", b"three", me, living)
        woken = receive_woken(other, living, second)
        assert woken == [Woken(vm="other vm", version=second, value=b"three")]

    def test_order_of_refusals(self, store: Store, me: str) -> None:
        version = committed(store, "vm", b"one", me)
        for expected in (ABSENT, version):
            reply = store.commit("vm", expected, b"two", "ended", ("ended too", me))
            assert isinstance(reply, Gone)
            assert {"ended"} <= reply.sessions <= {"ended", "ended too"}
        reply = store.commit("vm", ABSENT, b"two", me, ("ended",))
        assert reply == Stale(version=version, value=b"one")
        assert store.read("vm") == Versioned(version=version, value=b"one")
