"""The etcd store on a real server that is cut off, killed, compacted, or not to be used."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from distjob import clock
from distjob.errors import BackendUnavailable, ConfigError, DistjobError, RecordError
from distjob.store import ABSENT, Committed, Ended, Event, Gone, Missed, Stale, Woken
from distjob.testing.contract import try_until
from distjob_etcd import EtcdSettings, backend
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.layout import lease_of
from distjob_etcd.store import EtcdStore
from proxy import Proxy
from servers import EtcdNode, wait_for
from until import until

TTL = 10.0
Connect = Callable[..., EtcdStore]


@pytest.fixture
def proxy(etcd_server: EtcdNode) -> Iterator[Proxy]:
    with Proxy((etcd_server.host, etcd_server.port)) as proxy:
        yield proxy


@pytest.fixture
def connect(etcd_server: EtcdNode, fresh_namespace: str) -> Iterator[Connect]:
    with contextlib.ExitStack() as closing:

        def connect(
            address: str = etcd_server.address, ttl: float = TTL, timeout: float = 5.0
        ) -> EtcdStore:
            chosen = EtcdSettings(endpoints=(address,), timeout=timeout)
            store = backend.connect(chosen, fresh_namespace, ttl)
            assert isinstance(store, EtcdStore)
            closing.callback(store.close)
            return store

        yield connect


@pytest.fixture
def through(proxy: Proxy, connect: Connect) -> EtcdStore:
    return connect(f"127.0.0.1:{proxy.port}")


@pytest.fixture
def lease_list(etcd_server: EtcdNode) -> Callable[[], set[str]]:
    return lambda: set(re.findall(r"[0-9a-f]{14,16}", etcd_server.cli("lease", "list")))


def failed(verb: Callable[[], object]) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        verb()
    return caught.value


def commit_waking(store: EtcdStore, session: str, value: bytes = b"woken") -> int:
    """Write ``value`` to "vm" and wake ``session``; the new version."""
    reply = store.commit("vm", store.read("vm").version, value, session, (session,))
    assert isinstance(reply, Committed)
    return reply.version


def receive(store: EtcdStore, session: str, last: Event, patience: float = 20.0) -> list[Event]:
    """Events up to ``last``, whatever is raised meanwhile."""
    until = clock.monotonic() + patience
    events: list[Event] = []
    while last not in events:
        assert clock.monotonic() < until, events
        with contextlib.suppress(BackendUnavailable):
            events += store.receive(session, 1.0)
    return events


# -- replies that never come ------------------------------------------------------------------


def test_a_lost_reply_is_unanswered_and_applied_once(through: EtcdStore, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    for _ in range(5):  # etcd may give up a request with its connection, if that is cut early
        proxy.drop_next_reply(to=b"/vm/vm")
        assert failed(lambda: through.commit("vm", ABSENT, b"one", me, (me,))).unanswered
        assert proxy.dropped.is_set()
        if (found := through.read("vm")).value is not None:
            break
    assert found.value == b"one"
    assert through.commit("vm", ABSENT, b"two", me, ()) == Stale(found.version, b"one")
    events = receive(through, me, Woken("vm", found.version, b"one"))
    assert [event for event in events if isinstance(event, Woken)] == events[-1:]


def test_a_lost_request_is_unanswered_too(through: EtcdStore, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.drop_next_request(holding=b"/vm/vm")
    assert failed(lambda: through.commit("vm", ABSENT, b"one", me, ())).unanswered
    assert through.read("vm").value is None


def test_a_channel_that_retries_sends_no_commit_twice(proxy: Proxy, fresh_namespace: str) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        store = EtcdStore(channel, fresh_namespace, TTL, timeout=5.0)
        me = store.open_session(TTL, "me")
        first = store.commit("vm", ABSENT, b"one", me, ())
        assert isinstance(first, Committed)
        for _ in range(5):
            proxy.drop_next_reply(to=b"/vm/vm")
            assert failed(lambda: store.commit("vm", first.version, b"two", me, ())).unanswered
            if (second := store.read("vm")).version != first.version:
                break
        assert second.value == b"two"
        assert second.version == first.version + 1
        store.close()


def test_nobody_there_is_not_unanswered(through: EtcdStore, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.refuse()
    failed(lambda: through.read("vm"))  # the connection was cut under it, perhaps
    for verb in (
        lambda: through.commit("vm", ABSENT, b"one", me, ()),
        lambda: through.keep_alive(me),
        lambda: through.close_session(me),
        lambda: through.open_session(TTL, "me"),
        lambda: through.remaining([me]),
    ):
        assert not failed(verb).unanswered
    proxy.accept()


@pytest.mark.parametrize("verb", ["grant", "enter", "keep_alive", "close_session"])
def test_session_verbs_say_that_they_are_unanswered(
    through: EtcdStore, proxy: Proxy, verb: str
) -> None:
    me = through.open_session(TTL, "me")
    renewal = rpc.LeaseKeepAliveRequest(ID=lease_of(me)).SerializeToString()
    grant = rpc.LeaseGrantRequest(TTL=3456).SerializeToString()
    calls: dict[str, tuple[bytes, Callable[[], object]]] = {
        "grant": (grant, lambda: through.open_session(3456.0, "me")),
        "enter": (b"/owner/", lambda: through.open_session(TTL, "me")),
        "keep_alive": (renewal, lambda: through.keep_alive(me)),
        "close_session": (renewal, lambda: through.close_session(me)),
    }
    holding, call = calls[verb]
    proxy.drop_next_reply(to=holding)
    assert failed(call).unanswered
    assert proxy.dropped.is_set()
    alive = try_until(lambda: through.keep_alive(me))  # on a new connection
    assert alive or verb == "close_session"  # which etcd may have given up with the connection


@pytest.mark.parametrize("holding", [b"/owner/", b"\x08\x02\x10"])
def test_a_session_whose_reply_was_lost_leaves_nothing(
    connect: Connect,
    proxy: Proxy,
    etcd_server: EtcdNode,
    lease_list: Callable[[], set[str]],
    holding: bytes,
) -> None:
    store = connect(f"127.0.0.1:{proxy.port}")
    before, granted = lease_list(), leases_granted(etcd_server)
    proxy.swallow_replies(to=holding)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(store.open_session, 2.0, "me")
        assert proxy.dropped.wait(10.0)
        wait_for(lambda: leases_granted(etcd_server) == granted + 1, "a lease")
        proxy.cut()
        assert failed(opening.result).unanswered
    wait_for(lambda: lease_list() <= before, "the lease to end")


def leases_granted(server: EtcdNode) -> int:
    """How many it has ever granted."""
    with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10) as page:
        found = re.search(r"(?m)^etcd_debugging_lease_granted_total (\S+)$", page.read().decode())
    assert found
    return round(float(found[1]))


# -- wake-ups ---------------------------------------------------------------------------------


def test_a_watch_that_is_cut_goes_on_without_loss(
    through: EtcdStore, proxy: Proxy, connect: Connect
) -> None:
    direct = connect()
    me = through.open_session(TTL, "me")
    other = direct.open_session(TTL, "other")
    assert through.remaining([other])[other] > 0
    for turn in range(5):
        proxy.cut()
        version = commit_waking_from(direct, other, me, b"%d" % turn)
        assert list(through.receive(me, 10.0)) == [Woken("vm", version, b"%d" % turn)]
    proxy.cut()
    direct.close_session(other)
    assert list(through.receive(me, 10.0)) == [Ended(other)]


def commit_waking_from(store: EtcdStore, author: str, woken: str, value: bytes) -> int:
    reply = store.commit("vm", store.read("vm").version, value, author, (woken,))
    assert isinstance(reply, Committed)
    return reply.version


def test_missed_waits_until_it_works_again_and_nothing_is_lost(
    through: EtcdStore, proxy: Proxy, connect: Connect
) -> None:
    direct = connect()
    me = through.open_session(30.0, "me")
    proxy.refuse()
    for _ in range(2):
        failed(lambda: through.receive(me, 10.0))
    version = commit_waking(direct, me)
    proxy.accept()
    events = receive(through, me, Woken("vm", version, b"woken"))
    assert events == [Missed(), Woken("vm", version, b"woken")]


def test_history_that_was_compacted_is_missed(
    through: EtcdStore, proxy: Proxy, connect: Connect, etcd_server: EtcdNode
) -> None:
    direct = connect()
    me, other = through.open_session(30.0, "me"), direct.open_session(30.0, "other")
    assert through.remaining([other])[other] > 0
    assert list(through.receive(me, 0.0)) == []
    proxy.refuse()
    failed(lambda: through.receive(me, 10.0))
    commit_waking_from(direct, me, me, b"lost")
    direct.close_session(other)
    version = commit_waking_from(direct, me, me, b"lost too")
    last = commit_waking_from(direct, me, direct.open_session(TTL, "x"), b"last")
    assert last > version
    etcd_server.cli("compact", str(last))
    proxy.accept()
    events = receive(through, me, Ended(other))
    assert Missed() in events
    assert through.remaining([other]) == {other: 0.0}
    version = commit_waking_from(direct, me, me, b"again")
    assert receive(through, me, Woken("vm", version, b"again"))


def test_a_half_dead_connection_is_noticed(proxy: Proxy, connect: Connect) -> None:
    store, direct = connect(f"127.0.0.1:{proxy.port}", ttl=1.5, timeout=1.0), connect()
    me = store.open_session(60.0, "me")
    assert list(store.receive(me, 1.6)) == []  # silent, and asked meanwhile, but alive
    proxy.stall()
    begun = clock.monotonic()
    failed(lambda: store.receive(me, 30.0))
    assert clock.monotonic() - begun < 6.0
    version = commit_waking(direct, me)
    proxy.flow()
    assert Woken("vm", version, b"woken") in receive(store, me, Woken("vm", version, b"woken"))


def test_a_restart_while_waiting(etcd_server: EtcdNode, connect: Connect) -> None:
    store = connect(ttl=60.0)
    me = store.open_session(60.0, "me")
    first = commit_waking(store, me)
    assert list(store.receive(me, 5.0)) == [Woken("vm", first, b"woken")]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.receive, me, 30.0)
        etcd_server.kill()
        with pytest.raises(BackendUnavailable):
            waiting.result(20.0)
    etcd_server.start()
    second = commit_waking(store, me)
    assert receive(store, me, Woken("vm", second, b"woken")) == [
        Missed(),
        Woken("vm", second, b"woken"),
    ]
    assert store.keep_alive(me)


def test_close_ends_a_receive_under_way(connect: Connect) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    begun = threading.Event()

    def listen() -> object:
        begun.set()
        return store.receive(me, 60.0)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(listen)
        begun.wait()
        before = clock.monotonic()
        store.close()
        with pytest.raises(BackendUnavailable, match="closed"):
            waiting.result(10.0)
    assert clock.monotonic() - before < 5.0


def test_wake_ups_of_an_earlier_session_are_dropped(connect: Connect) -> None:
    store = connect()
    old = store.open_session(TTL, "me")
    commit_waking(store, old)
    new = store.open_session(TTL, "me")
    version = commit_waking(store, new)
    assert list(store.receive(new, 5.0)) == [Woken("vm", version, b"woken")]


@pytest.mark.parametrize(("size", "sent"), [(64 * 1024, True), (64 * 1024 + 1, False)])
def test_a_large_value_is_not_pushed(connect: Connect, size: int, sent: bool) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    value = b"x" * size
    version = commit_waking(store, me, value)
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, value if sent else None)]


def test_a_large_value_for_many_fits_into_one_request(connect: Connect) -> None:
    store = connect()
    sessions = [store.open_session(TTL, "x") for _ in range(100)]
    reply = store.commit("vm", ABSENT, b"x" * 1_000_000, sessions[0], sessions)
    assert isinstance(reply, Committed)
    reply = store.commit("vm", reply.version, b"y" * 64 * 1024, sessions[0], sessions)
    assert isinstance(reply, Committed)
    assert len(receive(store, sessions[7], Woken("vm", reply.version, None))) == 2


def test_many_large_wake_ups_come_in_pieces(
    proxy: Proxy, connect: Connect, fresh_namespace: str
) -> None:
    """More, after a cut, than a channel of the user's takes at once."""
    direct = connect()
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        store = EtcdStore(channel, fresh_namespace, TTL)
        me, other = store.open_session(60.0, "me"), direct.open_session(60.0, "other")
        proxy.refuse()
        version, value = ABSENT, b"x" * 60_000
        for _ in range(100):
            reply = direct.commit("vm", version, value, other, (me,))
            assert isinstance(reply, Committed)
            version = reply.version
        proxy.accept()
        events = receive(store, me, Woken("vm", version, value))
        assert len([event for event in events if isinstance(event, Woken)]) == 100
        store.close()


def test_a_session_that_was_woken_still_ends(connect: Connect) -> None:
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(1.0, "you")
    assert store.remaining([you]) == {you: 1.0}
    commit_waking_from(store, me, you, b"x")
    assert list(store.receive(me, 6.0)) == [Ended(you)]


def test_a_reader_that_died_is_told(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    version = commit_waking(store, me)
    assert receive(store, me, Woken("vm", version, b"woken"))

    def no_threads() -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(store.server, "watch", no_threads)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    store.verbs._watching._hang_up()
    error = failed(lambda: store.receive(me, 10.0))
    assert "died" in str(error)


def test_what_is_watched_does_not_pile_up(connect: Connect) -> None:
    store, other = connect(), connect()
    me = store.open_session(TTL, "me")
    for _ in range(30):
        session = other.open_session(TTL, "x")
        assert store.remaining([session, "no such"])[session] > 0
        other.close_session(session)
        assert list(store.receive(me, 5.0)) == [Ended(session)]
    watches = store.verbs._watching._watches
    assert watches._watched == set()
    assert len(watches._by_number) == 2


def test_a_server_that_has_lost_all_its_data(spawn_etcd: Callable[..., EtcdNode]) -> None:
    """It counts from the start again; a watch that went on from before would hear nothing."""
    node = spawn_etcd()
    with contextlib.closing(connected(node)) as store:
        me = store.open_session(60.0, "me")
        for _ in range(50):
            commit_waking(store, me)
        data = "/var/lib/etcd" if node.kind == "docker" else str(node.machine._folder)
        node.exec("rm", "-rf", f"{data}/data")
        node.kill()
        node.start()
        assert try_until(lambda: store.read("vm")).value is None
        assert not store.keep_alive(me)
        me, other = store.open_session(60.0, "me"), store.open_session(60.0, "other")
        events = receive(store, me, Missed())
        assert store.remaining([other])[other] > 0
        version = commit_waking(store, me)
        store.close_session(other)
        for last in (Ended(other), Woken("vm", version, b"woken")):  # of two watches: in any order
            if last not in events:
                events += receive(store, me, last)


# -- sessions that others end -------------------------------------------------------------------


def test_a_lease_revoked_by_hand(connect: Connect, etcd_server: EtcdNode) -> None:
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    assert store.remaining([you])[you] > 0
    etcd_server.cli("lease", "revoke", f"{lease_of(you):x}")
    assert list(store.receive(me, 5.0)) == [Ended(you)]
    assert not other.keep_alive(you)
    assert other.commit("vm", ABSENT, b"x", you, ()) == Gone(frozenset({you}))
    other.close_session(you)


def test_a_session_whose_key_was_deleted_is_not_renewed(
    connect: Connect, etcd_server: EtcdNode
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    etcd_server.cli("del", store.verbs._layout.session_key(me).decode())
    assert not store.keep_alive(me)
    assert store.remaining([me]) == {me: 0.0}
    assert store.commit("vm", ABSENT, b"x", me, ()) == Gone(frozenset({me}))


# -- what is in the store -----------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["a/b", "/", "a b/%", "\N{SNOWMAN}", "a/vm/x", "a%2Fb"])
def test_namespaces_are_kept_apart(etcd_server: EtcdNode, namespace: str) -> None:
    settings = EtcdSettings(endpoints=(etcd_server.address,))
    with contextlib.closing(backend.connect(settings, namespace, TTL)) as store:
        assert isinstance(store, EtcdStore)
        me = store.open_session(TTL, "me")
        commit_waking(store, me)
        for other in ("a", "b", "x"):
            with contextlib.closing(backend.connect(settings, other, TTL)) as beside:
                assert list(beside.scan()) == []
        assert [vm for vm, _ in store.scan()] == ["vm"]
        store.commit("vm", store.read("vm").version, None, me, ())


def test_another_format_is_refused(
    connect: Connect, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    etcd_server.cli("put", f"distjob/{fresh_namespace}/format", "99")
    with pytest.raises(ConfigError, match=r"format 99.*format 1"):
        connect()


def test_an_unreadable_wake_up_is_a_missed_one(
    connect: Connect, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    key = f"distjob/{fresh_namespace}/session/{me}"
    etcd_server.cli("put", "--ignore-lease", key, "by hand")
    assert list(store.receive(me, 5.0)) == [Missed()]


def test_a_channel_that_takes_little_scans_in_small_steps(
    etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    little = [("grpc.max_receive_message_length", 100_000)]
    with grpc.insecure_channel(etcd_server.address, little) as channel:
        store = EtcdStore(channel, fresh_namespace, TTL)
        me = store.open_session(TTL, "me")
        for number in range(20):
            store.commit(f"vm-{number}", ABSENT, b"x" * 30_000, me, ())
        assert len(list(store.scan())) == 20
        store.close()


def test_a_server_that_takes_less_than_we_send(spawn_etcd: Callable[..., EtcdNode]) -> None:
    small = spawn_etcd("--max-request-bytes=10000")
    with contextlib.closing(connected(small)) as store:
        me = store.open_session(TTL, "me")
        with pytest.raises(RecordError, match=r"'vm'.*20000 bytes.*max-request-bytes"):
            store.commit("vm", ABSENT, b"x" * 20_000, me, ())
        assert isinstance(store.commit("vm", ABSENT, b"x", me, ()), Committed)


def test_a_server_whose_shortest_ttl_is_longer(
    spawn_etcd: Callable[..., EtcdNode], fresh_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    slow = spawn_etcd("--election-timeout=2500", "--heartbeat-interval=250")
    settings = EtcdSettings(endpoints=(slow.address,), timeout=2.0)
    for ttl, told in ((3.0, 1), (4.0, 1)):
        with contextlib.closing(backend.connect(settings, fresh_namespace, ttl)) as store:
            assert store.guarantees.shortest_ttl == 4.0
        warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(warned) == told
    assert "keeps sessions for 4 s at least" in warned[0]
    assert "session.ttl=3 says" in warned[0]


def connected(node: EtcdNode, **more: float) -> EtcdStore:
    chosen = EtcdSettings(endpoints=(node.address,), **more)
    store = backend.connect(chosen, "default", TTL)
    assert isinstance(store, EtcdStore)
    return store


# -- servers that are refused -------------------------------------------------------------------


def test_nobody_listens() -> None:
    with Proxy(("127.0.0.1", 1)) as proxy:
        proxy.refuse()
        settings = EtcdSettings(endpoints=(f"127.0.0.1:{proxy.port}",))
        error = failed(lambda: backend.connect(settings, "ns", TTL))
        assert not error.unanswered
        assert f"127.0.0.1:{proxy.port}" in str(error)
        proxy.accept()


@pytest.mark.parametrize(
    "says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b""]
)
def test_something_else_listens(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    links.append(link)
                    link.recv(1000)
                    link.sendall(says)

        links: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        settings = EtcdSettings(endpoints=(f"127.0.0.1:{port}",), timeout=0.5)
        begun = clock.monotonic()
        with pytest.raises(DistjobError, match=f"127.0.0.1:{port}"):
            backend.connect(settings, "ns", TTL)
        assert clock.monotonic() - begun < 3.0
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5.0)
        for link in links:
            link.close()


def test_an_object_that_is_no_client() -> None:
    with pytest.raises(ConfigError, match=r"grpc\.Channel"):
        EtcdStore(object(), "ns", TTL)


# -- processes ----------------------------------------------------------------------------------

_FORK = """
import os, sys
from distjob.errors import BackendUnavailable
from distjob_etcd import EtcdSettings, backend
settings = EtcdSettings(endpoints=(sys.argv[1],))
store = backend.connect(settings, sys.argv[2], 10.0)
me = store.open_session(10.0, "me")
child = os.fork()
if not child:
    if sys.argv[3] == "verbs":
        for verb in (lambda: store.read("vm"), lambda: store.receive(me, 5.0)):
            try:
                verb()
            except BackendUnavailable as error:
                assert "fork" in str(error)
            else:
                raise AssertionError
        store.interrupt()
        store.close()
    if sys.argv[3] == "anew":
        anew = backend.connect(settings, sys.argv[2], 10.0)
        assert anew.remaining([me])[me] > 0
        anew.close()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
reply = store.commit("vm", 0, b"x", me, (me,))
assert [event.version for event in store.receive(me, 5.0)] == [reply.version]
assert store.keep_alive(me)
"""


@pytest.mark.parametrize("does", ["exit", "verbs", "anew"])
def test_a_forked_child_does_not_hang_nor_disturb(
    etcd_server: EtcdNode, fresh_namespace: str, does: str
) -> None:
    """The parent ends without closing its store: that must not hang, either."""
    command = [sys.executable, "-c", _FORK, etcd_server.address, fresh_namespace, does]
    subprocess.run(command, timeout=30, check=True, capture_output=True)


_BESIDE = """
import sys
import {first}, {second}
import {library} as library
from distjob_etcd.store import EtcdStore
host, _, port = sys.argv[1].rpartition(":")
client = library.client(host=host, port=int(port))
store = EtcdStore(client, sys.argv[2], 10.0)
me = store.open_session(10.0, "me")
reply = store.commit("vm", 0, b"x", me, (me,))
assert [event.version for event in store.receive(me, 5.0)] == [reply.version]
store.close()
client.put("distjob-test", "still open")
assert client.get("distjob-test")[0] == b"still open"
client.delete("distjob-test")
"""


@pytest.mark.parametrize("library", ["pyetcd", "etcd3"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_another_client_in_one_process(
    etcd_server: EtcdNode, fresh_namespace: str, library: str, ours_first: bool
) -> None:
    """Both have registered an rpc.proto with protobuf; the other's client is used, and left."""
    if subprocess.run(
        [sys.executable, "-c", f"import {library}"], capture_output=True, check=False
    ).returncode:
        pytest.skip(f"{library} can't be imported here")
    first, second = ("distjob_etcd.store", library)[:: 1 if ours_first else -1]
    script = _BESIDE.format(first=first, second=second, library=library)
    subprocess.run(
        [sys.executable, "-c", script, etcd_server.address, fresh_namespace],
        timeout=30,
        check=True,
        env=os.environ,
    )


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


def test_nothing_of_the_watch_is_left_to_the_end_of_the_interpreter(connect: Connect) -> None:
    """There, with its threads gone, gRPC may wait for ever for a lock of the call's."""
    before = {id(call) for call in calls_of_grpc()}
    gc.disable()
    try:
        store = connect()
        me = store.open_session(TTL, "me")
        commit_waking(store, me)
        assert store.receive(me, 5.0)
        store.close()
        until(lambda: {id(call) for call in calls_of_grpc()} <= before)
    finally:
        gc.enable()


def calls_of_grpc() -> list[Any]:
    kinds = {grpc.Call, grpc.RpcError}
    return [one for one in gc.get_objects() if kinds <= set(type(one).__mro__)]
