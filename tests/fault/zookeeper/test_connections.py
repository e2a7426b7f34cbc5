"""Connections and ZooKeeper sessions that are lost, replaced, silent, and let go of."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from kazoo.client import KazooClient

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Ended, Event, Gone, Missed, Woken
from distjob.testing.contract import committed, receive_woken, try_until
from distjob.testing.contract.helpers import PATIENCE, Receiving, wait_until_ended
from distjob_zookeeper.layout import Layout
from proxy import Proxy
from servers import wait_for
from zookeeper_stores import TTL, Open, counted, kazoo_of, nodes, renewed_for, source_of


def take_over(hosts: str, client_id: Any) -> bool:
    """End a ZooKeeper session as the server would, by its password; False: it has ended."""
    taker = KazooClient(hosts=hosts, client_id=client_id)
    taker.start()
    taken = taker.client_id == client_id
    taker.stop()
    taker.close()
    return taken


# -- the ZooKeeper session below ------------------------------------------------------------------


def test_an_expired_session_is_a_lost_one(hosts: str, opened: Open) -> None:
    """kazoo makes a new ZooKeeper session by itself, in which nothing of the old one lives."""
    store, other = opened(hosts), opened(hosts)
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    version = committed(store, "vm", b"x", me)
    assert other.remaining([me])[me] > 0
    receiving = Receiving(store, me, PATIENCE)
    assert take_over(hosts, kazoo_of(store).client_id)
    assert other.receive(you, PATIENCE) == [Ended(session=me)]
    told: Sequence[Event] = receiving.result()
    assert Ended(session=me) in told, "at once, not with the next renewal"
    assert not store.keep_alive(me)
    gone = Gone(sessions=frozenset({me}))
    assert store.commit("vm", version, b"y", me, ()) == gone
    assert other.commit("vm", version, b"y", you, (me,)) == gone
    again = try_until(lambda: store.open_session(TTL, "me"))
    assert isinstance(store.commit("vm", version, b"y", again, (again,)), Committed)
    assert store.receive(again, PATIENCE)


def test_another_zookeeper_session_than_before_is_a_loss(hosts: str, opened: Open) -> None:
    """ClickHouse Keeper gives one without a word to whom it does not know any more."""
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    client = kazoo_of(store)
    client._reset_session()  # the next connection asks for a session of its own
    receiving = Receiving(store, me, PATIENCE)
    source_of(store).connection.cut()
    assert Ended(session=me) in receiving.result()
    assert not store.keep_alive(me)
    again = try_until(lambda: store.open_session(TTL, "again"))
    assert store.keep_alive(again)


def test_a_client_that_servers_never_let_in_again_is_replaced(hosts: str, opened: Open) -> None:
    """They were restored from a backup: kazoo has seen a zxid that they do not know of."""
    ttl = 2.0
    store = opened(hosts, ttl)
    me = store.open_session(ttl, "me")
    receiving = Receiving(store, me, PATIENCE)
    before = kazoo_of(store)
    before.last_zxid = 2**62
    source_of(store).connection.cut()
    with pytest.raises(BackendUnavailable):
        receiving.result()
    assert kazoo_of(store) is before, "its session may live"
    again = try_until(lambda: store.open_session(ttl, "again"))
    assert kazoo_of(store) is not before
    assert store.keep_alive(again)
    assert not store.keep_alive(me)
    version = committed(store, "vm", b"x", again, again)
    receive_woken(store, again, version)


def test_a_suspension_shorter_than_the_ttl_is_no_loss(
    proxy: Proxy, through: str, opened: Open
) -> None:
    store = opened(through)
    me = store.open_session(TTL, "me")
    proxy.cut()
    assert try_until(lambda: store.keep_alive(me))
    assert isinstance(store.commit("vm", ABSENT, b"x", me, (me,)), Committed)


def test_who_is_cut_off_is_ended_by_its_witness(
    proxy: Proxy, through: str, hosts: str, opened: Open
) -> None:
    """Long before its ZooKeeper session would expire."""
    store, other = opened(through, 2.0), opened(hosts)
    me, you = store.open_session(2.0, "me"), other.open_session(TTL, "you")
    assert other.remaining([me])[me] > 0
    begun = clock.monotonic()
    proxy.refuse()
    wait_until_ended(other, me)
    assert 1.8 < clock.monotonic() - begun < 2.0 + other.guarantees.grace
    assert other.receive(you, PATIENCE) == [Ended(session=me)]
    proxy.accept()
    assert try_until(lambda: store.open_session(2.0, "again"))
    assert not store.keep_alive(me)


def test_a_new_session_ends_what_was_left_of_the_last(
    proxy: Proxy, through: str, hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    store = opened(through, 1.0)
    me = store.open_session(1.0, "me")
    assert admin.get_children(layout.sessions) == [me]
    threading.Event().wait(1.1)
    again = store.open_session(1.0, "again")
    assert admin.get_children(layout.sessions) == [again]
    assert nodes(admin, layout.root) == 5 + 3


def test_a_session_whose_opening_was_lost_leaves_no_node(
    proxy: Proxy, through: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    store = opened(through)
    proxy.drop_next_reply(b"lost owner")
    with pytest.raises(BackendUnavailable) as caught:
        store.open_session(TTL, "lost owner")
    assert caught.value.unanswered
    next_one = try_until(lambda: store.open_session(TTL, "next"))
    assert admin.get_children(layout.sessions) == [next_one]
    assert nodes(admin, layout.root) == 5 + 3


# -- connections ----------------------------------------------------------------------------------


def test_nothing_is_queued_while_there_is_no_connection(
    proxy: Proxy, through: str, opened: Open
) -> None:
    store = opened(through, timeout=1.0)
    me = store.open_session(TTL, "me")
    receiving = Receiving(store, me, PATIENCE)
    proxy.refuse()
    with pytest.raises(BackendUnavailable, match="no connection"):
        receiving.result()
    begun = clock.monotonic()
    for call in (lambda: store.commit("vm", ABSENT, b"x", me, ()), lambda: store.keep_alive(me)):
        with pytest.raises(BackendUnavailable, match="not connected") as caught:
            call()
        assert not caught.value.unanswered
    assert clock.monotonic() - begun < 0.5
    proxy.accept()
    assert try_until(lambda: store.receive(me, 1.0)) == [Missed()]
    assert store.receive(me, 0.0) == []
    assert store.read("vm").version == ABSENT
    version = committed(store, "vm", b"y", me, me)
    assert receive_woken(store, me, version)[-1] == Woken(vm="vm", version=version, value=b"y")


def test_a_wake_up_while_the_connection_was_lost_is_received(
    proxy: Proxy, through: str, hosts: str, opened: Open
) -> None:
    store, other = opened(through), opened(hosts)
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    proxy.refuse()
    version = committed(other, "vm", b"x", you, me)
    proxy.accept()
    events: list[Event] = []
    while len(events) < 2:
        events += try_until(lambda: store.receive(me, 1.0))
    assert events == [Missed(), Woken(vm="vm", version=version, value=b"x")]


def test_a_server_that_is_silent_is_left_for_another(
    proxy: Proxy, through: str, hosts: str, opened: Open
) -> None:
    """A cable that was pulled: kazoo alone would notice after more than a TTL."""
    ttl = 6.0
    store = opened(through, ttl, timeout=0.5)
    me = store.open_session(ttl, "me")
    kazoo_of(store).set_hosts(f"{through},{hosts}")  # from now on there is another way
    proxy.stall()
    begun = clock.monotonic()
    # told by our own time-out, or by kazoo's, whichever is first
    with pytest.raises(BackendUnavailable, match=r"within|ConnectionLoss") as caught:
        store.commit("vm", ABSENT, b"x", me, ())
    assert caught.value.unanswered
    assert try_until(lambda: store.keep_alive(me))
    assert clock.monotonic() - begun < 0.9 * ttl
    assert try_until(lambda: store.receive(me, PATIENCE)) == [Missed()]


def test_who_only_listens_notices_a_silent_server(
    proxy: Proxy, through: str, hosts: str, opened: Open
) -> None:
    store, other = opened(through, 3.0), opened(hosts)
    me, you = store.open_session(30.0, "me"), other.open_session(TTL, "you")
    kazoo_of(store).set_hosts(hosts)
    receiving = Receiving(store, me, PATIENCE)
    proxy.stall()
    committed(other, "vm", b"x", you, me)
    assert Missed() in receiving.result()
    assert receiving.seconds < 10


def test_nobody_is_asked_whether_he_lives_who_answers_anyway(hosts: str, opened: Open) -> None:
    store = opened(hosts, 1.5)
    me = store.open_session(1.5, "me")
    with counted(store) as sent:
        receiving = Receiving(store, me, 3.0)
        renewed_for(store, me, 3.0, 0.2)
        assert receiving.result() == []
        assert {type(request).__name__ for request in sent} == {"Transaction"}
        del sent[:]
        store.receive(me, 1.2)
        assert [type(request).__name__ for request in sent] == ["Exists"] * len(sent)
        assert 1 <= len(sent) <= 2, "where nothing else is, a third of a TTL is waited"


def test_close_waits_for_no_answer(proxy: Proxy, through: str, opened: Open) -> None:
    store = opened(through, timeout=0.3)
    store.open_session(TTL, "me")
    proxy.stall()
    begun = clock.monotonic()
    store.close()
    assert clock.monotonic() - begun < 2


def test_close_ends_the_zookeeper_session_only_if_none_of_ours_is_left(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    before = threading.active_count()
    store = opened(hosts)
    store.close_session(store.open_session(TTL, "me"))
    session = kazoo_of(store).client_id
    store.close()
    assert not take_over(hosts, session)
    left = opened(hosts)
    name = left.open_session(TTL, "me")
    session = kazoo_of(left).client_id
    left.close()
    left.close()
    wait_for(lambda: threading.active_count() == before, "all threads ended", 2.0)
    assert admin.get_children(layout.sessions) == [name]
    with pytest.raises(BackendUnavailable, match="closed"):
        left.read("vm")
    assert take_over(hosts, session)
