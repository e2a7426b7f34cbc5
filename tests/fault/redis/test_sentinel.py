"""The Redis store on a primary that dies, is replaced while it works, or comes back as one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from distjob import Client
from distjob.errors import BackendUnavailable, ConfigError, LeaseLost, OutcomeUnknown
from distjob.rules.jobs import Job
from distjob.store import Missed, Store, Woken
from distjob.testing.contract import committed, try_until
from distjob_redis import RedisSettings, SentinelSettings
from on_redis import SECRET, TTL, Connect, asking, connected, in_step, opened_in
from servers import DEPLOY, RedisSentinel, RedisServer, wait_for

PATIENCE = 30.0


@pytest.fixture
def connect(redis_sentinel: RedisSentinel, fresh_namespace: str, world: str) -> Iterator[Connect]:
    hosts = tuple(f"{host}:{port}" for host, port in redis_sentinel.sentinels)
    with contextlib.ExitStack() as closing:

        def connect(ttl: float = TTL, name: str = redis_sentinel.name) -> Store:
            sentinel = SentinelSettings(hosts=hosts, name=name)
            settings = RedisSettings(sentinel=sentinel, timeout=1.0)
            store = opened_in(world, settings, fresh_namespace, ttl)
            closing.callback(store.close)
            return store

        yield connect


def die(sentinel: RedisSentinel) -> RedisServer:
    """Kill the primary; returns it when another has taken over."""
    old = sentinel.primary()
    old.kill()
    wait_for(lambda: sentinel.primary() is not old, "another primary")
    return old


def held_by(node: RedisServer, namespace: str, vm: str) -> bytes | None:
    with asking(node) as client:
        found = client.get(f"distjob:{{{namespace}}}:vm:{vm}")
    assert found is None or isinstance(found, bytes)
    return found


def test_a_killed_primary_is_replaced(connect: Connect, redis_sentinel: RedisSentinel) -> None:
    store, other = connect(), connect()
    me, you = store.open_session(30.0, "me"), other.open_session(30.0, "you")
    last = committed(store, "vm", b"x", me)
    in_step(redis_sentinel.primary())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.receive, me, 20.0)
        die(redis_sentinel)
        with pytest.raises(BackendUnavailable):
            waiting.result(PATIENCE)
    assert list(try_until(lambda: store.receive(me, 5.0))) == [Missed()]
    assert try_until(lambda: store.keep_alive(me))
    again = try_until(lambda: committed(other, "vm", b"y", you, me))
    assert again > last
    assert list(store.receive(me, 5.0)) == [Woken("vm", again, b"y")]


def test_a_primary_that_is_replaced_while_it_works_is_left_at_once(
    connect: Connect, redis_sentinel: RedisSentinel, fresh_namespace: str
) -> None:
    """It is not told for seconds, and goes on taking writes that will be lost."""
    store = connect()
    me = store.open_session(30.0, "me")
    committed(store, "vm", b"x", me)
    assert list(store.receive(me, 0.0)) == []
    in_step(redis_sentinel.primary())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.receive, me, 20.0)
        new = redis_sentinel.fail_over()
        assert list(waiting.result(PATIENCE)) == [Missed()]
    version = committed(store, "vm", b"y", me)
    assert held_by(new, fresh_namespace, "vm") == b"%d:y" % version


def test_a_renewal_finds_the_new_primary(
    connect: Connect, redis_sentinel: RedisSentinel, fresh_namespace: str
) -> None:
    store = connect()
    me = store.open_session(30.0, "me")
    in_step(redis_sentinel.primary())
    new = redis_sentinel.fail_over()
    assert try_until(lambda: store.keep_alive(me))
    version = committed(store, "vm", b"y", me)
    assert held_by(new, fresh_namespace, "vm") == b"%d:y" % version


def test_an_old_primary_that_comes_back_as_one_is_not_used(
    connect: Connect, redis_sentinel: RedisSentinel, fresh_namespace: str
) -> None:
    store = connect()  # idle, so that it notices nothing
    me = store.open_session(60.0, "me")
    in_step(redis_sentinel.primary())
    old = die(redis_sentinel)
    old.start()
    with asking(old) as client:
        assert client.role()[0] == b"master"
    version = try_until(lambda: committed(store, "vm", b"x", me))
    assert held_by(redis_sentinel.primary(), fresh_namespace, "vm") == b"%d:x" % version
    assert held_by(old, fresh_namespace, "vm") is None


def test_nothing_is_renewed_without_most_of_the_sentinels(
    connect: Connect, redis_sentinel: RedisSentinel
) -> None:
    """Those that can't be reached may have made another the primary."""
    store = connect()
    me = store.open_session(60.0, "me")
    first, second, _ = redis_sentinel.watchers
    first.kill()
    assert store.keep_alive(me)
    second.kill()
    with pytest.raises(BackendUnavailable, match=r"1 of 3 sentinels.*2 are needed"):
        store.keep_alive(me)
    with pytest.raises(BackendUnavailable, match="sentinels"):
        connect()
    second.start()
    assert try_until(lambda: store.keep_alive(me))


def test_clients_go_on_through_the_death_of_the_primary(
    connect: Connect, redis_sentinel: RedisSentinel
) -> None:
    """The whole client: tokens rise, and nothing is left behind."""
    tokens: list[int] = []
    done, turn = threading.Event(), threading.Lock()

    def work(number: int) -> None:
        with Client(connect(ttl=6.0), controller=f"c{number}", ttl=6.0) as jobs:
            while not done.is_set():
                with contextlib.suppress(BackendUnavailable, OutcomeUnknown, LeaseLost):
                    lease = jobs.begin("vm", Job.MODIFY)
                    with turn:
                        tokens.append(lease.token)
                    lease.end()

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, number) for number in range(2)]
        wait_for(lambda: len(tokens) > 20, "jobs")
        die(redis_sentinel)
        before = len(tokens)
        wait_for(lambda: len(tokens) > before + 20, "more jobs")
        done.set()
        for one in working:
            one.result(PATIENCE)
    assert len(set(tokens)) == len(tokens)
    assert list(connect().scan()) == []


def test_a_name_that_no_sentinel_knows(connect: Connect) -> None:
    with pytest.raises(ConfigError, match=r"redis\.sentinel\.name"):
        connect(name="nobody")


def test_servers_in_the_place_of_sentinels(redis_sentinel: RedisSentinel) -> None:
    hosts = tuple(node.address for node in redis_sentinel.redises)
    settings = RedisSettings(sentinel=SentinelSettings(hosts=hosts))
    with pytest.raises(ConfigError, match="not a sentinel"):
        connected(settings, "ns")


def test_a_sentinel_in_the_place_of_a_server(redis_sentinel: RedisSentinel) -> None:
    host, port = redis_sentinel.sentinels[0]
    settings = RedisSettings(url=f"redis://{host}:{port}")
    with pytest.raises(ConfigError, match=r"redis\.sentinel\.hosts"):
        connected(settings, "ns")


def test_a_user_at_the_sentinels_as_in_the_file(
    redis_sentinel: RedisSentinel,
    fresh_namespace: str,
    world: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It may ask for the primary, and be told of another; doctor needs no more."""
    words = (DEPLOY / "sentinel.users.acl").read_text(encoding="utf-8").split()
    rules = [word for word in words[2:] if not word.startswith(">")]
    hosts = tuple(f"{host}:{port}" for host, port in redis_sentinel.sentinels)
    section = RedisSettings(
        sentinel=SentinelSettings(
            hosts=hosts, name=redis_sentinel.name, user="distjob", password=SECRET
        )
    )
    watchers = [redis.Redis(host=host, port=port) for host, port in redis_sentinel.sentinels]
    try:
        for watcher in watchers:
            watcher.execute_command("ACL", "SETUSER", "distjob", "reset", f">{SECRET}", *rules)
        store = opened_in(world, section, fresh_namespace)
        me = store.open_session(TTL, "me")
        assert list(store.receive(me, 0.0)) == []
        assert store.keep_alive(me)
        in_step(redis_sentinel.primary())
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.receive, me, 20.0)
            redis_sentinel.fail_over()
            assert list(waiting.result(PATIENCE)) == [Missed()]
        store.close()
        for watcher in watchers:
            watcher.execute_command("ACL", "SETUSER", "distjob", "-subscribe")
        opened_in(world, section, fresh_namespace).close()
        assert caplog.text.count("subscribe") >= len(watchers)
        assert "noticed late" in caplog.text
        for watcher in watchers:
            watcher.execute_command("ACL", "SETUSER", "distjob", "-sentinel|master", "-sentinel")
        with pytest.raises(ConfigError, match=r"(?i)sentinel"):
            opened_in(world, section, fresh_namespace)
    finally:
        for watcher in watchers:
            watcher.execute_command("ACL", "DELUSER", "distjob")
            watcher.close()
