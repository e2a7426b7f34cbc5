"""Servers that were wiped, and servers that do not take what is asked of them: each is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from distjob.errors import BackendUnavailable, ConfigError
from distjob.store import ABSENT, Committed, Store
from distjob.testing.contract import committed, try_until
from distjob_zookeeper import backend
from distjob_zookeeper.layout import Layout
from servers import ZookeeperNode
from zookeeper_stores import TTL, Open, kazoo_of, source_of

if TYPE_CHECKING:
    from kazoo.client import KazooClient

Spawn = Callable[..., ZookeeperNode]


def test_servers_that_were_wiped_under_a_store(
    zookeeper_server: ZookeeperNode, opened: Open
) -> None:
    """kazoo has seen a later zxid, and is not let in again; tokens go on rising."""
    ttl = 3.0
    store = opened(zookeeper_server.hosts, ttl)
    me = store.open_session(ttl, "me")
    for number in range(50):
        last = committed(store, f"vm-{number}", b"x", me)
    before = kazoo_of(store)
    zookeeper_server.wipe()
    zookeeper_server.start()
    again = try_until(lambda: store.open_session(ttl, "again"))
    assert kazoo_of(store) is not before
    assert not store.keep_alive(me)
    assert list(store.scan()) == []
    assert committed(store, "vm-0", b"y", again) > last


def test_a_namespace_that_was_removed_under_a_store(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    """And made again by another: each goes by the base that its session began with."""
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    committed(store, "vm", b"x", me)
    admin.delete(layout.root, recursive=True)
    other = opened(hosts)
    last = committed(other, "vm", b"y", other.open_session(TTL, "you"))
    again = store.open_session(TTL, "again")
    assert store.read("vm").version == last
    assert committed(store, "vm", b"z", again) > last


def test_a_server_that_takes_little_at_once(spawn_zookeeper: Spawn, opened: Open) -> None:
    node = spawn_zookeeper(jvm="-Djute.maxbuffer=100000")
    with pytest.raises(ConfigError, match=r"1040000 bytes is not taken.*jute\.maxbuffer"):
        opened(node.hosts)


def fill(store: Store, me: str) -> None:
    for number in range(10):
        assert isinstance(store.commit(f"vm-{number}", ABSENT, b"x", me, ()), Committed)


def test_quotas_and_a_host_with_too_many_connections(spawn_zookeeper: Spawn, opened: Open) -> None:
    node = spawn_zookeeper({"maxClientCnxns": "2"}, jvm="-Dzookeeper.enforceQuota=true")
    store = opened(node.hosts)
    me = store.open_session(TTL, "me")
    node.cli("setquota", "-N", "3", source_of(store).layout.vms)
    with pytest.raises(BackendUnavailable, match=r"a quota is used up: see .*listquota") as caught:
        fill(store, me)
    assert not caught.value.unanswered
    with pytest.raises(BackendUnavailable, match="quota"):
        opened(node.hosts)
    second = opened(f"{node.hosts}/elsewhere")
    with pytest.raises(BackendUnavailable, match="maxClientCnxns"):
        opened(node.hosts, timeout=1.0)
    assert backend.examine is not None
    [told] = [found for found in backend.examine(second) if "says nothing" in found.what]
    assert "maxClientCnxns" in told.advice
