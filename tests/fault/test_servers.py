"""The tests' own servers do what fault tests ask of them, and are healed after each."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from servers import (
    EtcdCluster,
    EtcdNode,
    Node,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    ZookeeperCluster,
    ZookeeperNode,
    wait_for,
)

# -- what can be done to one ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "write", "read"),
    [
        ("redis_server", "set kept yes", "get kept"),
        ("etcd_server", "put kept yes", "get kept"),
        ("zookeeper_server", "create /kept yes", "get /kept"),
    ],
)
def test_a_killed_server_comes_back_with_its_data(
    request: pytest.FixtureRequest, name: str, write: str, read: str
) -> None:
    server: RedisServer | EtcdNode | ZookeeperNode = request.getfixturevalue(name)
    assert server.version
    server.cli(*write.split())
    server.kill()
    assert not server.answers()
    server.start()
    assert server.answers()
    assert "yes" in server.cli(*read.split())
    server.pause()
    assert not server.answers()
    server.resume()
    assert server.answers()


@pytest.mark.parametrize("harm", [Node.kill, Node.stop, Node.pause])
def test_what_a_test_leaves_broken_is_healed(
    redis_server: RedisServer, harm: Callable[[Node], None]
) -> None:
    harm(redis_server)
    assert not redis_server.answers()
    redis_server.heal()
    assert redis_server.answers()
    assert not redis_server.touched


def test_one_that_was_spawned_has_its_flags(spawn_etcd: Callable[..., EtcdNode]) -> None:
    node = spawn_etcd("--max-request-bytes=1000")
    node.cli("put", "key", 500 * "x")
    with pytest.raises(RuntimeError, match="request is too large"):
        node.cli("put", "key", 5000 * "x")


# -- and to several -------------------------------------------------------------------------------


def test_etcd_goes_on_without_its_leader(etcd_cluster: EtcdCluster) -> None:
    old = etcd_cluster.leader()
    new = etcd_cluster.fail_over()
    assert etcd_cluster.leader() is new
    assert new is not old
    new.kill()
    assert etcd_cluster.leader() is not new


def test_one_that_is_cut_off_hears_nothing_and_comes_back(etcd_cluster: EtcdCluster) -> None:
    old = etcd_cluster.leader()
    old.cut_off()
    with pytest.raises(TimeoutError), socket.create_connection((old.host, old.port), timeout=0.5):
        pass
    assert etcd_cluster.leader() is not old
    old.rejoin()
    etcd_cluster.wait_until_ready()


def test_zookeeper_goes_on_without_its_leader(zookeeper_cluster: ZookeeperCluster) -> None:
    old = zookeeper_cluster.leader()
    old.kill()
    assert zookeeper_cluster.leader() is not old


def test_sentinel_finds_a_new_primary(redis_sentinel: RedisSentinel) -> None:
    old = redis_sentinel.primary()
    new = redis_sentinel.fail_over()
    assert redis_sentinel.primary() is new
    assert new is not old
    redis_sentinel.wait_until_ready()
    new.kill()
    wait_for(lambda: redis_sentinel.primary() is old, "the failover after a death")


def test_a_cluster_replaces_a_primary(redis_cluster: RedisCluster) -> None:
    old = redis_cluster.owner(0)
    assert redis_cluster.fail_over(old) is redis_cluster.owner(0)
    redis_cluster.owner(0).kill()
    wait_for(lambda: redis_cluster.owner(0) is old, "the failover after a death")
