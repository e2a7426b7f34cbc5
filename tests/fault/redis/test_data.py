"""Data that is lost, spoiled, or in the way; servers that can't be used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from distjob.errors import ConfigError, RecordError
from distjob.store import ABSENT, Committed, Gone
from distjob_redis.connecting import check
from on_redis import TTL, Connect, commit_waking

if TYPE_CHECKING:
    import redis


def test_flushall(connect: Connect, admin: redis.Redis) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    last = commit_waking(store, me)
    admin.flushall()
    assert not store.keep_alive(me)
    assert store.commit("vm", ABSENT, b"x", me, ()) == Gone(frozenset({me}))
    assert commit_waking(store, store.open_session(TTL, "me")) > last


def test_versions_rise_even_when_the_clock_was_set_back(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    store = connect()
    ahead = 1 << 52
    admin.set(f"distjob:{{{fresh_namespace}}}:version", ahead)
    me = store.open_session(TTL, "me")
    assert commit_waking(store, me) == ahead + 1
    assert store.commit("vm", ahead + 1, b"x", me, ()) == Committed(ahead + 2)
    assert store.read("vm").version == ahead + 2


def test_an_idle_vm_leaves_nothing(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    for number in range(20):
        reply = store.commit(f"vm-{number}", ABSENT, b"x", me, (me,))
        assert isinstance(reply, Committed)
        store.commit(f"vm-{number}", reply.version, None, me, (me,))
    store.close_session(me)
    prefix = f"distjob:{{{fresh_namespace}}}:"
    kept = {key.decode() for key in admin.scan_iter(f"{prefix}*", count=1000)}
    assert kept == {f"{prefix}version", f"{prefix}format"}


def test_a_forgotten_script_is_sent_again(connect: Connect, admin: redis.Redis) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    admin.script_flush()
    assert isinstance(store.commit("vm", ABSENT, b"x", me, ()), Committed)


def test_keys_of_others_are_a_record_error(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    prefix = f"distjob:{{{fresh_namespace}}}:vm:"
    spoil: dict[str, Callable[[str], object]] = {
        "text": lambda key: admin.set(key, b"no version"),
        "list": lambda key: admin.lpush(key, b"x"),
    }
    for vm, spoilt in spoil.items():
        spoilt(f"{prefix}{vm}")
        with pytest.raises(RecordError, match=f"'{vm}'"):
            store.read(vm)
        with pytest.raises(RecordError, match=f"'{vm}'"):
            store.commit(vm, ABSENT, b"x", me, ())
        with pytest.raises(RecordError, match=f"'{vm}'"):
            list(store.scan())
        admin.delete(f"{prefix}{vm}")
    assert list(store.scan()) == []


@pytest.mark.parametrize("counter", ["", "x", "-1", "1e3", str(2**53), "9" * 30, "nan", "inf"])
def test_a_damaged_version_counter_is_refused(
    connect: Connect, admin: redis.Redis, fresh_namespace: str, counter: str
) -> None:
    """A version that does not rise would be a token that was given out already."""
    store = connect()
    me = store.open_session(TTL, "me")
    admin.set(f"distjob:{{{fresh_namespace}}}:version", counter)
    with pytest.raises(RecordError, match="version counter"):
        store.commit("vm", ABSENT, b"x", me, ())
    assert store.read("vm").value is None


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_an_evicting_policy_is_refused(
    connect: Connect, configured: Callable[..., None], policy: str
) -> None:
    configured(maxmemory_policy=policy)
    connect()  # without maxmemory nothing is ever evicted
    configured(maxmemory="1gb")
    with pytest.raises(ConfigError, match=f"{policy}.*noeviction"):
        connect()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"redis_version": "6.0.16"}, r"6\.0\.16.*6\.2"),
        ({"role": "slave", "master_host": "prime", "master_port": 1}, "replica of prime:1"),
        ({"cluster_enabled": 1}, "Cluster"),
    ],
)
def test_servers_that_cannot_be_used(facts: dict[str, object], said: str) -> None:
    good = {"redis_version": "6.2.0", "role": "master", "aof_enabled": 1}
    check(good, "here")
    with pytest.raises(ConfigError, match=said):
        check(good | facts, "here")


def test_no_append_only_file_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "distjob.redis"):
        check({"redis_version": "7.2.4", "role": "master", "aof_enabled": 0}, "here")
    assert "appendonly" in caplog.text
