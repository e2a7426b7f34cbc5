"""The Redis store on a real server that is cut off, killed, paused, emptied, or not to be used."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from distjob import clock
from distjob.errors import BackendUnavailable, ConfigError, DistjobError, RecordError
from distjob.store import ABSENT, Committed, Gone, Missed, Stale, Store, Woken
from distjob.testing.onloop import OnLoop
from distjob_redis import RedisSettings, backend
from distjob_redis import server as redis_module
from distjob_redis.blocking import BlockingServer
from distjob_redis.store import RedisStore
from proxy import Proxy
from servers import DEPLOY, RedisServer

TTL = 10.0
SECRET = "s3cret-p@ss"
URL_SECRET = "s3cret-p%40ss"
Connect = Callable[..., Store]


def opened(world: str, settings: RedisSettings, namespace: str, ttl: float) -> Store:
    """A store that blocks; or one on asyncio, in a loop of its own."""
    if world == "asyncio":
        assert backend.connect_async is not None
        return OnLoop(partial(backend.connect_async, settings, namespace, ttl))
    return backend.connect(settings, namespace, ttl)


def verbs_of(store: Store) -> Any:
    """What it is made of."""
    return store.store if isinstance(store, OnLoop) else store.verbs


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        yield client


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", redis_server.port)) as proxy:
        yield proxy


@pytest.fixture(params=["threads", "asyncio"])
def connect(
    redis_server: RedisServer, fresh_namespace: str, request: pytest.FixtureRequest
) -> Iterator[Connect]:
    with contextlib.ExitStack() as closing:

        def connect(
            url: str = redis_server.url, ttl: float = TTL, timeout: float = 5.0, **files: str
        ) -> Store:
            chosen = RedisSettings(url=url, timeout=timeout, **files)
            store = opened(request.param, chosen, fresh_namespace, ttl)
            closing.callback(store.close)
            return store

        yield connect


@pytest.fixture
def through(proxy: Proxy, connect: Connect) -> Store:
    return connect(f"redis://127.0.0.1:{proxy.port}/0")


@pytest.fixture
def configured(admin: redis.Redis) -> Iterator[Callable[..., None]]:
    """Change the server's configuration, for one test."""
    before: dict[str, str] = {}

    def configured(**settings: str | int) -> None:
        for name, value in settings.items():
            key = name.replace("_", "-")
            before.setdefault(key, str(admin.config_get(key)[key]))
            admin.config_set(key, value)

    yield configured
    for key, value in reversed(before.items()):
        admin.config_set(key, value)


def failed(verb: Callable[[], object]) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        verb()
    return caught.value


# -- replies that never come ------------------------------------------------------------------


def test_a_lost_reply_is_unanswered_and_applied_once(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.drop_next_reply(to=b"EVALSHA")
    assert failed(lambda: through.commit("vm", ABSENT, b"one", me, ())).unanswered
    found = through.read("vm")
    assert found.value == b"one"
    assert through.commit("vm", ABSENT, b"two", me, ()) == Stale(found.version, b"one")


def test_a_lost_request_is_unanswered_too(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.drop_next_request(holding=b"EVALSHA")
    assert failed(lambda: through.commit("vm", ABSENT, b"one", me, ())).unanswered
    assert through.read("vm").value is None


def test_a_client_that_retries_sends_no_commit_twice(
    proxy: Proxy, fresh_namespace: str, admin: redis.Redis
) -> None:
    with redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 3)) as client:
        store = RedisStore(client, fresh_namespace, TTL)
        me = store.open_session(TTL, "me")
        proxy.drop_next_reply(to=b"EVALSHA")
        assert failed(lambda: store.commit("vm", ABSENT, b"one", me, ())).unanswered
        assert store.read("vm").value == b"one"
        store.close()


@pytest.mark.parametrize("command", [b"SET", b"PEXPIRE", b"DEL"])
def test_session_verbs_say_that_they_are_unanswered(
    through: Store, proxy: Proxy, command: bytes
) -> None:
    me = through.open_session(TTL, "me")
    proxy.drop_next_reply(to=command)
    verbs: dict[bytes, Callable[[], object]] = {
        b"SET": lambda: through.open_session(TTL, "me"),
        b"PEXPIRE": lambda: through.keep_alive(me),
        b"DEL": lambda: through.close_session(me),
    }
    assert failed(verbs[command]).unanswered
    assert through.keep_alive(me) is (command != b"DEL")


def test_reading_is_never_unanswered(through: Store, proxy: Proxy) -> None:
    proxy.drop_next_reply(to=b"GET")
    assert not failed(lambda: through.read("vm")).unanswered
    proxy.drop_next_reply(to=b"PTTL")
    assert not failed(lambda: through.remaining(["a", "b"])).unanswered
    assert dict(through.remaining(["a", "b"])) == {"a": 0.0, "b": 0.0}


def test_refused_is_not_unanswered(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.refuse()
    assert not failed(lambda: through.commit("vm", ABSENT, b"one", me, ())).unanswered
    proxy.accept()
    assert isinstance(through.commit("vm", ABSENT, b"one", me, ()), Committed)


def test_a_connection_cut_while_idle_costs_nothing(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.cut()
    assert isinstance(through.commit("vm", ABSENT, b"one", me, ()), Committed)


def test_a_paused_server_is_given_up_in_time(redis_server: RedisServer, connect: Connect) -> None:
    store = connect(timeout=0.5)
    me = store.open_session(TTL, "me")
    redis_server.pause()
    try:
        begun = clock.monotonic()
        assert failed(lambda: store.commit("vm", ABSENT, b"one", me, ())).unanswered
        assert not failed(lambda: store.read("vm")).unanswered
        assert 0.9 < clock.monotonic() - begun < 3.0
    finally:
        redis_server.resume()
    assert store.read("vm").value in (b"one", None)


def test_a_host_name_is_not_taken_for_an_answer(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        lost = redis.ConnectionError("Error while reading from ROOM-MISCONF:6379")
        error = BlockingServer(client).error(lost, unanswered=True)
    assert isinstance(error, BackendUnavailable)
    assert error.unanswered


# -- wake-ups across a broken connection ------------------------------------------------------


def test_a_cut_raises_and_then_says_missed(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.cut()
    assert not failed(lambda: through.receive(me, 5.0)).unanswered
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


def test_a_driver_that_subscribes_again_by_itself_is_noticed(
    proxy: Proxy, fresh_namespace: str
) -> None:
    with redis.Redis(port=proxy.port, retry=Retry(NoBackoff(), 3)) as client:
        store = RedisStore(client, fresh_namespace, TTL)
        me = store.open_session(TTL, "me")
        proxy.cut()
        try:
            events = store.receive(me, 5.0)
        except BackendUnavailable:  # redis-py before 6 leaves it to us
            events = store.receive(me, 5.0)
        assert list(events) == [Missed()]
        store.close()


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
    store = connect(f"redis://127.0.0.1:{proxy.port}/0", ttl=1.5)
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
        while not verbs_of(store)._receiving._lock.locked():
            threading.Event().wait(0.001)
        begun = clock.monotonic()
        store.close()
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


# -- data lost, spoiled, or in the way --------------------------------------------------------


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
    admin.set(f"{prefix}text", b"no version")
    admin.lpush(f"{prefix}list", b"x")
    for vm in ("text", "list"):
        with pytest.raises(RecordError):
            store.read(vm)
        with pytest.raises(RecordError):
            store.commit(vm, ABSENT, b"x", me, ())


@pytest.mark.parametrize("namespace", ["a}b", "{", "*", "a b/%", "\N{SNOWMAN}", "a:vm:x"])
def test_namespaces_are_kept_apart(redis_server: RedisServer, namespace: str) -> None:
    settings = RedisSettings(url=redis_server.url)
    with contextlib.closing(backend.connect(settings, namespace, TTL)) as store:
        me = store.open_session(TTL, "me")
        commit_waking(store, me)
        for other in ("a", "b"):
            with contextlib.closing(backend.connect(settings, other, TTL)) as beside:
                assert list(beside.scan()) == []
        assert [vm for vm, _ in store.scan()] == ["vm"]
        store.commit("vm", store.read("vm").version, None, me, ())


def test_a_full_server_still_lets_jobs_end(
    connect: Connect, admin: redis.Redis, configured: Callable[..., None]
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    held = commit_waking(store, me)
    configured(maxmemory=1)
    error = failed(lambda: store.commit("other", ABSENT, b"x", me, ()))
    assert not error.unanswered
    assert "maxmemory" in str(error)
    assert store.read("other").value is None
    assert store.keep_alive(me)
    assert isinstance(store.commit("vm", held, None, me, ()), Committed)


# -- servers that are refused -----------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_an_evicting_policy_is_refused(
    connect: Connect, configured: Callable[..., None], policy: str
) -> None:
    configured(maxmemory_policy=policy)
    connect()  # without maxmemory nothing is ever evicted
    configured(maxmemory="1gb")
    with pytest.raises(ConfigError, match=f"{policy}.*noeviction"):
        connect()


def test_another_format_is_refused(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    admin.set(f"distjob:{{{fresh_namespace}}}:format", "99")
    with pytest.raises(ConfigError, match=r"format 99.*format 1"):
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
    redis_module.check(good, "here")
    with pytest.raises(ConfigError, match=said):
        redis_module.check(good | facts, "here")


def test_no_append_only_file_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "distjob.redis"):
        redis_module.check({"redis_version": "7.2.4", "role": "master", "aof_enabled": 0}, "here")
    assert "appendonly" in caplog.text


def test_a_client_that_decodes_is_refused(redis_server: RedisServer) -> None:
    with (
        redis.Redis.from_url(redis_server.url, decode_responses=True) as client,
        pytest.raises(ConfigError, match="decode_responses"),
    ):
        RedisStore(client, "ns", TTL)


def test_nobody_listens() -> None:
    with Proxy(("127.0.0.1", 1)) as proxy:
        proxy.refuse()
        settings = RedisSettings(url=f"redis://:{URL_SECRET}@127.0.0.1:{proxy.port}/0")
        error = failed(lambda: backend.connect(settings, "ns", TTL))
        assert not error.unanswered
        proxy.accept()
    assert f"127.0.0.1:{proxy.port}" in str(error)
    assert_secret(error, settings)


# -- passwords, users, TLS --------------------------------------------------------------------


@pytest.fixture
def user(admin: redis.Redis) -> Iterator[str]:
    """An ACL user with just what deploy/redis/users.acl grants; as the URL's beginning."""
    acl: Callable[..., object] = admin.execute_command
    words = (DEPLOY / "users.acl").read_text(encoding="utf-8").split()
    rules = [word for word in words[2:] if not word.startswith(">")]
    acl("ACL", "SETUSER", "distjob", "reset", "on", f">{SECRET}", *rules)
    yield f"distjob:{URL_SECRET}@"
    acl("ACL", "DELUSER", "distjob")


def test_an_acl_user_can_do_all_it_needs(
    connect: Connect, redis_server: RedisServer, user: str
) -> None:
    exercise(connect(f"redis://{user}127.0.0.1:{redis_server.port}/0"))


@pytest.mark.parametrize("lacking", ["-evalsha", "-publish", "-info", "resetchannels", "-set"])
def test_a_missing_permission_is_found_at_connect(
    connect: Connect, redis_server: RedisServer, admin: redis.Redis, user: str, lacking: str
) -> None:
    acl: Callable[..., object] = admin.execute_command
    acl("ACL", "SETUSER", "distjob", lacking)
    with pytest.raises(ConfigError, match=r"users\.acl") as caught:
        connect(f"redis://{user}127.0.0.1:{redis_server.port}/0")
    assert_secret(caught.value)


def test_a_wrong_password(connect: Connect, redis_server: RedisServer, user: str) -> None:
    url = f"redis://distjob:{URL_SECRET}x@127.0.0.1:{redis_server.port}/0"
    with pytest.raises(ConfigError, match=r"redis\.url") as caught:
        connect(url)
    assert_secret(caught.value)


def test_tls_with_certificates_of_both_sides(
    connect: Connect,
    redis_server: RedisServer,
    configured: Callable[..., None],
    user: str,
    certificates: Path,
) -> None:
    if not redis_server.tls:
        pytest.skip(f"redis of {redis_server.kind} was built without TLS")
    configured(
        tls_cert_file=redis_server.give(certificates / "server.crt"),
        tls_key_file=redis_server.give(certificates / "server.key"),
        tls_ca_cert_file=redis_server.give(certificates / "ca.crt"),
        tls_port=redis_server.inner_tls_port,
    )
    url = f"rediss://{user}127.0.0.1:{redis_server.tls_port}/0"
    files = {
        "ca_file": str(certificates / "ca.crt"),
        "cert_file": str(certificates / "client.crt"),
        "key_file": str(certificates / "client.key"),
    }
    exercise(connect(url, **files))
    with pytest.raises(ConfigError, match=r"redis\.ca_file") as caught:
        connect(url)  # the system's CAs did not sign it
    assert_secret(caught.value)
    by_name = f"rediss://{user}localhost:{redis_server.tls_port}/0"
    with pytest.raises(DistjobError, match=r"(?i)hostname|certificate"):
        connect(by_name, **files)  # signed, but for another name


def commit_waking(store: Store, session: str, value: bytes = b"woken") -> int:
    """Write ``value`` to "vm" and wake ``session``; the new version."""
    version = store.read("vm").version
    reply = store.commit("vm", version, value, session, (session,))
    assert isinstance(reply, Committed)
    return reply.version


def exercise(store: Store) -> None:
    """Every verb once."""
    me = store.open_session(TTL, "me")
    assert store.keep_alive(me)
    version = commit_waking(store, me)
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, b"woken")]
    assert [vm for vm, _ in store.scan()] == ["vm"]
    store.commit("vm", version, None, me, ())
    store.close_session(me)
    assert store.remaining([me]) == {me: 0.0}
    store.interrupt()


def assert_secret(error: BaseException, settings: RedisSettings | None = None) -> None:
    """The password is in no error, nor in the repr of the settings."""
    told = [repr(settings)] if settings else []
    cause: BaseException | None = error
    while cause is not None:
        told += [str(cause), repr(cause)]
        cause = cause.__cause__
    for secret in (SECRET, URL_SECRET):
        assert not [text for text in told if secret in text]
