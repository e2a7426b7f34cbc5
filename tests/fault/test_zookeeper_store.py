"""The ZooKeeper store when servers, connections and replies are lost, and what it costs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.states import KeeperState

from distjob import clock
from distjob.errors import BackendUnavailable, ConfigError, RecordError
from distjob.store import ABSENT, Committed, Ended, Gone, Missed, Stale, Versioned, Woken
from distjob.testing.contract import committed, receive_woken, try_until
from distjob.testing.contract.helpers import PATIENCE, Receiving
from distjob_zookeeper import ZookeeperSettings, backend
from distjob_zookeeper.layout import LARGEST, Layout
from distjob_zookeeper.store import ZookeeperStore
from proxy import Proxy
from servers import ZookeeperCluster, ZookeeperNode, wait_for

TTL = 10.0
Open = Callable[..., ZookeeperStore]


@pytest.fixture
def proxy(zookeeper_server: ZookeeperNode) -> Iterator[Proxy]:
    with Proxy((zookeeper_server.host, zookeeper_server.port)) as proxy:
        yield proxy


@pytest.fixture
def opened(fresh_namespace: str) -> Iterator[Open]:
    with ExitStack() as closing:

        def opened(hosts: str | int, ttl: float = TTL, **settings: object) -> ZookeeperStore:
            where = hosts if isinstance(hosts, str) else f"127.0.0.1:{hosts}"
            filled = ZookeeperSettings(hosts=where, **settings)  # type: ignore[arg-type]
            store = backend.connect(filled, fresh_namespace, ttl)
            assert isinstance(store, ZookeeperStore)
            closing.callback(store.close)
            return store

        yield opened


@pytest.fixture
def admin(zookeeper_server: ZookeeperNode) -> Iterator[KazooClient]:
    client = KazooClient(hosts=zookeeper_server.hosts)
    client.start()
    yield client
    client.stop()
    client.close()


def expire(store: ZookeeperStore, hosts: str) -> None:
    """End the store's ZooKeeper session as the server would: by another who has its password."""
    taker = KazooClient(hosts=hosts, client_id=store._connection.client.client_id)
    taker.start()
    taker.stop()
    taker.close()


# -- what it costs -------------------------------------------------------------------------------


def test_an_uncontended_commit_is_one_request(
    zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
    sent: list[int] = []
    client = store._connection.client
    send = client._call

    def counting(request: object, result: object) -> object:
        sent.append(1)
        return send(request, result)

    client._call = counting
    known = ABSENT
    for value in (b"one", b"two", None, b"three"):
        sent.clear()
        reply = store.commit("vm", known, value, me, ())
        assert isinstance(reply, Committed)
        # The first of a VM never seen guesses that it has no node, and looks in the same breath.
        assert len(sent) == (2 if value == b"one" else 1)
        known = reply.version if value is not None else ABSENT
    woken = opened(zookeeper_server.hosts)
    you = woken.open_session(TTL, "you")
    known = committed(store, "vm", b"four", me, you)
    receive_woken(woken, you, known)
    sent.clear()
    woken._connection.client._call, send = counting, woken._connection.client._call
    assert isinstance(woken.commit("vm", known, None, you, ()), Committed)
    assert len(sent) == 1, "the wake-up told all that a commit needs"


# -- lost replies and connections ----------------------------------------------------------------


@pytest.mark.parametrize("applied", [True, False])
def test_a_change_whose_reply_was_lost(proxy: Proxy, opened: Open, applied: bool) -> None:
    store = opened(proxy.port)
    me = store.open_session(TTL, "me")
    first = committed(store, "vm", b"one", me)
    (proxy.drop_next_reply if applied else proxy.drop_next_request)(b"two")
    with pytest.raises(BackendUnavailable) as caught:
        store.commit("vm", first, b"two", me, ())
    assert caught.value.unanswered
    assert proxy.dropped.is_set()
    found = try_until(lambda: store.read("vm"))
    assert found.value == (b"two" if applied else b"one")
    assert store.keep_alive(me)
    reply = store.commit("vm", first, b"three", me, ())
    if applied:
        assert reply == Stale(version=found.version, value=b"two")
    else:
        assert isinstance(reply, Committed)


def test_a_lost_read_has_changed_nothing(proxy: Proxy, opened: Open) -> None:
    store = opened(proxy.port)
    proxy.drop_next_reply(b"/vm/lost")
    with pytest.raises(BackendUnavailable) as caught:
        store.read("lost")
    assert not caught.value.unanswered


def test_a_session_whose_opening_was_lost_leaves_no_node(
    proxy: Proxy, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    store = opened(proxy.port)
    folder = Layout(fresh_namespace).sessions
    proxy.drop_next_reply(b"lost owner")
    with pytest.raises(BackendUnavailable) as caught:
        store.open_session(TTL, "lost owner")
    assert caught.value.unanswered
    wait_for(lambda: not admin.get_children(folder), "the lost session's node deleted", TTL / 2)
    assert try_until(lambda: store.open_session(TTL, "next"))


def test_nothing_is_queued_while_there_is_no_connection(proxy: Proxy, opened: Open) -> None:
    store = opened(proxy.port)
    me = store.open_session(TTL, "me")
    receiving = Receiving(store, me, PATIENCE)
    proxy.refuse()
    with pytest.raises(BackendUnavailable, match="not connected"):
        receiving.result()
    begun = clock.monotonic()
    for call in (lambda: store.commit("vm", ABSENT, b"x", me, ()), lambda: store.keep_alive(me)):
        with pytest.raises(BackendUnavailable) as caught:
            call()
        assert not caught.value.unanswered
    assert clock.monotonic() - begun < 0.5
    proxy.accept()
    assert try_until(lambda: store.receive(me, 1.0)) == [Missed()]
    assert store.receive(me, 0.0) == []
    assert store.read("vm") == Versioned(version=ABSENT, value=None)
    version = committed(store, "vm", b"y", me, me)
    assert receive_woken(store, me, version)[-1] == Woken(vm="vm", version=version, value=b"y")


def test_a_wake_up_while_the_connection_was_lost_is_received(
    proxy: Proxy, zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    store, other = opened(proxy.port), opened(zookeeper_server.hosts)
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    proxy.refuse()
    version = committed(other, "vm", b"x", you, me)
    proxy.accept()
    events = try_until(lambda: store.receive(me, 1.0))
    assert events == [Missed(), Woken(vm="vm", version=version, value=b"x")]


def test_a_server_that_is_silent(proxy: Proxy, opened: Open) -> None:
    store = opened(proxy.port, timeout=0.3)
    me = store.open_session(TTL, "me")
    proxy.stall()
    begun = clock.monotonic()
    with pytest.raises(BackendUnavailable, match="within") as caught:
        store.commit("vm", ABSENT, b"x", me, ())
    assert caught.value.unanswered
    with pytest.raises(BackendUnavailable, match="within") as caught:
        store.read("vm")
    assert not caught.value.unanswered
    assert clock.monotonic() - begun < 2
    begun = clock.monotonic()
    store.close()
    assert clock.monotonic() - begun < 2, "closing waits for no answer"


def test_merged_wake_ups_are_missed(zookeeper_server: ZookeeperNode, opened: Open) -> None:
    store, other = opened(zookeeper_server.hosts), opened(zookeeper_server.hosts)
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    watcher_busy = threading.Event()
    store._connection.client.handler.callback_queue.put(lambda: watcher_busy.wait(PATIENCE))
    committed(other, "vm-1", b"x", you, me)
    last = committed(other, "vm-2", b"y", you, me)
    watcher_busy.set()
    events = store.receive(me, PATIENCE)
    assert events == [Missed(), Woken(vm="vm-2", version=last, value=b"y")]


# -- sessions ------------------------------------------------------------------------------------


def test_a_session_that_is_not_renewed_ends_although_kazoo_pings(
    zookeeper_server: ZookeeperNode, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    store, other = opened(zookeeper_server.hosts), opened(zookeeper_server.hosts)
    watching = other.open_session(TTL, "watching")
    session = store.open_session(0.5, "me")
    assert other.remaining([session]) == {session: 0.5}
    begun = clock.monotonic()
    receiving = Receiving(store, session, PATIENCE)
    assert other.receive(watching, PATIENCE) == [Ended(session=session)]
    assert 0.2 < clock.monotonic() - begun < 1.5
    assert receiving.result() == [Missed()]
    assert not store.keep_alive(session)
    assert store.commit("vm", ABSENT, b"x", session, ()) == Gone(sessions=frozenset({session}))
    assert admin.get_children(Layout(fresh_namespace).sessions) == [watching]


def test_a_session_that_could_not_be_renewed_ends_once_the_server_answers(
    proxy: Proxy, zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    """Its ZooKeeper session outlives it, so that only its own client can end it in time."""
    store, other = opened(proxy.port), opened(zookeeper_server.hosts)
    watching = other.open_session(TTL, "watching")
    session = store.open_session(0.5, "me")
    other.remaining([session])
    proxy.refuse()
    assert other.receive(watching, 1.0) == []
    proxy.accept()
    assert other.receive(watching, PATIENCE) == [Ended(session=session)]


def test_an_expired_session_is_a_lost_one(zookeeper_server: ZookeeperNode, opened: Open) -> None:
    """kazoo makes a new ZooKeeper session by itself, in which nothing of the old one lives."""
    store, other = opened(zookeeper_server.hosts), opened(zookeeper_server.hosts)
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    version = committed(store, "vm", b"x", me)
    assert other.remaining([me])[me] > 0
    receiving = Receiving(store, me, PATIENCE)
    expire(store, zookeeper_server.hosts)
    assert other.receive(you, PATIENCE) == [Ended(session=me)]
    with pytest.raises(BackendUnavailable):  # told of by SUSPENDED, before it is known
        receiving.result()
    assert not try_until(lambda: store.keep_alive(me))
    gone = Gone(sessions=frozenset({me}))
    assert try_until(lambda: store.commit("vm", version, b"y", me, ())) == gone
    assert other.commit("vm", version, b"y", you, (me,)) == gone
    again = try_until(lambda: store.open_session(TTL, "me"))
    assert isinstance(store.commit("vm", version, b"y", again, (again,)), Committed)
    assert store.receive(again, PATIENCE)


def test_a_suspension_shorter_than_the_ttl_is_no_loss(proxy: Proxy, opened: Open) -> None:
    store = opened(proxy.port)
    me = store.open_session(TTL, "me")
    proxy.cut()
    assert try_until(lambda: store.keep_alive(me))
    assert isinstance(store.commit("vm", ABSENT, b"x", me, (me,)), Committed)


def test_a_suspension_longer_than_the_timeout_is_a_loss(
    proxy: Proxy, zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    store, other = opened(proxy.port, 1.0), opened(zookeeper_server.hosts)
    me, you = store.open_session(1.0, "me"), other.open_session(TTL, "you")
    assert other.remaining([me])[me] > 0
    begun = clock.monotonic()
    proxy.refuse()
    assert other.receive(you, PATIENCE) == [Ended(session=me)]
    assert clock.monotonic() - begun > 1.0, "not before its TTL is over"
    proxy.accept()
    assert try_until(lambda: store.open_session(1.0, "again"))
    assert not store.keep_alive(me)


def test_a_renewal_after_a_long_silence_is_proven_twice(
    zookeeper_server: ZookeeperNode, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the leader has heard of us, the death of our server could end the session early."""
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
    now = clock.monotonic
    for later, proven in ((3.0, True), (8.5, False), (8.6, False), (11.1, True), (14.0, True)):
        monkeypatch.setattr(
            "distjob_zookeeper.keeping.monotonic", lambda later=later: now() + later
        )
        if proven:
            assert store.keep_alive(me)
        else:
            with pytest.raises(BackendUnavailable, match="once more"):
                store.keep_alive(me)


# -- idle VMs ------------------------------------------------------------------------------------


def test_forget_deletes_empty_nodes_only(
    zookeeper_server: ZookeeperNode, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
    for number in range(250):
        committed(store, f"vm-{number}", b"x", me)
        if number % 5:
            committed(store, f"vm-{number}", None, me)
    assert store.forget(["vm-1", "vm-0", "no such"]) == 1
    assert store.forget() == 199
    assert len(admin.get_children(Layout(fresh_namespace).vms)) == 50
    assert len(list(store.scan())) == 50
    for number in (0, 1, 2):
        committed(store, f"vm-{number}", b"y", me)
    assert store.forget() == 0


def test_a_version_from_before_forget_never_matches_again(
    zookeeper_server: ZookeeperNode, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    """The same data version, of another node of that name: only the epoch keeps them apart."""
    sleeper, other = opened(zookeeper_server.hosts), opened(zookeeper_server.hosts)
    me, you = sleeper.open_session(TTL, "me"), other.open_session(TTL, "you")
    path = Layout(fresh_namespace).vm("vm")

    def node() -> int:
        return int(admin.get(path)[1].version)

    committed(sleeper, "vm", b"x", me)
    committed(sleeper, "vm", None, me)
    knows = node()
    assert other.forget() == 1
    while (held := committed(other, "vm", b"held by another", you)) and node() < knows:
        pass
    assert node() == knows
    stale = Stale(version=held, value=b"held by another")
    assert sleeper.commit("vm", ABSENT, b"wrong grant", me, ()) == stale
    # What would have happened: the server itself sees no difference.
    assert admin.set(path, b"=wrong grant", version=knows).version == knows + 1


def test_a_commit_on_what_was_read_after_forget(
    zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    """What the sleeper remembers has a larger data version than what is there now."""
    sleeper, other = opened(zookeeper_server.hosts), opened(zookeeper_server.hosts)
    me, you = sleeper.open_session(TTL, "me"), other.open_session(TTL, "you")
    for value in (b"x", b"y", None):
        committed(sleeper, "vm", value, me)
    assert other.forget() == 1
    version = committed(other, "vm", b"z", you)
    assert sleeper.read("vm") == Versioned(version=version, value=b"z")
    assert isinstance(sleeper.commit("vm", version, None, me, ()), Committed)


def test_forget_while_others_begin_and_end(zookeeper_server: ZookeeperNode, opened: Open) -> None:
    stores = [opened(zookeeper_server.hosts) for _ in range(3)]
    cleaner, done, counts = opened(zookeeper_server.hosts), threading.Event(), [0, 0, 0]

    def work(number: int) -> None:
        store = stores[number]
        me = store.open_session(30.0, "worker")
        held = 0
        while held < 40:
            reply = store.commit("vm", ABSENT, b"%d" % number, me, ())
            if isinstance(reply, Committed):
                held += 1
                assert store.read("vm") == Versioned(version=reply.version, value=b"%d" % number)
                assert isinstance(store.commit("vm", reply.version, None, me, ()), Committed)
                counts[number] += 1

    def clean() -> None:
        while not done.is_set():
            cleaner.forget()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    cleaning = threading.Thread(target=clean)
    for thread in (*threads, cleaning):
        thread.start()
    for thread in threads:
        thread.join(60)
    done.set()
    cleaning.join(60)
    assert counts == [40, 40, 40]


def test_all_was_deleted_under_a_store(
    zookeeper_server: ZookeeperNode, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me)
    admin.delete(Layout(fresh_namespace).root, recursive=True)
    assert not store.keep_alive(me)
    assert store.commit("vm", version, b"y", me, ()) == Gone(sessions=frozenset({me}))
    again = store.open_session(TTL, "again")
    assert store.commit("vm", version, b"y", again, ()) == Stale(version=ABSENT, value=None)
    assert isinstance(store.commit("vm", ABSENT, b"y", again, ()), Committed)


# -- large and foreign ---------------------------------------------------------------------------


def test_wake_ups_of_many_leave_the_value_out(
    zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    store = opened(zookeeper_server.hosts)
    names = [store.open_session(TTL, "waits") for _ in range(40)]
    reply = store.commit("vm", ABSENT, b"x" * 60_000, names[0], names)
    assert isinstance(reply, Committed)
    for name in names:
        woken = [event for event in store.receive(name, PATIENCE) if isinstance(event, Woken)]
        assert woken == [Woken(vm="vm", version=reply.version, value=None)]
    with pytest.raises(RecordError, match="wake-ups"):
        store.commit("vm", reply.version, b"x" * LARGEST, names[0], names * 10 + ["z" * 90_000])
    assert store.keep_alive(names[0])


def test_what_others_wrote_is_no_record(
    zookeeper_server: ZookeeperNode, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
    admin.create(Layout(fresh_namespace).vm("vm"), b"theirs")
    for call in (lambda: store.read("vm"), lambda: store.commit("vm", ABSENT, b"x", me, ())):
        with pytest.raises(RecordError, match="'vm'"):
            call()


# -- letting go ----------------------------------------------------------------------------------


def test_close_ends_the_zookeeper_session_only_if_none_of_ours_is_left(
    zookeeper_server: ZookeeperNode, opened: Open, admin: KazooClient, fresh_namespace: str
) -> None:
    before = threading.active_count()
    folder = Layout(fresh_namespace).sessions
    store = opened(zookeeper_server.hosts)
    store.close_session(store.open_session(TTL, "me"))
    store.close()
    left = opened(zookeeper_server.hosts)
    name = left.open_session(TTL, "me")
    left.close()
    left.close()
    wait_for(lambda: threading.active_count() == before, "all threads ended", 2.0)
    assert admin.get_children(folder) == [name]
    with pytest.raises(BackendUnavailable, match="closed"):
        left.read("vm")


def test_a_client_of_the_users_is_left_alone(
    zookeeper_server: ZookeeperNode, fresh_namespace: str
) -> None:
    client = KazooClient(hosts=zookeeper_server.hosts, timeout=15.0)
    with pytest.raises(ConfigError, match=r"start\(\)"):
        ZookeeperStore(client, fresh_namespace, TTL)
    client.start()
    try:
        with pytest.raises(ConfigError, match=r"KazooClient\(timeout=30\)"):
            ZookeeperStore(client, fresh_namespace, 20.0)
        assert not client.state_listeners
        store = ZookeeperStore(client, fresh_namespace, TTL)
        session = store.open_session(0.5, "me")
        folder = Layout(fresh_namespace).sessions
        receiving = Receiving(store, session, PATIENCE)
        store.close()
        with pytest.raises(BackendUnavailable, match="closed"):
            receiving.result()
        assert client.get_children(folder) == [session]
        wait_for(lambda: not client.get_children(folder), "the session ended by its TTL", 5.0)
        wait_for(lambda: not client.state_listeners, "the client let go of", 5.0)
        assert client.connected
    finally:
        client.stop()
        client.close()


def test_a_client_that_the_user_stops(
    zookeeper_server: ZookeeperNode, fresh_namespace: str
) -> None:
    """Nobody can be asked any more, but its sessions are known to have ended."""
    client = KazooClient(hosts=zookeeper_server.hosts, timeout=15.0)
    client.start()
    store = ZookeeperStore(client, fresh_namespace, TTL)
    me = store.open_session(TTL, "me")
    receiving = Receiving(store, me, PATIENCE)
    client.stop()
    client.close()
    with pytest.raises(BackendUnavailable):
        receiving.result()
    assert not store.keep_alive(me)
    with pytest.raises(BackendUnavailable):
        store.open_session(TTL, "again")
    store.close()


def test_a_forked_child_gets_an_error_at_once(
    zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
    if (pid := os.fork()) == 0:
        refused = 0
        for call in (
            lambda: store.read("vm"),
            lambda: store.keep_alive(me),
            lambda: store.receive(me, 5.0),
            lambda: store.commit("vm", ABSENT, b"x", me, ()),
            lambda: store.open_session(TTL, "child"),
        ):
            try:
                call()
            except BackendUnavailable:
                refused += 1
        store.interrupt()
        store.close()
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert store.keep_alive(me), "the parent's connection is untouched"


def test_what_kazoo_gives_up_is_started_again(
    zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    """A login that is cut short is, to kazoo, a wrong password: it never connects again."""
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
    client = store._connection.client
    client._session_callback(KeeperState.AUTH_FAILED)
    client._connection._socket.shutdown(2)
    assert not store.keep_alive(me)
    again = try_until(lambda: store.open_session(TTL, "me"))
    assert store.keep_alive(again)


def test_no_noise(proxy: Proxy, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        store = opened(proxy.port)
        proxy.cut()
        try_until(lambda: store.read("vm"))
        store.close()
    assert caplog.records == []


# -- servers that die ----------------------------------------------------------------------------


def test_a_restart_keeps_sessions_and_values(zookeeper_server: ZookeeperNode, opened: Open) -> None:
    store = opened(zookeeper_server.hosts)
    me = store.open_session(TTL, "me")
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
    sessions = [store.open_session(TTL, "me") for store in stores]
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


def test_a_session_moves_to_another_server(
    zookeeper_cluster: ZookeeperCluster, opened: Open
) -> None:
    store, other = (opened(zookeeper_cluster.hosts) for _ in range(2))
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    version = committed(store, "vm", b"x", me)

    def at() -> str:
        host, port = store._connection.client._connection._socket.getpeername()[:2]
        return f"{host}:{port}"

    before = at()
    next(node for node in zookeeper_cluster.nodes if node.address == before).kill()
    assert try_until(lambda: store.keep_alive(me))
    assert at() != before
    assert try_until(lambda: other.remaining([me]))[me] > 0
    last = try_until(lambda: committed(other, "vm", b"y", you, me))
    assert last > version
    assert receive_woken(store, me, last)[-1].value == b"y"


def test_without_a_majority_nothing_is_granted_nor_renewed(
    zookeeper_cluster: ZookeeperCluster, opened: Open
) -> None:
    """A leader goes on answering reads for a while after the last follower was heard of."""
    leader = zookeeper_cluster.leader()
    store = opened(leader.hosts, timeout=0.5)
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me)
    for node in zookeeper_cluster.nodes:
        if node is not leader:
            node.pause()
    with pytest.raises(BackendUnavailable) as caught:
        store.keep_alive(me)
    assert caught.value.unanswered, "it was asked, as the connection still stood"
    with pytest.raises(BackendUnavailable):
        store.commit("vm", version, b"y", me, ())
