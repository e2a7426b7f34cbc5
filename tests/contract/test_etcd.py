"""The etcd store, against the contract, on a real server and on three."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from distjob.store import AsyncStore, Store
from distjob.testing.contract import Connect, StoreContract
from distjob.testing.onloop import LoopThread, OnLoop
from distjob_etcd import EtcdSettings, backend
from distjob_etcd.aio import open_store
from distjob_etcd.store import EtcdStore
from servers import EtcdCluster, EtcdNode

TTL = 10.0
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
    def connect(self, endpoints: list[str], fresh_namespace: str) -> Iterator[Connect]:
        settings = EtcdSettings(endpoints=tuple(endpoints), timeout=PATIENT)
        stores: list[Store] = []

        def connect() -> Store:
            stores.append(backend.connect(settings, fresh_namespace, TTL))
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


class TestEtcdWithAChannelOfTheUsers(TestEtcd):
    """GRPC's own defaults: its retries, and messages of 4 MiB."""

    @pytest.fixture
    def connect(self, endpoints: list[str], fresh_namespace: str) -> Iterator[Connect]:
        stores: list[Store] = []
        with grpc.insecure_channel(endpoints[0]) as channel:

            def connect() -> Store:
                stores.append(EtcdStore(channel, fresh_namespace, TTL, timeout=PATIENT))
                return stores[-1]

            yield connect
            for store in stores:
                store.close()


class InLoop(OnLoop):
    """In a loop that all stores of a test share: older gRPC grumbles where there are several."""

    def __init__(self, thread: LoopThread, connect: Callable[[], Awaitable[AsyncStore]]) -> None:
        self._thread = thread
        self.store = thread.run(_awaited(connect))
        self.guarantees = self.store.guarantees

    def close(self) -> None:
        self._thread.run(self.store.close())


async def _awaited(connect: Callable[[], Awaitable[AsyncStore]]) -> AsyncStore:
    return await connect()


async def _channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address)


class OnAsyncio(OnEtcd):
    """Each store with channels of its own."""

    @pytest.fixture
    def loop(self) -> Iterator[LoopThread]:
        thread = LoopThread()
        yield thread
        left = thread.close()
        assert not left, left

    @pytest.fixture
    def opening(
        self, endpoints: list[str], fresh_namespace: str
    ) -> Callable[[], Awaitable[AsyncStore]]:
        assert backend.connect_async is not None
        settings = EtcdSettings(endpoints=tuple(endpoints), timeout=PATIENT)
        return partial(backend.connect_async, settings, fresh_namespace, TTL)

    @pytest.fixture
    def connect(
        self, loop: LoopThread, opening: Callable[[], Awaitable[AsyncStore]]
    ) -> Iterator[Connect]:
        stores: list[Store] = []

        def connect() -> Store:
            stores.append(InLoop(loop, opening))
            return stores[-1]

        yield connect
        for store in stores:
            store.close()


class TestEtcdOnAsyncio(OnAsyncio, TestEtcd):
    pass


class TestEtcdOnAsyncioWithAChannelOfTheUsers(OnAsyncio, TestEtcd):
    """GRPC's own defaults, and one channel for all stores."""

    @pytest.fixture
    def opening(
        self, loop: LoopThread, endpoints: list[str], fresh_namespace: str
    ) -> Iterator[Callable[[], Awaitable[AsyncStore]]]:
        channel = loop.run(_channel(endpoints[0]))
        yield partial(open_store, channel, fresh_namespace, TTL, timeout=PATIENT)
        assert channel.get_state() is not grpc.ChannelConnectivity.SHUTDOWN
        loop.run(channel.close())


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
    def fail_over(self, etcd_cluster: EtcdCluster) -> Callable[[], None]:
        def fail_over() -> None:
            old = etcd_cluster.leader()
            old.kill()
            etcd_cluster.leader()

        return fail_over


class TestEtcdClusterOnAsyncio(OnAsyncio, TestEtcdCluster):
    pass
