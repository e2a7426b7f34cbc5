"""The ZooKeeper store, against the contract, on real servers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from kazoo.client import KazooClient

from distjob.config import backends
from distjob.store import Store
from distjob.testing.contract import Connect, StoreContract
from distjob.testing.onloop import OnLoop
from distjob_zookeeper import ZookeeperSettings
from distjob_zookeeper.layout import Layout
from servers import ZookeeperCluster, ZookeeperNode

TTL = 10.0


def open_blocking(settings: ZookeeperSettings, namespace: str) -> Store:
    return backends.connect("zookeeper", settings, namespace, TTL)


def open_on_loop(settings: ZookeeperSettings, namespace: str) -> Store:
    return OnLoop(partial(backends.connect_async, "zookeeper", settings, namespace, TTL))


class TestZookeeper(StoreContract):
    open = staticmethod(open_blocking)

    @pytest.fixture
    def hosts(self, zookeeper_server: ZookeeperNode) -> str:
        return zookeeper_server.hosts

    @pytest.fixture
    def admin(self, hosts: str) -> Iterator[KazooClient]:
        client = KazooClient(hosts=hosts)
        client.start()
        yield client
        client.stop()
        client.close()

    @pytest.fixture
    def connect(self, hosts: str, fresh_namespace: str) -> Iterator[Connect]:
        settings = ZookeeperSettings(hosts=hosts, timeout=10.0)
        stores: list[Store] = []

        def connect() -> Store:
            stores.append(self.open(settings, fresh_namespace))
            return stores[-1]

        yield connect
        for store in stores:
            store.close()

    @pytest.fixture
    def settings(self, hosts: str, fresh_namespace: str) -> Mapping[str, Any]:
        return {
            "backend": "zookeeper",
            "namespace": fresh_namespace,
            "zookeeper": {"hosts": hosts},
        }

    @pytest.fixture
    def entries(self, admin: KazooClient, fresh_namespace: str) -> Callable[[], int]:
        layout = Layout(fresh_namespace)

        def entries() -> int:
            left, count = [layout.root], 0
            while left:
                node = left.pop()
                below = [f"{node}/{name}" for name in admin.get_children(node)]
                left += below
                count += len(below)
            return count

        return entries

    @pytest.fixture
    def asked(self, admin: KazooClient) -> Callable[[], int]:
        def asked() -> int:
            report = admin.command(b"srvr")
            return int(report.partition("Received: ")[2].split()[0])

        return asked

    @pytest.fixture
    def restart(self, zookeeper_server: ZookeeperNode) -> Callable[[], None]:
        def restart() -> None:
            zookeeper_server.kill()
            zookeeper_server.start()

        return restart

    @pytest.fixture
    def lose(self, zookeeper_server: ZookeeperNode) -> Callable[[], None]:
        def lose() -> None:
            zookeeper_server.wipe()
            zookeeper_server.start()

        return lose


class TestZookeeperEnsemble(TestZookeeper):
    """Three servers; each client is at one of them, by chance."""

    @pytest.fixture
    def hosts(self, zookeeper_cluster: ZookeeperCluster) -> str:
        return zookeeper_cluster.hosts

    @pytest.fixture
    def restart(self, zookeeper_cluster: ZookeeperCluster) -> Callable[[], None]:
        def restart() -> None:
            for node in zookeeper_cluster.nodes:
                node.kill()
            for node in zookeeper_cluster.nodes:
                node.machine.start()
            zookeeper_cluster.wait_until_ready()

        return restart

    @pytest.fixture
    def fail_over(self, zookeeper_cluster: ZookeeperCluster) -> Callable[[], None]:
        def fail_over() -> None:
            zookeeper_cluster.fail_over()

        return fail_over

    @pytest.fixture
    def asked(self, zookeeper_cluster: ZookeeperCluster) -> Callable[[], int]:
        nodes, ours = zookeeper_cluster.nodes, itertools.count(1)

        def asked() -> int:
            reports = [node.ask("srvr") for node in nodes]
            had = sum(int(report.partition("Received: ")[2].split()[0]) for report in reports)
            return had - next(ours) * (len(nodes) - 1)  # each was asked for its number

        return asked


class TestZookeeperOnAsyncio(TestZookeeper):
    open = staticmethod(open_on_loop)


class TestZookeeperEnsembleOnAsyncio(TestZookeeperEnsemble):
    open = staticmethod(open_on_loop)
