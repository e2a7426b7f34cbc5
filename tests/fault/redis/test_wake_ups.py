"""Wake-ups across broken connections; forged ones; those that are too large."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import Committed, Missed, Store, Woken
from distjob_redis.client import threads
from on_redis import TTL, Connect, commit_waking, failed
from proxy import Proxy
from servers import RedisServer
from until import until

if TYPE_CHECKING:
    import redis


def test_a_cut_is_mended_and_told_as_missed(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.cut()
    assert list(through.receive(me, 5.0)) == [Missed()]
    assert list(through.receive(me, 0.0)) == []
    version = commit_waking(through, me)
    assert list(through.receive(me, 5.0)) == [Woken("vm", version, b"woken")]


def test_missed_waits_until_it_works_again(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.refuse()
    for _ in range(3):
        failed(lambda: through.receive(me, 5.0))
    proxy.accept()
    assert list(through.receive(me, 5.0)) == [Missed()]


def test_where_redis_py_shows_no_socket_it_is_looked_at_now_and_then(
    through: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "socket_of", lambda _: None)
    me = through.open_session(TTL, "me")
    version = commit_waking(through, me)
    assert list(through.receive(me, 5.0)) == [Woken("vm", version, b"woken")]
    assert list(through.receive(me, 0.1)) == []
    proxy.cut()
    assert list(through.receive(me, 5.0)) == [Missed()]


def test_a_restart_while_waiting(redis_server: RedisServer, connect: Connect) -> None:
    store = connect(ttl=60.0)
    me = store.open_session(60.0, "me")
    first = commit_waking(store, me)
    assert list(store.receive(me, 5.0)) == [Woken("vm", first, b"woken")]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.receive, me, 30.0)
        redis_server.kill()
        with pytest.raises(BackendUnavailable):
            waiting.result(20.0)
    redis_server.start()
    assert list(store.receive(me, 5.0)) == [Missed()]
    assert store.keep_alive(me)
    assert store.read("vm").version == first


def test_a_half_dead_connection_is_noticed(proxy: Proxy, connect: Connect) -> None:
    store = connect(f"redis://{proxy.address}/0", ttl=1.5, timeout=1.0)
    me = store.open_session(60.0, "me")
    assert list(store.receive(me, 1.2)) == []  # silent, and asked meanwhile, but alive
    proxy.stall()
    begun = clock.monotonic()
    failed(lambda: store.receive(me, 30.0))
    assert clock.monotonic() - begun < 4.0
    proxy.flow()
    assert list(store.receive(me, 5.0)) == [Missed()]


def test_close_ends_a_receive_under_way(connect: Connect) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.receive, me, 60.0)
        until(listening_of(store)._turn._lock.locked)
        begun = clock.monotonic()
        store.close()
        with contextlib.suppress(BackendUnavailable):  # or it returns early
            assert waiting.result(10.0) == []
    assert clock.monotonic() - begun < 5.0
    failed(lambda: store.receive(me, 60.0))


def test_wake_ups_of_an_earlier_session_are_dropped_and_of_a_later_one_kept(
    connect: Connect,
) -> None:
    store = connect()
    old = store.open_session(TTL, "me")
    commit_waking(store, old)
    new = store.open_session(TTL, "me")
    version = commit_waking(store, new)
    assert [event.version for event in store.receive(old, 0.5) if isinstance(event, Woken)] != [
        version
    ]
    commit_waking(store, old)
    assert list(store.receive(new, 5.0)) == [Woken("vm", version, b"woken")]


def test_a_large_value_is_not_pushed(connect: Connect) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    version = commit_waking(store, me, b"x" * 70_000)
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, None)]


# -- forged ones ------------------------------------------------------------------------------


def listening_of(store: Any) -> Any:
    """What receives, of whatever world."""
    return (getattr(store, "verbs", None) or store.store).listening


def channel_of(namespace: str, session: str) -> str:
    return f"distjob:{{{namespace}}}:session:{session.rpartition('.')[0]}"


def letter(session: str, secret: bytes, key: str, told: bytes) -> bytes:
    """A wake-up as the script sends it."""
    number = session.rpartition(".")[2].encode()
    return b"%b:%b:%d:%b%b" % (number, secret, len(key), key.encode(), told)


def test_what_no_commit_has_sent_is_dropped(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    """To publish takes no key. A record by which one holds would else be believed."""
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    assert list(store.receive(me, 0.0)) == []
    channel, key = channel_of(fresh_namespace, me), f"distjob:{{{fresh_namespace}}}:vm:vm"
    secret = secret_of(admin, fresh_namespace, me)
    theirs = secret_of(admin, fresh_namespace, you)
    assert secret != theirs
    forged = [
        b"",
        b"x",
        b"1",
        b":::",
        letter(me, b"", key, b"7:forged"),
        letter(me, b"0" * len(secret), key, b"7:forged"),
        letter(me, secret[:-1], key, b"7:forged"),
        letter(me, theirs, key, b"7:forged"),
        b"1:%d:%b7:forged" % (len(key), key.encode()),  # as it was before there were secrets
        letter("x.77", secret, key, b"7:of no session"),
    ]
    for message in forged:
        assert admin.publish(channel, message) == 1
    version = commit_waking(other, you)
    reply = other.commit("vm", version, b"true", you, (me,))
    assert isinstance(reply, Committed)
    assert list(store.receive(me, 5.0)) == [Woken("vm", reply.version, b"true")]
    assert list(store.receive(me, 0.1)) == []


def test_what_a_commit_has_sent_and_nobody_can_read_is_missed(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    secret = secret_of(admin, fresh_namespace, me)
    channel = channel_of(fresh_namespace, me)
    for told in (b"", b"x:", b"3:vm"):
        admin.publish(channel, b"1:" + secret + b":" + told)
        assert list(store.receive(me, 5.0)) == [Missed()]


def secret_of(admin: redis.Redis, namespace: str, session: str) -> bytes:
    held: Any = admin.get(f"distjob:{{{namespace}}}:session:{session}")
    _, secret, _ = held.split(b":", 2)
    assert isinstance(secret, bytes)
    assert len(secret) == 32
    return secret
