"""The etcd store, against the contract, on a real server and on three."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import grpc
import pytest

from distjob.store import Store
from distjob.testing.contract import Connect, StoreContract
from distjob.testing.onloop import LoopThread, OnLoop
from distjob_etcd import EtcdRecipe, EtcdSettings
from on_etcd import opened, opened_async
from servers import EtcdCluster, EtcdNode

PATIENT = 10.0
"""Seconds; of a machine that is busy with other tests."""


class OnEtcd(StoreContract):
    """What one node and three have in common."""

    @pytest.fixture
    def endpoints(self) -> list[str]:
        msg = "override the fixture `endpoints`"
        raise NotImplementedError(msg)

    @pytest.fixture
    def node(self) -> EtcdNode:
        msg = "override the fixture `node`"
        raise NotImplementedError(msg)

    @pytest.fixture
    def section(self, endpoints: list[str]) -> EtcdSettings:
        return EtcdSettings(endpoints=tuple(endpoints), timeout=PATIENT)

    @pytest.fixture
    def connect(self, section: EtcdSettings, fresh_namespace: str) -> Iterator[Connect]:
        stores: list[Store] = []

        def connect() -> Store:
            stores.append(opened(section, fresh_namespace))
            return stores[-1]

        yield connect
        for store in stores:
            store.close()

    @pytest.fixture
    def settings(self, endpoints: list[str], fresh_namespace: str) -> Mapping[str, Any]:
        etcd = {"endpoints": endpoints, "timeout": PATIENT}
        common = {"namespace": fresh_namespace, "session": {"ttl": PATIENT}}
        return {**common, "backend": "etcd", "etcd": etcd}

    @pytest.fixture
    def entries(self, node: EtcdNode, fresh_namespace: str) -> Callable[[], int]:
        def entries() -> int:
            said = node.cli("get", "--prefix", "--keys-only", f"distjob/{fresh_namespace}/")
            return len(said.split())

        return entries

    @pytest.fixture
    def asked(self, node: EtcdNode) -> Callable[[], int]:
        def asked() -> int:
            with urllib.request.urlopen(f"http://{node.address}/metrics", timeout=10) as page:
                text = page.read().decode()
            found = re.findall(r"(?m)^grpc_server_msg_received_total\{.*\} (\S+)$", text)
            return round(sum(map(float, found)))

        return asked


class TestEtcd(OnEtcd):
    @pytest.fixture
    def node(self, etcd_server: EtcdNode) -> EtcdNode:
        return etcd_server

    @pytest.fixture
    def endpoints(self, etcd_server: EtcdNode) -> list[str]:
        return etcd_server.endpoints

    @pytest.fixture
    def restart(self, etcd_server: EtcdNode) -> Callable[[], None]:
        def restart() -> None:
            etcd_server.kill()
            etcd_server.start()

        return restart

    @pytest.fixture
    def lose(self, etcd_server: EtcdNode) -> Callable[[], None]:
        def lose() -> None:
            etcd_server.wipe()
            etcd_server.start()

        return lose


class TestEtcdWithAChannelOfTheUsers(TestEtcd):
    """GRPC's own defaults: its retries, and messages of 4 MiB; one channel for all stores."""

    @pytest.fixture
    def section(self, endpoints: list[str]) -> Iterator[EtcdSettings]:
        with grpc.insecure_channel(endpoints[0]) as channel:
            yield EtcdRecipe(client=channel, timeout=PATIENT)


class OnAsyncio(OnEtcd):
    """Each store with channels of its own."""

    @pytest.fixture
    def loop(self) -> Iterator[LoopThread]:
        thread = LoopThread()
        yield thread
        left = thread.close()
        assert not left, left

    @pytest.fixture
    def connect(
        self, loop: LoopThread, section: EtcdSettings, fresh_namespace: str
    ) -> Iterator[Connect]:
        stores: list[Store] = []

        def connect() -> Store:
            stores.append(OnLoop(partial(opened_async, section, fresh_namespace), loop))
            return stores[-1]

        yield connect
        for store in stores:
            store.close()


class TestEtcdOnAsyncio(OnAsyncio, TestEtcd):
    pass


class TestEtcdOnAsyncioByARecipe(OnAsyncio, TestEtcd):
    """The user makes the channels, with gRPC's own defaults."""

    @pytest.fixture
    def section(self, endpoints: list[str]) -> EtcdSettings:
        def make(channels: Any, name: str) -> Any:
            made.append(channels)
            return channels.insecure_channel(name)

        made: list[Any] = []
        return EtcdRecipe(endpoints=tuple(endpoints), timeout=PATIENT, make=make)


class TestEtcdCluster(OnEtcd):
    @pytest.fixture
    def node(self, etcd_cluster: EtcdCluster) -> EtcdNode:
        return etcd_cluster.nodes[0]

    @pytest.fixture
    def endpoints(self, etcd_cluster: EtcdCluster) -> list[str]:
        return etcd_cluster.endpoints

    @pytest.fixture
    def restart(self, etcd_cluster: EtcdCluster) -> Callable[[], None]:
        def restart() -> None:
            for node in etcd_cluster.nodes:
                node.kill()
            for node in etcd_cluster.nodes:
                node.machine.start()
            etcd_cluster.wait_until_ready()

        return restart

    @pytest.fixture
    def lose(self, etcd_cluster: EtcdCluster) -> Callable[[], None]:
        def lose() -> None:
            for node in etcd_cluster.nodes:
                node.wipe()
            for node in etcd_cluster.nodes:
                node.machine.start()
            etcd_cluster.wait_until_ready()

        return lose

    @pytest.fixture
    def fail_over(self, etcd_cluster: EtcdCluster) -> Callable[[], None]:
        def fail_over() -> None:
            old = etcd_cluster.leader()
            old.kill()
            etcd_cluster.leader()

        return fail_over


class TestEtcdClusterOnAsyncio(OnAsyncio, TestEtcdCluster):
    pass
