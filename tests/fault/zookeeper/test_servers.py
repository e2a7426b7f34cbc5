"""Servers that die, hang, and are not enough; a holder that is killed; a process that forks."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kazoo.exceptions import AuthFailedError
from kazoo.protocol.states import KeeperState

from distjob import Client, Job, clock
from distjob.errors import BackendUnavailable
from distjob.store import Committed, Versioned
from distjob.testing.contract import committed, receive_woken, try_until
from distjob.testing.contract.helpers import PATIENCE
from proxy import Proxy
from servers import ZookeeperCluster, ZookeeperNode, wait_for
from zookeeper_stores import TTL, Open, kazoo_of, source_of

_HOLD = """
import json, sys
from distjob import Client, Job
from distjob.config import load, open_backend
settings = load(json.loads(sys.argv[1]))
jobs = Client(open_backend(settings), controller="holder", ttl=settings.session.ttl)
lease = jobs.begin("vm", Job.MODIFY)
print("held", flush=True)
sys.stdin.read()
"""


def address(store: Any) -> str:
    """Of the server that a store is connected to."""
    host, port = source_of(store).connection.sockets.wire.getpeername()[:2]
    return f"{host}:{port}"


# -- the holder dies ------------------------------------------------------------------------------


def test_a_holder_that_is_killed_is_succeeded_within_the_ttl_and_a_second(
    zookeeper_cluster: ZookeeperCluster, opened: Open, fresh_namespace: str
) -> None:
    """Also where the servers would keep its ZooKeeper session for twice as long."""
    ttl = 3.0
    settings = {
        "namespace": fresh_namespace,
        "backend": "zookeeper",
        "zookeeper": {"hosts": zookeeper_cluster.hosts},
        "session": {"ttl": ttl},
    }
    with (
        Client(opened(zookeeper_cluster.hosts, ttl), ttl=ttl) as jobs,
        ThreadPoolExecutor(1) as pool,
        subprocess.Popen(
            [sys.executable, "-c", _HOLD, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waiting = pool.submit(jobs.begin, "vm", Job.MODIFY, wait=PATIENCE)
        wait_for(lambda: jobs.status("vm").waiters, "somebody in line")
        threading.Event().wait(ttl / 2)  # it has renewed since
        holder.kill()
        died = clock.monotonic()
        lease = waiting.result()
        took = clock.monotonic() - died
        assert 0.5 * ttl < took < ttl + jobs.guarantees.grace
        lease.end()


# -- servers --------------------------------------------------------------------------------------


def test_a_restart_keeps_sessions_and_values(zookeeper_server: ZookeeperNode, opened: Open) -> None:
    store = opened(zookeeper_server.hosts)
    me = store.open_session(30.0, "me")
    version = committed(store, "vm", b"x", me)
    zookeeper_server.kill()
    zookeeper_server.start()
    assert try_until(lambda: store.keep_alive(me))
    assert store.read("vm") == Versioned(version=version, value=b"x")
    assert isinstance(store.commit("vm", version, b"y", me, (me,)), Committed)


def test_the_leader_dies_while_jobs_are_held(
    zookeeper_cluster: ZookeeperCluster, opened: Open
) -> None:
    stores = [opened(zookeeper_cluster.hosts) for _ in range(3)]
    sessions = [store.open_session(30.0, "me") for store in stores]
    versions = [committed(store, f"vm-{n}", b"x", sessions[n]) for n, store in enumerate(stores)]
    zookeeper_cluster.leader().kill()
    for number, store in enumerate(stores):
        me = sessions[number]
        assert try_until(lambda store=store, me=me: store.keep_alive(me))
        reply = try_until(
            lambda store=store, me=me, n=number: store.commit(
                f"vm-{n}", versions[n], b"y", me, (me,)
            )
        )
        assert isinstance(reply, Committed)
        assert reply.version > max(versions)
        receive_woken(store, me, reply.version)


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_session_moves_to_another_server(
    zookeeper_cluster: ZookeeperCluster, opened: Open, how: str
) -> None:
    """In time for the lease, whether its server dies or hangs."""
    store, other = (opened(zookeeper_cluster.hosts, timeout=1.0) for _ in range(2))
    me, you = store.open_session(TTL, "me"), other.open_session(30.0, "you")
    version = committed(store, "vm", b"x", me)
    before = address(store)
    getattr(next(node for node in zookeeper_cluster.nodes if node.address == before), how)()
    hung = clock.monotonic()
    assert try_until(lambda: store.keep_alive(me))
    assert clock.monotonic() - hung < 0.9 * TTL
    assert address(store) != before
    assert try_until(lambda: other.remaining([me]))[me] > 0
    last = try_until(lambda: committed(other, "vm", b"y", you, me))
    assert last > version
    assert try_until(lambda: receive_woken(store, me, last))[-1].value == b"y"


def test_without_a_majority_nothing_is_granted_renewed_nor_believed(
    zookeeper_cluster: ZookeeperCluster, opened: Open
) -> None:
    """A leader goes on answering reads for a while after the last follower was heard of."""
    leader = zookeeper_cluster.leader()
    store = opened(leader.hosts, timeout=0.5)
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me)
    client = kazoo_of(store)
    for node in zookeeper_cluster.nodes:
        if node is not leader:
            node.pause()
    assert client.exists("/distjob"), "it answers"
    with pytest.raises(BackendUnavailable):
        store.remaining(["it says that it does not know this one"])
    with pytest.raises(BackendUnavailable):
        store.keep_alive(me)
    with pytest.raises(BackendUnavailable):
        store.commit("vm", version, b"y", me, ())


# -- clients --------------------------------------------------------------------------------------


def test_what_kazoo_gives_up_is_started_again(
    zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    """A login that is cut short is, to kazoo, a wrong password: it never connects again."""
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
    client = kazoo_of(store)

    def refuse(*_: object, **__: object) -> None:
        raise AuthFailedError

    client.handler.create_connection = refuse
    source_of(store).connection.cut()
    wait_for(lambda: client.client_state == KeeperState.CLOSED, "kazoo gave up")
    assert not store.keep_alive(me)
    again = try_until(lambda: store.open_session(TTL, "me"))
    assert store.keep_alive(again)
    assert kazoo_of(store) is not client


def test_no_noise(
    proxy: Proxy, through: str, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        store = opened(through)
        proxy.cut()
        try_until(lambda: store.read("vm"))
        store.close()
    assert caplog.records == []
