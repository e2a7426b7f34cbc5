"""Servers that become unsafe while jobs are held: clocks that are set, policies that evict."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distjob import Client, Job, LeaseLost
from distjob.store import Finding, Store, Void
from distjob_redis import RedisRecipe, RedisSettings, doctor, watch
from on_redis import SECRET, TTL, Connect, connected, failed, opened_in
from proxy import Proxy
from servers import RedisClock, RedisServer

# -- the server's clock ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("world", "by"), [("threads", 2.0), ("asyncio", -60.0)], ids=["forward", "back"]
)
def test_a_clock_that_is_set_costs_the_leases_at_once(
    redis_clock: RedisClock, fresh_namespace: str, world: str, by: float
) -> None:
    """Also where the session would have lived: the next step may be a longer one."""
    ttl = 4.0
    store = opened_in(world, RedisSettings(url=redis_clock.url), fresh_namespace, ttl)
    with Client(store, ttl=ttl) as jobs:
        lease, lost = jobs.begin("vm", Job.MODIFY), threading.Event()
        lease.on_lost(lost.set)
        redis_clock.set_by(by)
        assert lost.wait(ttl), "it was not told within its TTL"
        with pytest.raises(LeaseLost, match=re.escape(f"was set by {by:+.1f}"[:-2])):
            lease.check()
        jobs.begin("vm", Job.MODIFY, wait=ttl).end()  # the old session was ended, not left


def test_what_a_renewal_says_of_clocks(
    redis_clock: RedisClock, fresh_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A tenth of the TTL is a lease's margin; a step that ended the session is told, too."""
    store = connected(RedisSettings(url=redis_clock.url), fresh_namespace)
    me = store.open_session(TTL, "me")
    redis_clock.set_by(0.8 * TTL / 10)
    assert store.keep_alive(me)
    for by in (TTL / 2, -TTL, 3 * TTL):
        redis_clock.set_by(by)
        given_up = store.keep_alive(me)
        assert isinstance(given_up, Void)
        assert "clock" in given_up.why
        assert "given up" in caplog.text
        assert store.remaining([me]) == {me: 0.0}
        me = store.open_session(TTL, "me")
        assert store.keep_alive(me)
    store.close()


def test_looking_costs_no_round_trip(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    before = proxy.requests
    assert through.keep_alive(me)
    assert proxy.requests == before + 1


# -- eviction --------------------------------------------------------------------------------------


def test_a_policy_that_evicts_is_noticed_when_it_is_set(
    connect: Connect, configured: Callable[..., None]
) -> None:
    """Nothing is renewed, so that leases end while their records are there, until it is mended."""
    store = connect()
    me = store.open_session(TTL, "me")
    configured(maxmemory_policy="volatile-ttl", maxmemory="1gb")
    for verb in (lambda: store.keep_alive(me), lambda: store.open_session(TTL, "me")):
        assert "volatile-ttl" in str(error := failed(verb))
        assert "noeviction" in str(error)
    configured(maxmemory_policy="noeviction")
    assert store.keep_alive(me)


# -- what is on disk -------------------------------------------------------------------------------


def test_durable_is_claimed_where_each_write_is_on_disk(
    connect: Connect, configured: Callable[..., None], redis_server: RedisServer, user: str
) -> None:
    """A user that may not ask is told of no promise."""
    for fsync in ("everysec", "always"):
        configured(appendfsync=fsync)
        assert connect().guarantees.durable is (fsync == "always")
    assert not connect(f"redis://{user}{redis_server.address}/0").guarantees.durable


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        ({"appendfsync": "always"}, "ok", "on disk before it answers"),
        ({"appendfsync": "everysec"}, "warning", "last two seconds"),
        ({}, "warning", "does not tell this user"),
        ({"appendfsync": "always", "aof_delayed_fsync": 3}, "warning", "wait 3 time"),
        ({"appendfsync": "always", "aof_last_write_status": "err"}, "danger", "can't write"),
    ],
)
def test_what_doctor_says_of_the_disk(facts: dict[str, Any], level: str, said: str) -> None:
    found = list(doctor._persistence("it", {"aof_enabled": 1, **facts}))
    assert [one.level for one in found if said in one.what] == [level]


# -- what others can read --------------------------------------------------------------------------


def examined(store: Any) -> list[Finding]:
    return list(doctor.examine(store.verbs.source.place, TTL))


def test_a_password_that_can_be_read_is_warned_of(
    redis_server: RedisServer,
    fresh_namespace: str,
    user: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not on loopback: the test takes that for a network."""
    section = RedisSettings(url=f"redis://{user}{redis_server.address}/0")
    connected(section, fresh_namespace).close()
    assert "without TLS" not in caplog.text
    monkeypatch.setattr(watch, "_LOOPBACK", ())
    store = connected(section, fresh_namespace)
    assert "is reached without TLS: the password" in caplog.text
    assert SECRET not in caplog.text
    assert [one.level for one in examined(store) if "without TLS" in one.what] == ["warning"]
    store.close()


def test_a_certificate_that_nobody_looks_at_is_warned_of(
    redis_server: RedisServer,
    fresh_namespace: str,
    configured: Callable[..., None],
    user: str,
    certificates: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Settings can't ask for that, a recipe can."""
    if not redis_server.tls:
        pytest.skip(f"redis of {redis_server.kind} was built without TLS")
    configured(
        tls_cert_file=redis_server.give(certificates / "server.crt"),
        tls_key_file=redis_server.give(certificates / "server.key"),
        tls_ca_cert_file=redis_server.give(certificates / "ca.crt"),
        tls_auth_clients="no",
        tls_port=redis_server.inner_tls_port,
    )
    monkeypatch.setattr(watch, "_LOOPBACK", ())

    def make(module: Any, options: dict[str, Any]) -> Any:
        return module.Redis(**options | {"ssl_cert_reqs": "none", "ssl_check_hostname": False})

    url = f"rediss://{user}127.0.0.1:{redis_server.tls_port}/0"
    store = connected(RedisRecipe(url=url, make=make), fresh_namespace)
    assert "ssl_cert_reqs" in caplog.text
    assert [one.level for one in examined(store) if "ssl_cert_reqs" in one.what] == ["warning"]
    store.close()


# -- fail-overs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["down-after-milliseconds", "cluster-node-timeout"])
def test_a_fail_over_that_is_slower_than_sessions(setting: str) -> None:
    assert not list(doctor._fail_over("it", setting, 5000, 10.0))
    [found] = doctor._fail_over("it", setting, 15_000, 10.0)
    assert setting in found.what
    assert setting in found.advice
