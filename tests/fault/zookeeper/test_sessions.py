"""Sessions on ZooKeeper: who ends them, when, and that none is ended which was renewed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from distjob import clock
from distjob.store import ABSENT, Ended, Gone
from distjob.testing.contract import committed
from distjob.testing.contract.helpers import PATIENCE, Receiving, wait_until_ended
from distjob_zookeeper.layout import Layout
from servers import wait_for
from zookeeper_stores import TTL, Open, nodes, renewed_for, source_of

if TYPE_CHECKING:
    from kazoo.client import KazooClient


# -- by a witness ---------------------------------------------------------------------------------


def test_a_session_that_is_not_renewed_is_ended_although_kazoo_pings(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    store, other = opened(hosts), opened(hosts)
    watching, session = other.open_session(TTL, "watching"), store.open_session(1.0, "me")
    assert 0.9 < other.remaining([session])[session] <= 1.0
    begun = clock.monotonic()
    wait_until_ended(other, session)
    assert clock.monotonic() - begun >= 0.9
    assert other.receive(watching, PATIENCE) == [Ended(session=session)]
    assert store.receive(session, PATIENCE) == [Ended(session=session)], "its owner hears of it"
    assert not store.keep_alive(session)
    assert store.commit("vm", ABSENT, b"x", session, ()) == Gone(sessions=frozenset({session}))
    for folder in (layout.sessions, layout.beats, layout.wakes):
        assert admin.get_children(folder) == [watching]


def test_its_time_is_counted_from_the_last_renewal(hosts: str, opened: Open) -> None:
    """Whoever waits is told of each: it does not count from when it asked."""
    store, other = opened(hosts), opened(hosts)
    other.open_session(TTL, "watching")
    session = store.open_session(3.0, "me")
    assert other.remaining([session])[session] > 2.9
    threading.Event().wait(1.0)
    assert store.keep_alive(session)
    renewed = clock.monotonic()
    threading.Event().wait(1.0)
    left = other.remaining([session])[session]
    assert 3.0 - (clock.monotonic() - renewed) - 0.1 <= left <= 2.1
    wait_until_ended(other, session)
    assert clock.monotonic() - renewed >= 2.9


def test_of_one_that_died_long_ago_nobody_waits_for_a_ttl(hosts: str, opened: Open) -> None:
    """A client's own renewals tell it since when another has made none."""
    store, newcomer, stranger = opened(hosts), opened(hosts), opened(hosts)
    session, me = store.open_session(2.0, "died"), newcomer.open_session(2.0, "me")
    stranger.open_session(TTL, "has not renewed yet")
    renewed_for(newcomer, me, 2.6, 0.4)
    assert stranger.remaining([session])[session] > 1.5
    assert newcomer.remaining([session]) == {session: 0.0}
    assert stranger.remaining([session]) == {session: 0.0}


def test_a_session_that_is_renewed_is_never_ended(hosts: str, opened: Open) -> None:
    store, witnesses = opened(hosts), [opened(hosts) for _ in range(3)]
    session = store.open_session(1.0, "me")
    done = threading.Event()
    found: list[float] = []

    def watch(witness: Any) -> None:
        mine = witness.open_session(1.0, "witness")
        while not done.is_set():
            witness.keep_alive(mine)
            found.append(witness.remaining([session])[session])
            done.wait(0.05)

    threads = [threading.Thread(target=watch, args=(witness,)) for witness in witnesses]
    for thread in threads:
        thread.start()
    renewed_for(store, session, 5.0, 0.3)
    done.set()
    for thread in threads:
        thread.join()
    assert len(found) > 50
    assert min(found) > 0.0


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("heard", [True, False])
def test_a_renewal_between_the_look_and_the_end(
    hosts: str, opened: Open, monkeypatch: pytest.MonkeyPatch, checked: bool, heard: bool
) -> None:
    """The witness has seen it stand still for a TTL; the check of its end finds the renewal.

    Also if the witness's own watch has told of it meanwhile.
    """
    store, other = opened(hosts), opened(hosts)
    session = store.open_session(TTL, "me")
    witness = source_of(other)._witness
    assert other.remaining([session])[session] > 0
    seen = witness._beats._seen[session]
    seen.since -= 2 * TTL
    end_dead = witness._end_dead

    async def late(due: Mapping[str, int]) -> Any:
        before = seen.version
        assert dict(due) == {session: before}
        if not heard:
            monkeypatch.setattr(witness._beats, "saw", lambda *_: None)
        assert store.keep_alive(session)
        if heard:
            wait_for(lambda: seen.version != before, "the renewal heard of")
        # Without the check any version would do: what would happen.
        return await end_dead(due if checked else {session: -1})

    monkeypatch.setattr(witness, "_end_dead", late)
    left = other.remaining([session])[session]
    assert (left > 0) is checked
    assert store.keep_alive(session) is checked


def test_one_that_is_gone_for_a_server_that_lags_is_not_ended(
    hosts: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked about before this server has heard of it; a majority knows better."""
    store, other = opened(hosts), opened(hosts)
    witness = source_of(other)._witness
    look = witness._look

    async def blind(some: Sequence[str], *, follow: bool) -> dict[str, Any]:
        await look(some, follow=follow)
        return {}

    session = store.open_session(TTL, "me")
    monkeypatch.setattr(witness, "_look", blind)
    assert other.remaining([session, "never was"]) == {session: TTL, "never was": 0.0}
    assert store.keep_alive(session)


def test_an_operator_ends_a_session_by_its_node(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    store, other = opened(hosts), opened(hosts)
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    version = committed(store, "vm", b"x", me)
    assert other.remaining([me])[me] > 0
    receiving = Receiving(store, me, PATIENCE)
    admin.delete(layout.session(me))
    assert receiving.result() == [Ended(session=me)]
    assert other.receive(you, PATIENCE) == [Ended(session=me)]
    assert other.remaining([me]) == {me: 0.0}
    source_of(store)._sessions.own[me].lost = False  # as if it had not heard of it
    assert not store.keep_alive(me)
    assert store.commit("vm", version, b"y", me, ()) == Gone(sessions=frozenset({me}))
    other.close_session(me)
    assert nodes(admin, layout.wakes) == nodes(admin, layout.beats) == 1
