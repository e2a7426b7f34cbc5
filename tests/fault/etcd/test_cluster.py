"""The etcd store on three members that are killed, paused, cut off, or led by another."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Ended, Store, Woken
from distjob_etcd import EtcdSettings, backend
from distjob_etcd.client.members import KEEP_ALIVE
from distjob_etcd.layout import lease_of
from on_etcd import failed, opened, received, source_of
from servers import EtcdCluster, EtcdNode, wait_for

TTL = 30.0
TIMEOUT = 1.0
Connect = Callable[..., Store]


@pytest.fixture(autouse=True)
def _in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The members are asked in the order in which a test names them."""
    monkeypatch.setattr("distjob_etcd.client.members.shuffled", list)


@pytest.fixture
def connect(etcd_cluster: EtcdCluster, fresh_namespace: str) -> Iterator[Connect]:
    with contextlib.ExitStack() as closing:

        def connect(
            nodes: Sequence[EtcdNode] = etcd_cluster.nodes, timeout: float = TIMEOUT
        ) -> Store:
            chosen = EtcdSettings(endpoints=tuple(node.address for node in nodes), timeout=timeout)
            store = tried(lambda: opened(chosen, fresh_namespace, TTL))
            closing.callback(store.close)
            return store

        yield connect


def tried(call: Callable[[], Any]) -> Any:
    """What ``call`` returns when the cluster can be reached again."""
    until, pause = clock.monotonic() + 20.0, threading.Event()
    while True:
        try:
            return call()
        except BackendUnavailable:
            assert clock.monotonic() < until
            pause.wait(0.05)


def others(cluster: EtcdCluster, *without: EtcdNode) -> list[EtcdNode]:
    return [node for node in cluster.nodes if node not in without]


def test_guarantees_of_a_cluster(connect: Connect) -> None:
    store = connect()
    assert store.guarantees.failover == "quorum"
    assert store.guarantees.shortest_ttl <= 2.0
    found = list(backend.examine(store)) if backend.examine else []
    assert any("3 members" in finding.what for finding in found if finding.level == "ok")


def test_a_member_that_is_down_is_left_at_once(connect: Connect, etcd_cluster: EtcdCluster) -> None:
    """Nothing is unanswered: what was never sent goes to the next member."""
    leader = etcd_cluster.leader()
    down = others(etcd_cluster, leader)[0]
    store = connect([down, *others(etcd_cluster, down)])
    me = store.open_session(TTL, "me")
    assert source_of(store).cluster.name == down.address
    down.kill()
    failed_once = 0
    for number in range(5):
        try:
            reply = store.commit(f"vm-{number}", ABSENT, b"x", me, ())
        except BackendUnavailable:  # sent into a connection that had just ended
            failed_once += 1
        else:
            assert isinstance(reply, Committed)
    assert failed_once <= 1
    assert source_of(store).cluster.name != down.address
    newcomer = connect([down, *others(etcd_cluster, down)])
    assert isinstance(newcomer.commit("vm", ABSENT, b"x", me, ()), Committed)


def test_a_wait_goes_on_at_another_member(connect: Connect, etcd_cluster: EtcdCluster) -> None:
    leader = etcd_cluster.leader()
    first = others(etcd_cluster, leader)[0]
    store, direct = connect([first, *others(etcd_cluster, first)]), connect([leader])
    me, other = store.open_session(TTL, "me"), direct.open_session(TTL, "other")
    assert store.remaining([other])[other] > 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(received, store, me, Ended(other))
        for number in range(20):
            reply = direct.commit(f"vm-{number}", ABSENT, b"x", other, (me,))
            assert isinstance(reply, Committed)
            if number == 10:
                first.kill()
        direct.close_session(other)
        events = waiting.result(30.0)
    last = Woken("vm-19", reply.version, b"x")
    if last not in events:  # of another watch: in any order
        events += received(store, me, last)
    assert [event.vm for event in events if isinstance(event, Woken)] == [
        f"vm-{number}" for number in range(20)
    ]


def test_a_paused_member_costs_one_answer(connect: Connect, etcd_cluster: EtcdCluster) -> None:
    leader = etcd_cluster.leader()
    first = others(etcd_cluster, leader)[0]
    store = connect([first, *others(etcd_cluster, first)])
    me = store.open_session(TTL, "me")
    first.pause()
    begun = clock.monotonic()
    error = failed(lambda: store.commit("vm", ABSENT, b"x", me, ()))
    assert error.unanswered
    assert TIMEOUT * 0.8 < clock.monotonic() - begun < TIMEOUT + 1.0
    begun = clock.monotonic()
    reply = store.commit("vm", ABSENT, b"y", me, (me,))
    assert isinstance(reply, Committed)
    assert received(store, me, Woken("vm", reply.version, b"y"))
    assert clock.monotonic() - begun < 2.0


def test_a_paused_member_costs_a_read_less_than_its_timeout(
    connect: Connect, etcd_cluster: EtcdCluster
) -> None:
    leader = etcd_cluster.leader()
    first = others(etcd_cluster, leader)[0]
    store = connect([first, *others(etcd_cluster, first)], timeout=3.0)
    me = store.open_session(TTL, "me")
    first.pause()
    begun = clock.monotonic()
    assert store.keep_alive(me)
    assert store.read("vm").value is None
    assert clock.monotonic() - begun < 2.5
    newcomer = connect([first, *others(etcd_cluster, first)], timeout=3.0)
    assert isinstance(newcomer.commit("vm", ABSENT, b"x", me, ()), Committed)


def test_the_leader_is_killed(connect: Connect, etcd_cluster: EtcdCluster) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    version = store.commit("vm", ABSENT, b"one", me, (me,)).version  # type: ignore[union-attr]
    etcd_cluster.leader().kill()
    assert tried(lambda: store.keep_alive(me))
    found = tried(lambda: store.read("vm"))
    assert found.version == version
    reply = tried(lambda: store.commit("vm", version, b"two", me, (me,)))
    assert isinstance(reply, Committed)
    assert Woken("vm", version, b"one") in received(store, me, Woken("vm", reply.version, b"two"))


def test_leaders_come_and_go(connect: Connect, etcd_cluster: EtcdCluster) -> None:
    """The session is renewed through it, and every commit that was told is there."""
    store = connect()
    me = store.open_session(TTL, "me")
    told = 0
    for _ in range(3):
        etcd_cluster.fail_over()
        assert tried(lambda: store.keep_alive(me))
        reply = tried(lambda: store.commit("vm", store.read("vm").version, b"x", me, (me,)))
        assert isinstance(reply, Committed)
        assert reply.version > told
        told = reply.version
    assert store.read("vm").version == told
    assert received(store, me, Woken("vm", told, b"x"))


def test_without_a_majority_nothing_is_done_and_in_time(
    connect: Connect, etcd_cluster: EtcdCluster
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    for node in others(etcd_cluster, etcd_cluster.leader()):
        node.kill()
    for verb in (
        lambda: store.read("vm"),
        lambda: store.commit("vm", ABSENT, b"x", me, ()),
        lambda: store.keep_alive(me),
        lambda: store.remaining([me]),
        lambda: store.open_session(TTL, "me"),
    ):
        begun = clock.monotonic()
        failed(verb)
        assert clock.monotonic() - begun < 2 * TIMEOUT + 0.5
    assert backend.examine is not None
    found = [finding.what for finding in backend.examine(store) if finding.level != "ok"]
    assert any("does not answer" in what for what in found)


def test_a_leader_that_slept_renews_nothing(connect: Connect, etcd_cluster: EtcdCluster) -> None:
    """Its clock stood still: it takes the lease for living, but the others have ended it."""
    sleeper = etcd_cluster.leader()
    store = connect([sleeper], timeout=20.0)
    awake = connect(others(etcd_cluster, sleeper))
    me = store.open_session(2.0, "me")
    with ThreadPoolExecutor(1) as pool:
        sleeper.pause()
        renewing = pool.submit(store.keep_alive, me)
        wait_for(lambda: tried(lambda: awake.remaining([me])) == {me: 0.0}, "the session to end")
        sleeper.resume()
        try:
            renewed = renewing.result(30.0)
        except BackendUnavailable:
            renewed = False
    assert not renewed


def test_a_leader_that_slept_renews_no_living_session(
    connect: Connect, etcd_cluster: EtcdCluster
) -> None:
    """A renewal that only an old leader knows of does not count: the new one is asked, too."""
    sleeper = etcd_cluster.leader()
    store = connect([sleeper], timeout=20.0)
    awake = connect(others(etcd_cluster, sleeper))
    me = store.open_session(60.0, "me")

    def left(node: EtcdNode) -> int:
        lease = json.loads(node.cli("lease", "timetolive", f"{lease_of(me):x}", "-w", "json"))
        return int(lease["ttl"])

    with ThreadPoolExecutor(1) as pool:
        sleeper.pause()
        renewing = pool.submit(store.keep_alive, me)
        tried(lambda: awake.read("vm"))
        new = etcd_cluster.leader()  # who begins the TTL anew
        wait_for(lambda: left(new) <= 57, "some of it to pass")
        before = left(new)
        sleeper.resume()
        assert renewing.result(30.0)
    assert left(new) > before, "keep_alive said yes, and the leader does not know"


def test_a_leader_change_in_the_midst_of_a_renewal(
    connect: Connect, etcd_cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease may have been renewed by one who led no more: it is renewed again."""
    store = connect(timeout=10.0)
    me = store.open_session(TTL, "me")
    ask, renewals = source_of(store).cluster.ask, []

    async def changing(method: str, request: object, **how: object) -> object:
        answer = await ask(method, request, **how)  # type: ignore[arg-type]
        if method == KEEP_ALIVE:
            renewals.append(method)
            if len(renewals) <= changes:
                etcd_cluster.fail_over()
        return answer

    monkeypatch.setattr(source_of(store).cluster, "ask", changing)
    changes = 1
    assert store.keep_alive(me)
    assert len(renewals) == 2
    changes, renewals[:] = 99, []
    assert failed(lambda: store.keep_alive(me)).unanswered
    changes = 0
    assert store.keep_alive(me)


def test_a_member_that_was_cut_off_is_left(connect: Connect, etcd_cluster: EtcdCluster) -> None:
    leader = etcd_cluster.leader()
    first = others(etcd_cluster, leader)[0]
    store, direct = connect([first, *others(etcd_cluster, first)]), connect([leader])
    me = store.open_session(TTL, "me")
    assert list(store.receive(me, 0.0)) == []
    first.cut_off()
    assert tried(lambda: store.keep_alive(me))
    reply = direct.commit("vm", ABSENT, b"x", me, (me,))
    assert isinstance(reply, Committed)
    assert received(store, me, Woken("vm", reply.version, b"x"))
