"""Connecting to what is not there, not Redis, or not willing: what is said, and how soon."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from distjob import clock
from distjob.errors import BackendUnavailable, ConfigError, DistjobError
from distjob_redis import ClusterSettings, RedisSettings, SentinelSettings, backend
from on_redis import SECRET, assert_secret, connected, opened_in
from servers import DEPLOY, RedisCluster, RedisSentinel, RedisServer, free_port
from servers.redis_sentinel import DOWN_AFTER

TIMEOUT = 1.0
Refused = Callable[..., str]


def way(kind: str, address: str, **more: Any) -> RedisSettings:
    """Settings of each kind, of one address."""
    if kind == "url":
        login = f"distjob:{SECRET.replace('@', '%40')}@" if more.pop("password", "") else ""
        more.pop("user", "")
        scheme = "rediss" if more.pop("tls", False) else "redis"
        return RedisSettings(url=f"{scheme}://{login}{address}/0", timeout=TIMEOUT, **more)
    place: dict[str, Any] = {
        "sentinel": SentinelSettings(hosts=(address,), password=more.get("password", "")),
        "cluster": ClusterSettings(hosts=(address,)),
    }
    return RedisSettings(**{kind: place[kind]}, timeout=TIMEOUT, **more)


@pytest.fixture
def refused(world: str) -> Refused:
    """What connecting says; it must say it in time, and without the password."""

    def refused(settings: RedisSettings, kind: type[DistjobError] = ConfigError) -> str:
        begun = clock.monotonic()
        with pytest.raises(kind) as caught:
            opened_in(world, settings, "ns")
        assert clock.monotonic() - begun < TIMEOUT + 2
        assert_secret(caught.value, settings)
        return str(caught.value)

    return refused


KINDS = pytest.mark.parametrize("kind", ["url", "sentinel", "cluster"])
SOUGHT = pytest.mark.parametrize("kind", ["sentinel", "cluster"])
"""The fault contract says the same of one server."""


@SOUGHT
def test_nobody_listens(kind: str, refused: Refused) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = refused(way(kind, address, user="distjob", password=SECRET), BackendUnavailable)
    assert address in said


@SOUGHT
def test_a_web_server(kind: str, refused: Refused) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.server_port}"
        said = refused(way(kind, address, user="distjob", password=SECRET))
        server.shutdown()
    assert address in said
    assert "does not speak the protocol of Redis" in said


@KINDS
def test_a_server_without_tls(kind: str, redis_server: RedisServer, refused: Refused) -> None:
    """It waits for the rest of what it takes for a command, and we for its certificate."""
    assert redis_server.address in refused(
        way(kind, redis_server.address, tls=True), BackendUnavailable
    )


@contextlib.contextmanager
def user(nodes: Sequence[RedisServer], kind: str, *rules: str) -> Iterator[None]:
    """An ACL user "distjob" with the password, and what the file for it and ``rules`` grant."""
    file = "cluster.users.acl" if kind == "cluster" else "users.acl"
    words = (DEPLOY / file).read_text(encoding="utf-8").split()
    granted = [word for word in words[2:] if not word.startswith(">")]
    clients = [redis.Redis(host=node.host, port=node.port) for node in nodes]
    for client in clients:
        client.execute_command(
            *("ACL", "SETUSER", "distjob", "reset", "on", f">{SECRET}", *granted, *rules)
        )
    yield
    for client in clients:
        client.execute_command("ACL", "DELUSER", "distjob")
        client.close()


def addressed(kind: str, request: pytest.FixtureRequest) -> tuple[list[RedisServer], str]:
    """The servers of each kind, and the address to name."""
    if kind == "url":
        server: RedisServer = request.getfixturevalue("redis_server")
        return [server], server.address
    if kind == "sentinel":
        sentinel: RedisSentinel = request.getfixturevalue("redis_sentinel")
        host, port = sentinel.sentinels[0]
        return sentinel.redises, f"{host}:{port}"
    cluster: RedisCluster = request.getfixturevalue("redis_cluster")
    return cluster.nodes, cluster.primaries()[0].address


def settings_of(kind: str, address: str, password: str) -> RedisSettings:
    if kind == "sentinel":
        place = SentinelSettings(hosts=(address,))
        return RedisSettings(sentinel=place, user="distjob", password=password, timeout=TIMEOUT)
    if kind == "cluster":
        nodes = ClusterSettings(hosts=(address,))
        return RedisSettings(cluster=nodes, user="distjob", password=password, timeout=TIMEOUT)
    url = f"redis://distjob:{password.replace('@', '%40')}@{address}/0"
    return RedisSettings(url=url, timeout=TIMEOUT)


@KINDS
def test_users(
    kind: str, request: pytest.FixtureRequest, fresh_namespace: str, refused: Refused
) -> None:
    """One that may do what is needed; a wrong password; one that may only read."""
    nodes, address = addressed(kind, request)
    right = settings_of(kind, address, SECRET)
    with user(nodes, kind):
        store = connected(right, fresh_namespace)
        me = store.open_session(10.0, "me")
        store.commit("vm", 0, b"x", me, (me,))
        assert store.keep_alive(me)
        assert [vm for vm, _ in store.scan()] == ["vm"]
        store.close()
        wrong = settings_of(kind, address, SECRET + "x")
        assert "password was refused" in refused(wrong)
    more = ("-asking", "-spublish", "-ssubscribe") if kind == "cluster" else ()
    for lacking in ("-set", "-evalsha", *more):
        with user(nodes, kind, lacking):
            assert "users.acl" in refused(right)


def test_a_password_that_sentinels_do_not_want(
    redis_sentinel: RedisSentinel, refused: Refused
) -> None:
    hosts = tuple(f"{host}:{port}" for host, port in redis_sentinel.sentinels)
    sentinel = SentinelSettings(hosts=hosts, user="distjob", password=SECRET)
    said = refused(RedisSettings(sentinel=sentinel, timeout=TIMEOUT))
    assert "redis.sentinel" in said


def test_a_database_that_is_not_there(
    redis_server: RedisServer, redis_sentinel: RedisSentinel, refused: Refused
) -> None:
    said = refused(RedisSettings(url=f"redis://{redis_server.address}/99", timeout=TIMEOUT))
    assert redis_server.address in said
    assert "no database of that number" in said
    hosts = tuple(f"{host}:{port}" for host, port in redis_sentinel.sentinels)
    sentinel = SentinelSettings(hosts=hosts)
    said = refused(RedisSettings(sentinel=sentinel, db=99, timeout=TIMEOUT))
    assert "no database of that number" in said


def test_one_server_in_the_place_of_a_cluster(redis_server: RedisServer, refused: Refused) -> None:
    said = refused(way("cluster", redis_server.address))
    assert redis_server.address in said
    assert "redis.url" in said


def test_a_node_in_the_place_of_one_server(redis_cluster: RedisCluster, refused: Refused) -> None:
    said = refused(way("url", redis_cluster.primaries()[0].address))
    assert "redis.cluster.hosts" in said


def found(settings: RedisSettings, namespace: str) -> dict[str, str]:
    """What `examine` says, and how bad it is."""
    assert backend.examine is not None
    with contextlib.closing(connected(settings, namespace)) as store:
        return {finding.what: finding.level for finding in backend.examine(store)}


def level_of(findings: dict[str, str], words: str) -> str:
    return next((level for what, level in findings.items() if words in what), "nothing")


def test_what_examine_finds_of_one_server(redis_server: RedisServer, fresh_namespace: str) -> None:
    settings = RedisSettings(url=redis_server.url)
    with redis.Redis.from_url(redis_server.url) as admin:
        before = admin.config_get("appendfsync")["appendfsync"]
        admin.config_set("appendfsync", "always")
        good = found(settings, fresh_namespace)
        assert {*good.values()} == {"ok"}, good
        admin.config_set("appendfsync", "no")
        admin.config_set("maxmemory-policy", "allkeys-lru")
        try:
            bad = found(settings, fresh_namespace)
            assert level_of(bad, "last half minute") == "warning"
            assert level_of(bad, "maxmemory-policy allkeys-lru") == "warning"
            admin.config_set("appendonly", "no")
            assert level_of(found(settings, fresh_namespace), "no append-only file") == "danger"
            admin.config_set("maxmemory-policy", "noeviction")
            admin.config_set("maxmemory", int(1.15 * admin.info("memory")["used_memory"]))
            assert level_of(found(settings, fresh_namespace), "of its maxmemory") == "warning"
        finally:
            admin.config_set("maxmemory", 0)
            admin.config_set("maxmemory-policy", "noeviction")
            admin.config_set("appendfsync", before)
            admin.config_set("appendonly", "yes")


def test_what_examine_finds_of_sentinels(
    redis_sentinel: RedisSentinel, fresh_namespace: str
) -> None:
    hosts = tuple(f"{host}:{port}" for host, port in redis_sentinel.sentinels)
    whole = RedisSettings(sentinel=SentinelSettings(hosts=hosts), timeout=TIMEOUT)
    part = RedisSettings(sentinel=SentinelSettings(hosts=hosts[:1]), timeout=TIMEOUT)
    with redis.Redis(
        host=redis_sentinel.primary().host, port=redis_sentinel.primary().port
    ) as admin:
        name = "min-replicas-to-write"
        before = admin.config_get(name)[name]
        admin.config_set(name, 0)
        try:
            assert level_of(found(whole, fresh_namespace), "cut off from its 1") == "warning"
            admin.config_set(name, 1)
            assert level_of(found(whole, fresh_namespace), "cut off from its 1") == "nothing"
            assert level_of(found(whole, fresh_namespace), "a fail-over takes longer") == "nothing"
            redis_sentinel.watchers[0].ask("SENTINEL SET distjob down-after-milliseconds 30000")
            assert level_of(found(whole, fresh_namespace), "a fail-over takes longer") == "warning"
        finally:
            redis_sentinel.watchers[0].ask(
                f"SENTINEL SET distjob down-after-milliseconds {1000 * DOWN_AFTER:.0f}"
            )
            admin.config_set(name, before)
    assert level_of(found(part, fresh_namespace), "1 sentinel(s) are named") == "warning"
    assert level_of(found(part, fresh_namespace), "knows 3 sentinels") == "warning"
    redis_sentinel.replica().kill()
    redis_sentinel.watchers[2].kill()
    ill = found(whole, fresh_namespace)
    assert level_of(ill, f"the sentinel at {hosts[2]} does not answer") == "warning"


def test_what_examine_finds_of_a_cluster(redis_cluster: RedisCluster, fresh_namespace: str) -> None:
    hosts = tuple(f"{host}:{port}" for host, port in redis_cluster.startup)
    settings = RedisSettings(cluster=ClusterSettings(hosts=hosts), timeout=TIMEOUT)
    name = "cluster-require-full-coverage"
    node = redis_cluster.primaries()[0]
    with redis.Redis(host=node.host, port=node.port) as admin:
        before = admin.config_get(name)[name]
        admin.config_set(name, "yes")
        patience = "cluster-node-timeout"
        usual = admin.config_get(patience)[patience]
        admin.config_set(patience, 15_000)
        try:
            findings = found(settings, fresh_namespace)
        finally:
            admin.config_set(name, before)
            admin.config_set(patience, usual)
    assert level_of(findings, "stops serving when any slot") == "warning"
    assert level_of(findings, f"{patience} 15000: a fail-over takes longer") == "warning"
    assert "danger" not in findings.values()
