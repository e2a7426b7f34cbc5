"""Settling: what a session has sent is brought to an end, and what it sends afterwards is not."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from distjob.store import ABSENT, Committed, Gone, Settled, Stale, Store, Versioned
from distjob.testing.contract.helpers import PATIENCE, TTL, Connect, committed, receive_woken


class Settling:
    """It changes nothing but what is under way; see also `distjob.testing.contract.faults`."""

    def test_settling_changes_nothing_that_was_made(self, store: Store, me: str) -> None:
        version = committed(store, "vm", b"x", me, me)
        for _ in range(2):
            store.settle(me)
        assert store.read("vm") == Versioned(version=version, value=b"x")
        assert [woken.version for woken in receive_woken(store, me, version)] == [version]
        assert store.keep_alive(me)
        assert store.remaining([me])[me] > 0

    def test_commits_after_it_are_made(self, store: Store, me: str) -> None:
        store.settle(me)
        first = committed(store, "vm", b"one", me)
        for _ in range(3):
            store.settle(me)
        reply = store.commit("vm", first, b"two", me, (me,))
        assert isinstance(reply, Committed)
        assert store.commit("vm", first, b"three", me, ()) == Stale(reply.version, b"two")

    def test_of_a_session_that_has_ended(self, store: Store, me: str) -> None:
        ended = store.open_session(TTL, "ended")
        store.settle(ended)
        store.close_session(ended)
        for session in (ended, "no such session"):
            store.settle(session)
            assert store.remaining([session]) == {session: 0.0}
            assert store.commit("vm", ABSENT, b"x", session, ()) == Gone(frozenset({session}))
        committed(store, "vm", b"x", me)

    def test_it_is_of_that_session_only(self, connect: Connect, me: str) -> None:
        other = connect()
        theirs = other.open_session(TTL, "other")
        version = committed(other, "vm", b"x", theirs)
        other.settle(theirs)
        store = connect()
        mine = store.open_session(TTL, "mine")
        assert isinstance(store.commit("vm", version, b"y", mine, (theirs, me)), Committed)

    @pytest.mark.parametrize("value", [b"x", None])
    def test_what_is_under_way_is_made_or_never_will_be(
        self, store: Store, me: str, value: bytes | None
    ) -> None:
        """Commits of many threads, and settlings among them: whoever has settled knows."""
        stop = threading.Event()

        def commit(vm: str) -> None:
            seen = store.read(vm)
            while not stop.is_set():
                reply = store.commit(vm, seen.version, value, me, ())
                if isinstance(reply, Settled):
                    assert store.read(vm).version == seen.version, "it was refused, and made"
                else:
                    seen = store.read(vm)

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(commit, f"vm-{number}") for number in range(4)]
            try:
                for _ in range(20):
                    store.settle(me)
            finally:
                stop.set()
            for future in running:
                future.result(PATIENCE)
