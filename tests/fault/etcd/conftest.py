"""What the tests of etcd's bad days have in common: a proxy before it, and stores of either world.

A test that asks for `connect` is run in threads and on asyncio, where each call is a task.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from distjob.store import Store
from distjob.testing.onloop import LoopThread, OnLoop
from distjob_etcd import EtcdSettings
from on_etcd import TTL, opened, opened_async
from proxy import Proxy
from servers import EtcdNode

Open = Callable[[EtcdSettings, str, float], Store]
Connect = Callable[..., Store]


@pytest.fixture(params=["threads", "asyncio"])
def open_store(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a store by its section, a namespace and a TTL; the test closes it."""
    if request.param == "threads":
        yield opened
        return
    thread = LoopThread()
    # Older gRPC grumbles where there are several loops.
    yield lambda section, namespace, ttl: OnLoop(
        partial(opened_async, section, namespace, ttl), thread
    )
    left = thread.close()
    assert not left, left


@pytest.fixture
def connect(open_store: Open, etcd_server: EtcdNode, fresh_namespace: str) -> Iterator[Connect]:
    """Opens a store on the tests' own server, or on another address."""
    with contextlib.ExitStack() as closing:

        def connect(
            *addresses: str,
            ttl: float = TTL,
            timeout: float = 5.0,
            namespace: str = fresh_namespace,
        ) -> Store:
            endpoints = addresses or (etcd_server.address,)
            section = EtcdSettings(endpoints=endpoints, timeout=timeout)
            store = open_store(section, namespace, ttl)
            closing.callback(store.close)
            return store

        yield connect


@pytest.fixture
def proxy(etcd_server: EtcdNode) -> Iterator[Proxy]:
    """Leads to the tests' own server."""
    with Proxy((etcd_server.host, etcd_server.port)) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy, connect: Connect) -> Store:
    """A store behind the proxy."""
    return connect(proxy.address)
