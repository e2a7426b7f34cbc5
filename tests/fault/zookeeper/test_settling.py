"""A commit that hangs on its way, and a settling that overtakes it: it never arrives late.

The proxy holds its bytes back while the client goes on, by another connection, to the same server
or to another one, or with another ZooKeeper session altogether; then they arrive.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from distjob.backend.world import now
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Settled
from distjob.testing.contract import committed, try_until
from distjob.testing.contract.helpers import PATIENCE
from proxy import Proxy
from servers import ZookeeperCluster, wait_for
from zookeeper_stores import TTL, Open, kazoo_of, source_of

if TYPE_CHECKING:
    from distjob.backend.opened import Blocking


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@contextmanager
def hanging(store: Blocking, proxy: Proxy, me: str) -> Iterator[None]:
    """A commit is on its way, and arrives when this ends; its caller has given it up."""
    proxy.stall()
    with pytest.raises(BackendUnavailable) as caught:
        store.commit("vm", ABSENT, b"late", me, ())
    assert caught.value.unanswered
    yield
    proxy.flow()


def stays_so(store: Blocking, value: bytes | None) -> None:
    """What was held back has reached the server by now, and changed nothing."""
    for _ in range(20):
        assert store.read("vm").value == value
        threading.Event().wait(0.05)


def test_a_commit_that_was_sent_before_is_refused_after(
    proxy: Proxy, through: str, opened: Open, pool: ThreadPoolExecutor
) -> None:
    """On one connection, the settling first: the commit names how often it was settled before."""
    store = opened(through, PATIENCE, timeout=PATIENCE)
    me = store.open_session(PATIENCE, "me")
    under_way = kazoo_of(store)._pending
    proxy.stall()
    settling = pool.submit(store.settle, me)
    wait_for(lambda: len(under_way) == 1, "the settling sent")
    commits = [
        pool.submit(store.commit, "vm", expected, b"x", me, ()) for expected in (ABSENT, ABSENT)
    ]
    wait_for(lambda: len(under_way) == 3, "the commits sent")
    proxy.flow()
    settling.result(PATIENCE)
    assert [commit.result(PATIENCE) for commit in commits] == [Settled(), Settled()]
    assert store.read("vm").version == ABSENT
    assert isinstance(store.commit("vm", ABSENT, b"x", me, ()), Committed)


def test_a_settling_whose_reply_was_lost(proxy: Proxy, through: str, opened: Open) -> None:
    """Commits are told so until they know how often it was settled: once."""
    store = opened(through)
    me = store.open_session(TTL, "me")
    proxy.drop_next_reply(b"/session/")
    with pytest.raises(BackendUnavailable):
        store.settle(me)
    assert try_until(lambda: store.keep_alive(me))
    assert store.commit("vm", ABSENT, b"x", me, ()) == Settled()
    assert isinstance(store.commit("vm", ABSENT, b"x", me, ()), Committed)


def test_the_client_goes_on_by_another_connection(
    proxy: Proxy, through: str, hosts: str, opened: Open
) -> None:
    """To the same server, which lets go of the old connection."""
    store = opened(through, timeout=0.5)
    me = store.open_session(TTL, "me")
    kazoo_of(store).set_hosts(hosts)
    with hanging(store, proxy, me):
        try_until(lambda: store.settle(me))
        version = committed(store, "other", b"x", me)
    stays_so(store, None)
    assert store.read("other").version == version


def test_the_client_goes_on_by_another_server(
    zookeeper_cluster: ZookeeperCluster, opened: Open
) -> None:
    """The old one still has the connection, and passes on what comes by it."""
    first, *others = zookeeper_cluster.nodes
    with Proxy((first.host, first.port)) as proxy:
        store = opened(f"127.0.0.1:{proxy.port}", timeout=0.5)
        me = store.open_session(TTL, "me")
        kazoo_of(store).set_hosts(",".join(node.hosts for node in others))
        with hanging(store, proxy, me):
            try_until(lambda: store.settle(me))
            version = committed(store, "other", b"x", me)
        stays_so(store, None)
        assert store.read("other").version == version
        assert store.keep_alive(me)


@pytest.mark.parametrize("then", ["settles", "opens the next session", "does nothing"])
def test_the_client_goes_on_with_another_zookeeper_session(
    zookeeper_cluster: ZookeeperCluster, opened: Open, then: str
) -> None:
    """It gave its own session up. ZooKeeper knows of no order between that one and the next."""
    ttl = 3.0
    first, *others = zookeeper_cluster.nodes
    elsewhere = ",".join(node.hosts for node in others)
    looker = opened(elsewhere)
    with Proxy((first.host, first.port)) as proxy:
        store = opened(f"127.0.0.1:{proxy.port}", ttl, timeout=0.5)
        me = store.open_session(ttl, "me")
        connection = source_of(store).connection
        made = connection._made

        def made_for_elsewhere() -> Any:
            client = made()
            client.set_hosts(elsewhere)
            return client

        with hanging(store, proxy, me):
            wait_for(lambda: not connection.connected, "the silent server was left")
            connection._made = made_for_elsewhere
            now(connection.replace())
            assert looker.remaining([me])[me] > 0, "the servers keep the old one yet"
            if then == "settles":
                store.settle(me)
            elif then == "opens the next session":
                store.open_session(ttl, "again")
        if then == "does nothing":  # what would happen
            wait_for(lambda: looker.read("vm").value == b"late", "the late commit applied")
        else:
            stays_so(looker, None)
