"""The client on every kind of server: restarted, failed over, and with its session ended there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from kazoo.client import KazooClient

from distjob import Client, Job, LeaseLost, clock
from distjob.config import load, open_backend
from stores import REAL, settings_of

TTL = 4.0
PATIENCE = 60.0
NETWORK = [kind for kind in REAL if kind != "sqlite"]
SERVERS = {"redis": "redis_server", "etcd": "etcd_server", "zookeeper": "zookeeper_server"}


@pytest.fixture(params=NETWORK)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def settings(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, fresh_namespace: str
) -> Any:
    return load(settings_of(kind, request, tmp_path, fresh_namespace))


@pytest.fixture
def make(settings: Any) -> Iterator[Callable[[str], Client]]:
    made: list[Client] = []

    def make(name: str) -> Client:
        made.append(Client(open_backend(settings), controller=name, ttl=TTL))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline, pause = clock.monotonic() + seconds, threading.Event()
    while not condition():
        assert clock.monotonic() < deadline, "it did not come about"
        pause.wait(0.02)


def restart(kind: str, request: pytest.FixtureRequest) -> None:
    """Kill the server and start it again; of several the one that leads: another takes over."""
    if kind in SERVERS:
        server = request.getfixturevalue(SERVERS[kind])
        server.kill()
        server.start()
        return
    request.getfixturevalue(kind.replace("-", "_")).fail_over()


def test_servers_that_restart_while_jobs_are_held_and_waited_for(
    kind: str, request: pytest.FixtureRequest, make: Callable[[str], Client], pool: Any
) -> None:
    """Who held goes on or is told of the loss, who waited is let in, and nothing is left."""
    a, b = make("a"), make("b")
    lease = a.begin("vm", Job.MODIFY)
    call = pool.submit(b.begin, "vm", Job.MODIFY, wait=PATIENCE)
    until(lambda: len(a.status("vm").waiters) == 1)
    restart(kind, request)
    try:
        lease.end()
        kept = True
    except LeaseLost:
        kept = False
    with call.result(PATIENCE) as won:
        assert won.token > lease.token
        won.check()
    assert lease.ended if kept else lease.lost
    with a.begin("vm", Job.MODIFY, wait=PATIENCE) as again:
        assert again.token > won.token
    until(lambda: a.list() == [])


def end_session(settings: Any, request: pytest.FixtureRequest, kind: str, session: str) -> None:
    """By the means of the server, from outside."""
    namespace = settings.namespace
    if settings.backend == "redis":
        group: Any = request.getfixturevalue(
            kind.replace("-", "_") if "-" in kind else SERVERS[kind]
        )
        nodes = [group.primary()] if hasattr(group, "primary") else getattr(group, "nodes", [group])
        for node in nodes:
            with redis.Redis(host=node.host, port=node.port) as server:
                if server.info("replication")["role"] != "master":
                    continue
                for key in server.scan_iter(f"distjob:{{{namespace}*session:{session}*"):
                    assert server.delete(key)
    elif settings.backend == "etcd":
        group = request.getfixturevalue("etcd_cluster" if "-" in kind else "etcd_server")
        node = group.leader() if "-" in kind else group
        lease = session.split(".")[1]
        assert "revoked" in node.cli("lease", "revoke", lease)
    else:
        client = KazooClient(hosts=settings.section.hosts)
        client.start()
        client.delete(f"/distjob/{namespace}/session/{session}")
        client.stop()
        client.close()


def test_a_session_that_is_ended_at_the_server(
    kind: str,
    settings: Any,
    request: pytest.FixtureRequest,
    make: Callable[[str], Client],
    pool: Any,
) -> None:
    a, b = make("a"), make("b")
    lease = a.begin("vm", Job.MODIFY)
    lost = threading.Event()
    lease.on_lost(lost.set)
    call = pool.submit(b.begin, "vm", Job.MODIFY, wait=PATIENCE)
    until(lambda: len(a.status("vm").waiters) == 1)
    [holder] = b.status("vm").holders
    end_session(settings, request, kind, holder.session)
    ended = clock.monotonic()
    assert lost.wait(TTL), "the holder was not told within its TTL"
    assert lease.lost
    with pytest.raises(LeaseLost, match="'vm'"):
        lease.end()
    with call.result(PATIENCE) as won:
        assert clock.monotonic() - ended < TTL + 2
        assert won.token > lease.token
    with a.begin("vm", Job.MODIFY, wait=PATIENCE):
        assert [one.controller for one in b.status("vm").holders] == ["a"]
    assert a.list() == []
