"""Passwords, users with few permissions, TLS."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from distjob.errors import ConfigError, DistjobError
from distjob.store import Store, Woken
from on_redis import TTL, Connect, assert_secret, commit_waking
from proxy import Proxy
from servers import RedisServer

if TYPE_CHECKING:
    import redis


def test_an_acl_user_can_do_all_it_needs(
    connect: Connect, redis_server: RedisServer, user: str
) -> None:
    exercise(connect(f"redis://{user}127.0.0.1:{redis_server.port}/0"))


COMMANDS = (
    *("info", "get", "set", "del", "pexpire", "pttl", "time", "scan", "evalsha", "eval"),
    *("publish", "subscribe", "ping"),
)


@pytest.mark.parametrize("lacking", COMMANDS)
def test_a_missing_permission_is_found_at_connect(
    connect: Connect, redis_server: RedisServer, admin: redis.Redis, user: str, lacking: str
) -> None:
    acl: Callable[..., object] = admin.execute_command
    acl("ACL", "SETUSER", "distjob", f"-{lacking}")
    with pytest.raises(ConfigError, match=r"users\.acl") as caught:
        connect(f"redis://{user}{redis_server.address}/0")
    assert re.search(rf"\b{lacking}\b", str(caught.value), re.IGNORECASE), caught.value
    assert_secret(caught.value)


@pytest.mark.parametrize("lacking", ["resetchannels", "resetkeys"])
def test_what_the_user_may_not_see_is_found_at_connect(
    connect: Connect, redis_server: RedisServer, admin: redis.Redis, user: str, lacking: str
) -> None:
    acl: Callable[..., object] = admin.execute_command
    acl("ACL", "SETUSER", "distjob", lacking)
    with pytest.raises(ConfigError, match=r"users\.acl"):
        connect(f"redis://{user}{redis_server.address}/0")


def test_no_more_is_granted_than_is_asked_for(user: str, admin: redis.Redis) -> None:
    """What is in the file and not rehearsed is redis-py's own, by which it logs in."""
    told: Any = admin.execute_command("ACL", "GETUSER", "distjob")
    commands = dict(zip(*[iter(told)] * 2, strict=True))[b"commands"].decode().split()
    granted = {word[1:] for word in commands if word.startswith("+")}
    assert granted == {*COMMANDS, "select", "hello"}


def test_a_rehearsal_leaves_nothing(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    connect()
    prefix = f"distjob:{{{fresh_namespace}}}:"
    left = {key.decode() for key in admin.scan_iter(f"{prefix}*", count=1000)}
    assert left == {f"{prefix}format", f"{prefix}version"}


def test_connecting_takes_few_round_trips(connect: Connect, proxy: Proxy) -> None:
    """All that is rehearsed goes in one."""
    connect(f"redis://{proxy.address}/0")
    assert proxy.requests <= 10


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
