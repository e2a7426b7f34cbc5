"""Yardsticks on ZooKeeper: a multi that sets data, and kazoo's Lock."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping

from kazoo.client import KazooClient
from kazoo.hosts import collect_hosts

from distjob.config import Settings, backends
from distjob.errors import ConfigError
from distjob.store import Store
from distjob_zookeeper import ZookeeperSettings

_COUNTED = re.compile(r"^zk_(packets_received)\t(\d+)$", re.MULTILINE)


class ZookeeperYard:
    """See `distjob.testing.bench.yardstick.Yardstick`. Without TLS and passwords."""

    def __init__(self, settings: Settings) -> None:
        section: ZookeeperSettings = settings.section
        self._section = section
        self._namespace = settings.namespace
        self._client = KazooClient(hosts=section.hosts, timeout=10.0)
        self._client.start(timeout=10.0)
        self._hosts = collect_hosts(section.hosts)[0]
        self._looks = 0
        self._path = f"/bench-{settings.namespace}"
        self._client.ensure_path(self._path)
        self.bare = {"two multis that set data": self._two_writes}
        lock = self._client.Lock(f"{self._path}/lock")

        def locking() -> None:
            lock.acquire()
            lock.release()

        self.lock = ("kazoo Lock", locking)

    def _two_writes(self) -> None:
        self.one_write()
        self.one_write()

    def one_write(self) -> object:
        """One multi with one setData, as long as a job is."""
        transaction = self._client.transaction()
        transaction.set_data(self._path, b"x" * 250)
        return transaction.commit()

    def store(self, ttl: float) -> Store:
        """A store with a client of its own."""
        return backends.connect("zookeeper", self._section, self._namespace, ttl)

    def asked(self) -> Mapping[str, int]:
        """Packets of clients, as `mntr` counts them, of all servers; its own left out."""
        self._looks += len(self._hosts)
        found = {"packets_received": -self._looks}
        for place in self._hosts:
            with socket.create_connection(place, timeout=5) as link:
                link.sendall(b"mntr")
                said = b"".join(iter(lambda: link.recv(65536), b"")).decode()
            if not _COUNTED.search(said):
                msg = "the bench needs mntr in ZooKeeper's 4lw.commands.whitelist"
                raise ConfigError(msg)
            for name, count in _COUNTED.findall(said):
                found[name] += int(count)
        return found

    def close(self) -> None:
        """Remove the nodes of the bench."""
        self._client.delete(self._path, recursive=True)
        if self._client.exists(f"/distjob/{self._namespace}"):
            self._client.delete(f"/distjob/{self._namespace}", recursive=True)
        self._client.stop()
        self._client.close()
