"""A cluster that is restored from a backup under living controllers, and a namespace that goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Ended, Gone, Store, Void
from distjob.testing.contract import committed, try_until
from distjob_etcd import EtcdSettings
from on_etcd import opened, received
from servers import EtcdNode

Connect = Callable[[EtcdNode], Store]
TTL = 60.0


@pytest.fixture
def connect(fresh_namespace: str) -> Iterator[Connect]:
    """What a cluster answers is looked at in one place, which both worlds share."""
    with contextlib.ExitStack() as closing:

        def connect(node: EtcdNode) -> Store:
            store = opened(EtcdSettings(endpoints=(node.address,)), fresh_namespace, TTL)
            closing.callback(store.close)
            return store

        yield connect


def test_sessions_of_before_a_restored_backup_are_lost(
    spawn_etcd: Callable[..., EtcdNode], connect: Connect
) -> None:
    """They are in the backup and would live on, beside grants that the backup does not know of."""
    node = spawn_etcd()
    store = connect(node)
    me, you, third = (store.open_session(TTL, "me") for _ in range(3))
    committed(store, "held since", b"x", me)
    backup = node.back_up()
    for _ in range(20):
        committed(store, "vm", b"y", me)
    node.restore(backup)
    node.start()
    given_up = try_until(lambda: store.keep_alive(me))
    assert isinstance(given_up, Void)
    assert "revision has fallen" in given_up.why
    assert store.commit("vm", ABSENT, b"z", you, ()) == Gone(frozenset({you}))
    received(store, you, Ended(you))
    again = store.open_session(TTL, "again")
    ended = store.remaining([me, you, third, again])
    assert ended == {me: 0.0, you: 0.0, third: 0.0, again: TTL}, "they were ended in the store, too"
    assert store.keep_alive(again)
    assert isinstance(store.commit("vm", ABSENT, b"z", again, ()), Committed)


def test_a_namespace_that_was_removed_under_a_store(
    connect: Connect, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    """And made again by another: each goes by the base that its session began with."""
    store = connect(etcd_server)
    me = store.open_session(TTL, "me")
    committed(store, "vm", b"x", me)
    etcd_server.cli("del", "--prefix", f"distjob/{fresh_namespace}/")
    assert not store.keep_alive(me)
    other = connect(etcd_server)
    last = committed(other, "vm", b"y", other.open_session(TTL, "you"))
    again = store.open_session(TTL, "again")
    assert store.read("vm").version == last
    assert committed(store, "vm", b"z", again) > last
    etcd_server.cli("del", "--prefix", f"distjob/{fresh_namespace}/")
    assert committed(store, "vm", b"z", store.open_session(TTL, "first again")) > last
    etcd_server.cli("put", f"distjob/{fresh_namespace}/format", "99 1")
    with pytest.raises(BackendUnavailable, match="kept in format 99 1"):
        store.open_session(TTL, "another's")
