"""No commit arrives late: what was sent before its session was settled is applied, or never is.

A commit whose reply never came is held back on its way, and delivered much later, when its VM is
idle again, so that "absent" is expected and found.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from distjob.backend.world import now
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Gone, Settled, Store, Versioned
from distjob_etcd import EtcdSettings
from distjob_etcd.client.members import TXN
from distjob_etcd.commit import Commit
from on_etcd import TTL, failed, opened, opened_async, source_of
from proxy import Proxy
from servers import EtcdCluster, EtcdNode, wait_for

Connect = Callable[..., Store]
TIMEOUT = 0.5
HELD_BACK = 1.0
"""Seconds; what they are does not matter, as long as the commit has been given up."""


def number(node: EtcdNode, namespace: str, session: str) -> int:
    """What etcd itself says of it."""
    said = node.cli("get", f"distjob/{namespace}/owner/{session}", "-w", "fields")
    (found,) = [line for line in said.splitlines() if line.startswith('"Version"')]
    return int(found.rpartition(":")[2])


@pytest.fixture
def two_ways(connect: Connect, proxy: Proxy, etcd_server: EtcdNode) -> Store:
    """Two ways to the one server; the next commit goes by the proxy."""
    store = connect(proxy.address, etcd_server.address, timeout=TIMEOUT)
    by_proxy(store, proxy)
    return store


def by_proxy(store: Store, proxy: Proxy) -> None:
    """The proxy's is the member that answered last."""
    cluster = source_of(store).cluster
    names = [member.name for member in cluster.members]
    cluster._at = names.index(proxy.address)
    cluster.members[cluster._at].trusted = True


def hold_back(store: Store, proxy: Proxy, me: str) -> None:
    """Send a commit that is given up, and is on its way."""
    proxy.hold_next_request(holding=b"/vm/vm")
    assert failed(lambda: store.commit("vm", ABSENT, b"late", me, ())).unanswered
    assert proxy.holding.is_set()


def let_arrive(proxy: Proxy, node: EtcdNode) -> None:
    """Deliver it; return when etcd has answered it."""
    threading.Event().wait(HELD_BACK)
    before = applied(node)
    proxy.release()
    wait_for(lambda: applied(node) > before, "the late commit to be answered")


def applied(node: EtcdNode) -> int:
    """How many transactions etcd has carried out, also such that compared in vain."""
    return int(node.status()["raftAppliedIndex"])


def test_without_a_settling_a_commit_arrives_late(
    two_ways: Store, proxy: Proxy, etcd_server: EtcdNode
) -> None:
    """Else nothing below would show anything."""
    me = two_ways.open_session(60.0, "me")
    by_proxy(two_ways, proxy)
    hold_back(two_ways, proxy, me)
    assert two_ways.read("vm").value is None
    let_arrive(proxy, etcd_server)
    assert two_ways.read("vm").value == b"late"


def test_what_is_settled_never_arrives(
    two_ways: Store, proxy: Proxy, etcd_server: EtcdNode
) -> None:
    me = two_ways.open_session(60.0, "me")
    by_proxy(two_ways, proxy)
    hold_back(two_ways, proxy, me)
    two_ways.settle(me)
    assert two_ways.read("vm") == Versioned(version=ABSENT, value=None)
    let_arrive(proxy, etcd_server)
    assert two_ways.read("vm") == Versioned(version=ABSENT, value=None)
    assert isinstance(two_ways.commit("vm", ABSENT, b"next", me, ()), Committed)


def test_a_settling_whose_reply_was_lost_is_sent_again(
    two_ways: Store, proxy: Proxy, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    """Twice is the same as once."""
    me = two_ways.open_session(60.0, "me")
    for turn in range(1, 6):
        by_proxy(two_ways, proxy)
        proxy.drop_next_reply(to=b"/owner/")
        two_ways.settle(me)
        assert proxy.dropped.is_set()
        assert number(etcd_server, fresh_namespace, me) == turn + 1
        assert isinstance(two_ways.commit(f"vm-{turn}", ABSENT, b"x", me, ()), Committed)


def test_a_session_that_was_settled_is_renewed_and_ends(
    connect: Connect, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    """The key that settling writes stays on the session's lease, and keeps what people read."""
    store = connect()
    me = store.open_session(TTL, "ctl-a")
    for _ in range(3):
        store.settle(me)
    assert store.keep_alive(me)
    key = f"distjob/{fresh_namespace}/owner/{me}"
    assert etcd_server.cli("get", "--print-value-only", key).strip() == "ctl-a"
    assert number(etcd_server, fresh_namespace, me) == 4
    store.close_session(me)
    assert etcd_server.cli("get", "--prefix", f"distjob/{fresh_namespace}/owner/").strip() == ""


def test_who_does_not_know_of_a_settling_learns_it_from_the_answer(connect: Connect) -> None:
    """Another store that commits for the session; an ended author is told before that."""
    store, other = connect(), connect()
    me = store.open_session(TTL, "me")
    store.settle(me)
    assert other.commit("vm", ABSENT, b"x", me, ("no such session",)) == Settled()
    assert other.commit("vm", ABSENT, b"x", me, ("no such session",)) == Gone(
        frozenset({"no such session"})
    )
    assert isinstance(other.commit("vm", ABSENT, b"x", me, ()), Committed)
    other.settle(me)  # which raises it once more
    store.close_session(me)
    assert store.commit("vm", ABSENT, b"x", me, ()) == Gone(frozenset({me}))


def test_settlings_among_commits_on_asyncio(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    """Each commit is made, or said to be overtaken, and then made by sending it again."""

    async def steps() -> None:
        section = EtcdSettings(endpoints=(etcd_server.address,))
        store: Any = await opened_async(section, fresh_namespace)
        overtaken = 0

        async def commits(vm: str) -> None:
            nonlocal overtaken
            version = ABSENT
            for turn in range(30):
                reply = await store.commit(vm, version, b"%d" % turn, me, ())
                while isinstance(reply, Settled):
                    overtaken += 1
                    reply = await store.commit(vm, version, b"%d" % turn, me, ())
                assert isinstance(reply, Committed)
                version = reply.version
            assert (await store.read(vm)).value == b"29"

        async def settles() -> None:
            for _ in range(10):
                await store.settle(me)

        me = await store.open_session(60.0, "me")
        await asyncio.gather(settles(), settles(), *(commits(f"vm-{n}") for n in range(20)))
        assert overtaken
        await store.close()

    asyncio.run(steps())


# -- three members, and the one that has the commit stops -----------------------------------------


@pytest.fixture
def three(etcd_cluster: EtcdCluster, fresh_namespace: str) -> Iterator[Store]:
    section = EtcdSettings(endpoints=tuple(etcd_cluster.endpoints), timeout=1.0)
    store = opened(section, fresh_namespace, TTL)
    yield store
    store.close()


@pytest.mark.parametrize("whose", ["leader", "follower"])
def test_a_member_that_sleeps_with_a_commit_in_it(
    three: Store, etcd_cluster: EtcdCluster, whose: str
) -> None:
    """When it wakes up it goes on with what it had received."""
    leader = etcd_cluster.leader()
    sleeper = leader
    if whose == "follower":
        sleeper = next(node for node in etcd_cluster.nodes if node is not leader)
    cluster = source_of(three).cluster
    me = three.open_session(60.0, "me")
    for turn in range(3):
        vm = f"vm-{turn}"
        cluster._at = [member.name for member in cluster.members].index(sleeper.address)
        three.read(vm)  # by the sleeper, to which there is a connection then
        assert cluster.name == sleeper.address
        sleeper.pause()
        assert failed(partial(three.commit, vm, ABSENT, b"late", me, ())).unanswered
        wait_for(partial(is_settled, three, me), "the session to be settled by the other two")
        found = three.read(vm)
        sleeper.resume()
        etcd_cluster.wait_until_ready()
        threading.Event().wait(HELD_BACK)
        assert three.read(vm) == found


def is_settled(store: Store, session: str) -> bool:
    try:
        store.settle(session)
    except BackendUnavailable:
        return False
    return True


def test_what_a_late_commit_is_answered(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    """Overtaken, before anything else but an ended author."""
    section = EtcdSettings(endpoints=(etcd_server.address,))
    store = opened(section, fresh_namespace)
    source = source_of(store)
    me = store.open_session(TTL, "me")
    early = Commit(source._layout, "vm", 77, b"x", me, ())
    store.settle(me)
    answer = now(source.cluster.ask(TXN, early.request(), change=True))
    assert early.reply(answer) == Settled()
    store.close()
