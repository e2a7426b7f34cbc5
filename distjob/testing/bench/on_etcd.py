"""Yardsticks on etcd: a Txn that puts, and the Lock of a client library made for etcd."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping

import grpc
import pyetcd

from distjob.config import SessionSettings, Settings, open_backend
from distjob.store import Store
from distjob_etcd import EtcdRecipe, EtcdSettings
from distjob_etcd import rpc_pb2 as rpc

_COUNTED = re.compile(r'^grpc_server_started_total\{grpc_method="(\w+)".*\} (\d+)$', re.MULTILINE)


class EtcdYard:
    """See `distjob.testing.bench.yardstick.Yardstick`. Without TLS and passwords."""

    def __init__(self, settings: Settings) -> None:
        section: EtcdSettings = settings.section
        self._namespace = settings.namespace
        self._endpoints = section.endpoints
        self._channel = grpc.insecure_channel(section.endpoints[0])
        self._txn = self._channel.unary_unary(
            "/etcdserverpb.KV/Txn", rpc.TxnRequest.SerializeToString, rpc.TxnResponse.FromString
        )
        self._key = f"bench/{settings.namespace}".encode()
        self.bare = {"two Txn that put": self._two_writes}
        host, _, port = section.endpoints[0].rpartition(":")
        self._other = pyetcd.client(host=host, port=int(port))
        lock = self._other.lock(settings.namespace, ttl=30)

        def locking() -> None:
            lock.acquire()
            lock.release()

        self.lock = ("etcd-sdk-python Lock", locking)

    def _two_writes(self) -> None:
        self.one_write()
        self.one_write()

    def one_write(self) -> object:
        """One Txn with one put, as long as a job is."""
        put = rpc.PutRequest(key=self._key, value=b"x" * 250)
        return self._txn(rpc.TxnRequest(success=[rpc.RequestOp(request_put=put)]))

    def store(self, ttl: float) -> Store:
        """A store on the same channel."""
        settings = Settings(
            backend="etcd",
            namespace=self._namespace,
            session=SessionSettings(ttl=ttl),
            section=EtcdRecipe(client=self._channel),
        )
        return open_backend(settings)

    def asked(self) -> Mapping[str, int]:
        """RPCs by name, of all members."""
        found: dict[str, int] = {}
        for endpoint in self._endpoints:
            with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=5) as page:
                for name, count in _COUNTED.findall(page.read().decode()):
                    found[name] = found.get(name, 0) + int(count)
        return found

    def close(self) -> None:
        """Remove the keys of the bench."""
        self._other.delete(self._key)
        self._other.delete_prefix(f"distjob/{self._namespace}/")
        self._other.close()
        self._channel.close()
