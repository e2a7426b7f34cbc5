"""The suite that every backend must pass: each sentence of `distjob.store`, as a test.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def connect(self, tmp_path):
            stores = []
            def connect():
                stores.append(my_backend.connect(settings, namespace, 10.0))
                return stores[-1]
            yield connect
            for store in stores:
                store.close()

``connect`` gives each call a new store, of another client, on the same namespace; each test must
get an empty namespace. Sessions of 0.3 s must work. A store whose `Guarantees` claim ``durable`` or
``versions_survive_loss`` must override ``restart`` or ``lose``. Knows nothing of jobs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from distjob import clock
from distjob.store import (
    ABSENT,
    Committed,
    Ended,
    Gone,
    Missed,
    Stale,
    Store,
    Versioned,
    Woken,
)

Connect = Callable[[], Store]

TTL = 10.0
"""Of sessions that are to outlive their test."""
SHORT = 0.3
"""Of sessions that are to end in it."""
PATIENCE = 20.0
"""Seconds after which something that had to happen counts as never happening."""

ODD_NAMES = (
    "a", "A", "a ", " a", "a\0", "a\0\0", "\0a", "a\nb", "a\rb", "\t", "/", "a/b", "../a", ".",
    "..", "*", "a*", "[a]", "{a}", "{a}b", "a:b", "a%b", "a_b", "\\", '"',
    "'; DROP TABLE record; --",
    "\N{SNOWMAN}", "\N{PILE OF POO}", "e\N{COMBINING ACUTE ACCENT}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}", "x" * 255, "x" * 254 + "y",
    "\N{PILE OF POO}" * 63 + "abc",
)  # fmt: skip
ODD_VALUES = (b"", b"\0", b"0", b"None", bytes(range(256)), b"\xff\xfe", b"x" * 1_000_000)
GARBAGE_SESSIONS = ("", "*", "no such session", "a\0b", "\N{SNOWMAN}", "x" * 1000, "' OR 1=1 --")


def committed(store: Store, vm: str, value: bytes | None, author: str, *wake: str) -> int:
    """Write ``value`` over whatever is there; the new version."""
    while True:
        reply = store.commit(vm, store.read(vm).version, value, author, wake)
        if isinstance(reply, Committed):
            return reply.version
        assert isinstance(reply, Stale)


def increment(store: Store, vm: str, author: str, times: int) -> list[int]:
    """Count up in ``vm`` by compare-and-set, with no more reads than needed; the versions."""
    seen: Versioned | Stale = store.read(vm)
    versions: list[int] = []
    while len(versions) < times:
        value = b"%d" % (int(seen.value or b"0") + 1)
        reply = store.commit(vm, seen.version, value, author, ())
        if isinstance(reply, Committed):
            versions.append(reply.version)
            seen = Versioned(version=reply.version, value=value)
        else:
            assert isinstance(reply, Stale), reply
            seen = reply
    return versions


def wait_until_ended(store: Store, session: str) -> None:
    """Ask for ``session`` until it has ended, as rarely as its remaining time allows."""
    until = clock.monotonic() + PATIENCE
    pause = threading.Event()
    while (left := store.remaining([session])[session]) > 0:
        assert clock.monotonic() < until, "the session never ended"
        pause.wait(left + 0.005)


def receive_woken(store: Store, session: str, last: int) -> list[Woken]:
    """All wake-ups of ``session`` up to the one of version ``last``."""
    until = clock.monotonic() + PATIENCE
    woken: list[Woken] = []
    while not woken or woken[-1].version < last:
        left = until - clock.monotonic()
        assert left > 0, f"no wake-up of version {last}; there were {woken}"
        for event in store.receive(session, left):
            if isinstance(event, Woken):
                woken.append(event)
            elif isinstance(event, Ended):
                assert store.remaining([event.session]) == {event.session: 0.0}
            else:
                assert isinstance(event, Missed)
    return woken


class _Receiving:
    """A `receive` that is under way in a thread; ``seconds`` is how long it took."""

    def __init__(self, store: Store, session: str, timeout: float) -> None:
        self.seconds = 0.0
        self._run = (store, session, timeout)
        self._begun = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(self._receive)
        self._begun.wait(PATIENCE)

    def _receive(self) -> Sequence[object]:
        store, session, timeout = self._run
        begun = clock.monotonic()
        self._begun.set()
        events = store.receive(session, timeout)
        self.seconds = clock.monotonic() - begun
        return events

    def result(self) -> Sequence[object]:
        with self._pool:
            return self._future.result(PATIENCE)


class StoreContract:
    """Subclass it, override `connect`, and let pytest collect the subclass."""

    @pytest.fixture
    def connect(self) -> Connect:
        """A callable that returns a new `Store` on the namespace of this test."""
        msg = "override the fixture `connect`"
        raise NotImplementedError(msg)

    @pytest.fixture
    def restart(self) -> Callable[[], None] | None:
        """A callable that restarts the server; stores from before need not work afterwards."""
        return None

    @pytest.fixture
    def lose(self) -> Callable[[], None] | None:
        """A callable that makes the server lose all its data."""
        return None

    @pytest.fixture
    def store(self, connect: Connect) -> Store:
        return connect()

    @pytest.fixture
    def me(self, store: Store) -> str:
        return store.open_session(TTL, "me")

    # -- values and versions ------------------------------------------------------------------

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
        versions = []
        for value in (b"x", None, b"x", b"x", None):
            for vm in ("vm-1", "vm-2"):
                versions.append(committed(store, vm, value, me))
                versions.append(committed(other, vm, value, you))
        assert versions == sorted(set(versions))

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
            reply = store.commit(name, ABSENT, name.encode(), me, (me,))
            assert isinstance(reply, Committed), name
            expected[name] = Versioned(version=reply.version, value=name.encode())
        for reader in (store, connect()):
            assert {name: reader.read(name) for name in ODD_NAMES} == expected
            assert dict(reader.scan()) == expected
        last = max(found.version for found in expected.values())
        woken = receive_woken(store, me, last)
        assert {event.vm: event.version for event in woken} == {
            name: found.version for name, found in expected.items()
        }

    def test_scan_gives_each_value_once(self, store: Store, me: str) -> None:
        for number in range(500):
            store.commit(f"vm-{number}", ABSENT, b"%d" % number, me, ())
        committed(store, "vm-0", None, me)
        found = list(store.scan())
        assert len(found) == 499
        assert {vm: value.value for vm, value in found} == {
            f"vm-{number}": b"%d" % number for number in range(1, 500)
        }

    def test_scan_while_others_write(self, store: Store, me: str) -> None:
        for number in range(300):
            store.commit(f"vm-{number:03}", ABSENT, b"", me, ())
        seen = set()
        for vm, _ in store.scan():
            committed(store, vm, None, me)
            seen.add(vm)
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

    # -- sessions -----------------------------------------------------------------------------

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

    def test_a_session_ends_by_itself_for_ever(self, store: Store, connect: Connect) -> None:
        other = connect()
        session = store.open_session(SHORT, "me")
        begun = clock.monotonic()
        wait_until_ended(other, session)
        assert clock.monotonic() - begun < SHORT + 2
        for _ in range(2):
            assert not store.keep_alive(session)
            assert store.remaining([session]) == {session: 0.0}
            reply = store.commit("vm", ABSENT, b"x", session, ())
            assert reply == Gone(sessions=frozenset({session}))
        store.close_session(session)
        assert store.open_session(SHORT, "me") != session

    def test_whatever_is_asked_first_the_session_has_ended(self, store: Store, me: str) -> None:
        renewed, author, woken, closed = (store.open_session(SHORT, "x") for _ in range(4))
        threading.Event().wait(SHORT + 0.05)
        assert not store.keep_alive(renewed)
        gone = Gone(sessions=frozenset({author}))
        assert store.commit("vm", ABSENT, b"x", author, ()) == gone
        gone = Gone(sessions=frozenset({woken}))
        assert store.commit("vm", ABSENT, b"x", me, (woken,)) == gone
        store.close_session(closed)
        ended = (renewed, author, woken, closed)
        assert store.remaining(ended) == dict.fromkeys(ended, 0.0)

    def test_keep_alive_renews_for_the_full_ttl(self, store: Store, connect: Connect) -> None:
        session = store.open_session(4 * SHORT, "me")
        other = connect()
        pause = threading.Event()
        for _ in range(2):
            while (left := other.remaining([session])[session]) > 3.5 * SHORT:
                pause.wait(left - 3.5 * SHORT + 0.005)
            assert store.keep_alive(session)
            assert 3.5 * SHORT < other.remaining([session])[session] <= 4 * SHORT

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
        assert staying.keep_alive(session)
        assert staying.read("vm") == Versioned(version=version, value=b"x")

    def test_values_outlive_their_author(self, store: Store, me: str) -> None:
        version = committed(store, "vm", b"x", me)
        store.close_session(me)
        assert store.read("vm") == Versioned(version=version, value=b"x")

    # -- gone: author, then version, then whom to wake ------------------------------------------

    def test_gone_names_exactly_the_ended_sessions(self, connect: Connect, me: str) -> None:
        other = connect()
        living = other.open_session(TTL, "living")
        closed = other.open_session(TTL, "closed")
        other.close_session(closed)
        expired = other.open_session(SHORT, "expired")
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

    # -- wake-ups -----------------------------------------------------------------------------

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
        receiving = _Receiving(waiter, waiting, PATIENCE)
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
        receiving = _Receiving(store, me, PATIENCE)
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
        receiving = _Receiving(store, me, PATIENCE)
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

    # -- what the guarantees say ----------------------------------------------------------------

    def test_durable(self, connect: Connect, restart: Callable[[], None] | None) -> None:
        store = connect()
        if not store.guarantees.durable:
            return
        assert restart is not None, "the store claims `durable`: override the fixture `restart`"
        me = store.open_session(TTL, "me")
        kept = {f"vm-{n}": committed(store, f"vm-{n}", b"%d" % n, me) for n in range(20)}
        last = committed(store, "vm-0", None, me)
        del kept["vm-0"]
        store.close()
        restart()
        again = connect()
        assert {vm: found.version for vm, found in again.scan()} == kept
        assert committed(again, "vm", b"x", again.open_session(TTL, "me")) > last

    def test_versions_survive_loss(self, connect: Connect, lose: Callable[[], None] | None) -> None:
        store = connect()
        if not store.guarantees.versions_survive_loss:
            return
        assert lose is not None, "the store claims `versions_survive_loss`: override `lose`"
        me = store.open_session(TTL, "me")
        last = max(increment(store, "vm", me, 50))
        store.close()
        lose()
        again = connect()
        assert list(again.scan()) == []
        assert not again.keep_alive(me)
        assert committed(again, "vm", b"x", again.open_session(TTL, "me")) > last


def _woken_with(store: Store, session: str, value: bytes) -> int:
    until = clock.monotonic() + PATIENCE
    while (left := until - clock.monotonic()) > 0:
        events: Iterable[object] = store.receive(session, left)
        for event in events:
            if isinstance(event, Woken) and (event.value or store.read(event.vm).value) == value:
                return event.version
    msg = f"never woken with {value!r}"
    raise AssertionError(msg)
