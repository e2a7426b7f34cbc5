"""The fault contract on Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from distjob.testing.contract import FaultContract
from distjob.testing.contract.faults import At, Harness, Secured
from servers import RedisServer

ROOM = 5_000_000


class RedisHarness(Harness):
    cannot: dict[Any, str]

    def __init__(
        self, server: RedisServer, admin: redis.Redis, files: Path, restore: ExitStack
    ) -> None:
        self._server = server
        self._admin = admin
        self._files = files
        self._restore = restore
        self.port = server.port
        self.stop, self.start = server.kill, server.start
        self.freeze, self.thaw = server.pause, server.resume
        self.cannot = {"ends": "it tells nobody of an end: when that is, is known"}
        if not server.tls:
            self.cannot["secured"] = "it was built without TLS"

    def section(self, at: At) -> tuple[str, Mapping[str, Any]]:
        return "redis", {"url": f"redis://{at.address}/0", "timeout": at.timeout}

    def reformat(self, namespace: str) -> None:
        self._admin.set(f"distjob:{{{namespace}}}:format", "99")

    def small(self) -> str:
        used = int(self._admin.info("memory")["used_memory"])
        self._restore.callback(self._admin.flushall)
        self._configure(maxmemory=used + ROOM)
        return self.address

    def secured(self) -> Secured:
        server, given = self._server, self._files
        self._configure(
            tls_cert_file=server.give(given / "server.crt"),
            tls_key_file=server.give(given / "server.key"),
            tls_ca_cert_file=server.give(given / "ca.crt"),
            tls_port=server.inner_tls_port,
        )
        address = f"127.0.0.1:{server.tls_port}"
        ca = {"ca_file": str(given / "ca.crt"), "url": f"rediss://{address}/0"}
        own = {"cert_file": str(given / "client.crt"), "key_file": str(given / "client.key")}
        return Secured(
            address=address,
            right={**ca, **own},
            wrong=[ca, {**own, "url": ca["url"]}, {}],
        )

    def _configure(self, **settings: str | int) -> None:
        for name, value in settings.items():
            key = name.replace("_", "-")
            before = str(self._admin.config_get(key)[key])
            self._restore.callback(self._admin.config_set, key, before)
            self._admin.config_set(key, value)


class TestRedisFaults(FaultContract):
    @pytest.fixture
    def harness(self, redis_server: RedisServer, certificates: Path) -> Iterator[Harness]:
        with (
            redis.Redis.from_url(redis_server.url, protocol=2) as admin,
            ExitStack() as restore,
        ):
            yield RedisHarness(redis_server, admin, certificates, restore)
