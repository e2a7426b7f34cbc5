"""Wake-ups across broken connections; forged ones; those that are too large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distjob.store import Committed, Missed, Store, Woken
from distjob_redis.client import threads
from on_redis import TTL, Connect, commit_waking
from proxy import Proxy

if TYPE_CHECKING:
    import pytest
    import redis


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


def test_a_large_value_is_not_pushed(connect: Connect) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    version = commit_waking(store, me, b"x" * 70_000)
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, None)]


# -- forged ones ------------------------------------------------------------------------------


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
