"""What is in the store: large values, crowds, servers with bounds of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distjob.errors import RecordError
from distjob.store import ABSENT, Committed, Store, Woken
from on_etcd import TTL, commit_waking, received
from servers import EtcdNode, wait_for

Connect = Callable[..., Store]


@pytest.mark.parametrize(("size", "sent"), [(64 * 1024, True), (64 * 1024 + 1, False)])
def test_a_large_value_is_not_pushed(connect: Connect, size: int, sent: bool) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    value = b"x" * size
    version = commit_waking(store, me, value=value)
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, value if sent else None)]


def test_a_large_value_for_many_fits_into_one_request(connect: Connect) -> None:
    store = connect()
    sessions = [store.open_session(TTL, "x") for _ in range(100)]
    reply = store.commit("vm", ABSENT, b"x" * 1_000_000, sessions[0], sessions)
    assert isinstance(reply, Committed)
    reply = store.commit("vm", reply.version, b"y" * 64 * 1024, sessions[0], sessions)
    assert isinstance(reply, Committed)
    assert len(received(store, sessions[7], Woken("vm", reply.version, None))) == 2


def test_a_crowd_that_one_transaction_cannot_wake(connect: Connect) -> None:
    """etcd takes 128 operations at once. Some are woken, none is in the way of the commit."""
    store, other = connect(), connect()
    me = store.open_session(TTL, "me")
    crowd = [other.open_session(TTL, "waiter") for _ in range(140)]
    reply = store.commit("vm", ABSENT, b"x", me, crowd)
    assert isinstance(reply, Committed)
    told = Woken(vm="vm", version=reply.version, value=b"x")
    woken = set[str]()
    wait_for(
        lambda: (
            woken.update(one for one in crowd if told in other.receive(one, 0.0))
            or len(woken) >= 100
        ),
        "the first hundred are woken",
    )
    assert woken == set(sorted(crowd)[:100])


def test_a_server_that_takes_less_than_we_send(
    connect: Connect, spawn_etcd: Callable[..., EtcdNode]
) -> None:
    small = spawn_etcd("--max-request-bytes=10000")
    store = connect(small.address)
    me = store.open_session(TTL, "me")
    with pytest.raises(RecordError, match=r"'vm'.*20000 bytes.*max-request-bytes"):
        store.commit("vm", ABSENT, b"x" * 20_000, me, ())
    assert isinstance(store.commit("vm", ABSENT, b"x", me, ()), Committed)


def test_a_server_whose_shortest_ttl_is_longer(
    connect: Connect, spawn_etcd: Callable[..., EtcdNode], caplog: pytest.LogCaptureFixture
) -> None:
    slow = spawn_etcd("--election-timeout=2500", "--heartbeat-interval=250")
    for ttl, told in ((3.0, 1), (4.0, 1)):
        assert connect(slow.address, ttl=ttl, timeout=2.0).guarantees.shortest_ttl == 4.0
        warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(warned) == told
    assert "keeps sessions for 4 s at least" in warned[0]
    assert "session.ttl=3 says" in warned[0]
