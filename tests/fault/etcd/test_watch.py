"""The watch of a store: cut, silent, compacted, refused a thread; nothing that was sent is lost.

In threads and on asyncio.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from distjob.store import Ended, Missed, Store, Woken
from distjob.testing.contract import try_until
from distjob_etcd.layout import lease_of
from on_etcd import TTL, commit_waking, failed, feed_of, received, source_of
from proxy import Proxy
from servers import EtcdNode, wait_for

Connect = Callable[..., Store]


def test_a_watch_that_is_cut_goes_on_without_loss(
    through: Store, proxy: Proxy, connect: Connect
) -> None:
    direct = connect()
    me, other = through.open_session(TTL, "me"), direct.open_session(TTL, "other")
    assert through.remaining([other])[other] > 0
    for turn in range(5):
        proxy.cut()
        version = commit_waking(direct, other, me, value=b"%d" % turn)
        assert list(through.receive(me, 10.0)) == [Woken("vm", version, b"%d" % turn)]
    proxy.cut()
    direct.close_session(other)
    assert list(through.receive(me, 10.0)) == [Ended(other)]


def test_what_had_come_before_a_cut_is_received(
    through: Store, proxy: Proxy, connect: Connect
) -> None:
    direct = connect()
    me, other = through.open_session(TTL, "me"), direct.open_session(TTL, "other")
    assert list(through.receive(me, 0.0)) == []
    version = commit_waking(direct, other, me)
    wait_for(lambda: bool(feed_of(through)._watches._events), "the wake-up to come")
    proxy.refuse()
    wait_for(lambda: feed_of(through)._stream.ending is not None, "the end of the stream")  # type: ignore[union-attr]
    assert list(through.receive(me, 10.0)) == [Woken("vm", version, b"woken")]
    proxy.accept()


@pytest.mark.parametrize("came", ["a word", "an event of nobody's"])
def test_a_cut_right_behind_something_is_noticed_at_once(
    connect: Connect, proxy: Proxy, came: str
) -> None:
    """Both have rung, and one who waited has woken up by that: the end is seen all the same."""
    store, direct = connect(proxy.address, ttl=120.0), connect()
    me, other = store.open_session(TTL, "me"), direct.open_session(TTL, "other")
    assert list(store.receive(me, 0.0)) == []
    feed = feed_of(store)
    if came == "a word":
        asyncio.run(feed.prod())
        wait_for(lambda: feed._heard, "the word to come")
    else:
        with feed._lock:
            feed._watches._events.append(("nobody", Ended("x")))
    proxy.cut()
    wait_for(lambda: feed._stream is not None and feed._stream.ending is not None, "its end")
    feed._world.bell._rung.clear()  # type: ignore[attr-defined]
    version = commit_waking(direct, other, me)
    assert list(store.receive(me, 20.0)) == [Woken("vm", version, b"woken")]


def test_while_it_cannot_be_opened_that_is_told_and_nothing_is_lost(
    through: Store, proxy: Proxy, connect: Connect
) -> None:
    direct = connect()
    me = through.open_session(30.0, "me")
    proxy.refuse()
    for _ in range(2):
        failed(lambda: through.receive(me, 10.0))
    version = commit_waking(direct, me)
    proxy.accept()
    last = Woken("vm", version, b"woken")
    assert received(through, me, last) == [last]


def test_history_that_was_compacted_is_missed(
    through: Store, proxy: Proxy, connect: Connect, etcd_server: EtcdNode
) -> None:
    direct = connect()
    me, other = through.open_session(30.0, "me"), direct.open_session(30.0, "other")
    assert through.remaining([other])[other] > 0
    assert list(through.receive(me, 0.0)) == []
    proxy.refuse()
    failed(lambda: through.receive(me, 10.0))
    commit_waking(direct, me, value=b"lost")
    direct.close_session(other)
    version = commit_waking(direct, me, value=b"lost too")
    last = commit_waking(direct, me, direct.open_session(TTL, "x"), value=b"last")
    assert last > version
    etcd_server.cli("compact", str(last - source_of(direct)._layout.base))
    proxy.accept()
    events = received(through, me, Ended(other))
    if Missed() not in events:  # of two watches: in any order
        events += received(through, me, Missed())
    assert through.remaining([other]) == {other: 0.0}
    version = commit_waking(direct, me, value=b"again")
    assert received(through, me, Woken("vm", version, b"again"))


def test_a_thread_that_cannot_be_had_is_told(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    assert list(store.receive(me, 0.0)) == []

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr("distjob_etcd.feed.threading.Thread", NoThread)
        feed_of(store)._stream.cut()  # type: ignore[union-attr]
        assert "no thread for the watch" in str(failed(lambda: store.receive(me, 10.0)))
    version = commit_waking(store, me)
    assert received(store, me, Woken("vm", version, b"woken"))


def test_a_reader_that_dies_is_told_and_another_reads(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    assert list(store.receive(me, 0.0)) == []
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    with monkeypatch.context() as broken:
        broken.setattr(feed_of(store)._watches, "hear", lambda _: 1 / 0)
        commit_waking(store, me)
        wait_for(lambda: bool(died), "the reader to die")
    assert received(store, me, Woken("vm", store.read("vm").version, b"woken"))


def test_what_is_watched_does_not_pile_up(connect: Connect) -> None:
    store, other = connect(), connect()
    me = store.open_session(TTL, "me")
    for _ in range(30):
        session = other.open_session(TTL, "x")
        assert store.remaining([session, "no such"])[session] > 0
        other.close_session(session)
        assert list(store.receive(me, 5.0)) == [Ended(session)]
    watches = feed_of(store)._watches
    assert watches._watched == set()
    assert len(watches._both) == 2


def test_a_server_that_has_lost_all_its_data(
    spawn_etcd: Callable[..., EtcdNode], connect: Connect
) -> None:
    """It counts from the start again; a watch that went on from before would hear nothing."""
    node = spawn_etcd()
    store = connect(node.address, namespace="default")
    old = store.open_session(60.0, "me")
    for _ in range(50):
        last = commit_waking(store, old)
    node.wipe()
    node.start()
    assert try_until(lambda: store.read("vm")).value is None
    received(store, old, Missed())
    assert not store.keep_alive(old)
    me, other = store.open_session(60.0, "me"), store.open_session(60.0, "other")
    assert store.remaining([other])[other] > 0
    version = commit_waking(store, me)
    assert version > last
    store.close_session(other)
    events = received(store, me, Ended(other))
    if (last := Woken("vm", version, b"woken")) not in events:  # of two watches: in any order
        received(store, me, last)


# -- sessions that others end -------------------------------------------------------------------


def test_a_lease_revoked_by_hand_is_told_at_once(connect: Connect, etcd_server: EtcdNode) -> None:
    """To who asked about it, and to whose it was."""
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    assert store.remaining([you])[you] > 0
    etcd_server.cli("lease", "revoke", f"{lease_of(you):x}")
    assert list(store.receive(me, 5.0)) == [Ended(you)]
    assert list(other.receive(you, 5.0)) == [Ended(you)]
    assert not other.keep_alive(you)
    assert list(other.receive(you, 0.0)) == []
    other.close_session(you)


def test_a_session_that_ended_while_nobody_listened_is_told(
    through: Store, proxy: Proxy, connect: Connect
) -> None:
    direct = connect()
    me, another = through.open_session(60.0, "me"), through.open_session(1.0, "me")
    assert list(through.receive(me, 0.0)) == []
    proxy.refuse()
    failed(lambda: through.receive(me, 10.0))
    wait_for(lambda: direct.remaining([another]) == {another: 0.0}, "the session to end")
    proxy.accept()
    assert received(through, another, Ended(another)) == [Ended(another)]


def test_a_session_whose_key_was_deleted_is_not_renewed(
    connect: Connect, etcd_server: EtcdNode
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    etcd_server.cli("del", source_of(store)._layout.session_key(me).decode())
    assert list(store.receive(me, 5.0)) == [Ended(me)]
    assert not store.keep_alive(me)
    assert store.remaining([me]) == {me: 0.0}


def test_a_session_that_was_woken_still_ends(connect: Connect) -> None:
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(1.0, "you")
    assert store.remaining([you]) == {you: 1.0}
    commit_waking(store, me, you)
    assert list(store.receive(me, 6.0)) == [Ended(you)]


def test_an_unreadable_wake_up_is_a_missed_one(
    connect: Connect, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    key = f"distjob/{fresh_namespace}/session/{me}"
    etcd_server.cli("put", "--ignore-lease", key, "by hand")
    assert list(store.receive(me, 5.0)) == [Missed()]
