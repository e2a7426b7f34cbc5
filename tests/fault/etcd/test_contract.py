"""The fault contract on etcd."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from distjob.testing.contract import FaultContract
from distjob.testing.contract.faults import At, Harness, Secured
from servers import EtcdNode

CERTIFICATES = ("server.crt", "server.key", "ca.crt")


class EtcdHarness(Harness):
    cannot = {"small": "what finds it full is made and refused: tests/fault/etcd/test_full.py"}  # noqa: RUF012
    ends_of_a_forked_child = (7, -signal.SIGSEGV)  # gRPC's asyncio may crash in os.fork

    def __init__(self, node: EtcdNode, secure: Callable[[], EtcdNode], files: Path) -> None:
        self._node = node
        self._secure = secure
        self._files = files
        self.host, self.port = node.host, node.port
        self.stop, self.start = node.kill, node.start
        self.freeze, self.thaw = node.pause, node.resume

    def section(self, at: At) -> tuple[str, Mapping[str, Any]]:
        return "etcd", {"endpoints": [at.address], "timeout": at.timeout}

    def reformat(self, namespace: str) -> None:
        self._node.cli("put", f"distjob/{namespace}/format", "99")

    def secured(self) -> Secured:
        node = self._secure()
        ca = {"ca_file": str(self._files / "ca.crt"), "endpoints": [f"https://{node.address}"]}
        own = {
            "cert_file": str(self._files / "client.crt"),
            "key_file": str(self._files / "client.key"),
        }
        return Secured(
            address=node.address,
            right={**ca, **own},
            wrong=[ca, {**own, "endpoints": ca["endpoints"]}, {}],
        )


class TestEtcdFaults(FaultContract):
    @pytest.fixture
    def harness(
        self, etcd_server: EtcdNode, request: pytest.FixtureRequest, certificates: Path
    ) -> Harness:
        def secure() -> EtcdNode:
            spawn = request.getfixturevalue("spawn_etcd")
            node: EtcdNode = spawn(
                "--cert-file={dir}/server.crt",
                "--key-file={dir}/server.key",
                "--trusted-ca-file={dir}/ca.crt",
                "--client-cert-auth",
                scheme="https",
                give=[certificates / name for name in CERTIFICATES],
            )
            return node

        return EtcdHarness(etcd_server, secure, certificates)
