"""The fault contract on ZooKeeper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from distjob.testing.contract import FaultContract
from distjob.testing.contract.faults import At, Harness, Secured
from distjob_zookeeper.layout import Layout
from servers import ZookeeperNode


class ZookeeperHarness(Harness):
    cannot = {"small": "ZooKeeper has no bound that it stays alive behind"}  # noqa: RUF012

    def __init__(
        self, node: ZookeeperNode, secure: Callable[[], ZookeeperNode], files: Path
    ) -> None:
        self._secure = secure
        self._files = files
        self.host, self.port = node.host, node.port
        self.stop, self.start = node.kill, node.start
        self.freeze, self.thaw = node.pause, node.resume

    def section(self, at: At) -> tuple[str, Mapping[str, Any]]:
        return "zookeeper", {"hosts": at.address, "timeout": at.timeout}

    def reformat(self, namespace: str) -> None:
        client = KazooClient(hosts=self.address)
        client.start()
        client.set(Layout(namespace).format, b"99")
        client.stop()
        client.close()

    def secured(self) -> Secured:
        node = self._secure()
        ca = {"tls": True, "ca_file": str(self._files / "ca.crt")}
        own = {
            "cert_file": str(self._files / "client.crt"),
            "key_file": str(self._files / "client.key"),
        }
        return Secured(
            address=f"127.0.0.1:{node.tls_port}",
            right={**ca, **own},
            wrong=[ca, {"tls": True, **own}, {}],
        )


class TestZookeeperFaults(FaultContract):
    @pytest.fixture
    def harness(
        self, zookeeper_server: ZookeeperNode, request: pytest.FixtureRequest, certificates: Path
    ) -> Harness:
        def secure() -> ZookeeperNode:
            spawn = request.getfixturevalue("spawn_zookeeper")
            node: ZookeeperNode = spawn(
                {
                    "ssl.keyStore.location": "{dir}/server.pem",
                    "ssl.trustStore.location": "{dir}/ca.crt",
                    "ssl.trustStore.type": "PEM",  # only those that end with .pem are known for it
                },
                give=[certificates / "server.pem", certificates / "ca.crt"],
                tls=True,
            )
            return node

        return ZookeeperHarness(zookeeper_server, secure, certificates)
