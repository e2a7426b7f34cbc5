"""What tests of the ZooKeeper store share: stores of one namespace, a proxy, an admin's look."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from kazoo.client import KazooClient

from distjob.backend.opened import Blocking
from distjob.config import backends
from distjob_zookeeper import ZookeeperRecipe
from distjob_zookeeper.layout import Layout
from distjob_zookeeper.source import ZookeeperSource
from proxy import Proxy
from servers import ZookeeperNode, wait_for

TTL = 10.0
Open = Callable[..., Blocking]


@pytest.fixture
def proxy(zookeeper_server: ZookeeperNode) -> Iterator[Proxy]:
    with Proxy((zookeeper_server.host, zookeeper_server.port)) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy) -> str:
    return f"127.0.0.1:{proxy.port}"


@pytest.fixture
def hosts(zookeeper_server: ZookeeperNode) -> str:
    return zookeeper_server.hosts


@pytest.fixture
def opened(fresh_namespace: str) -> Iterator[Open]:
    """Opens stores: ``opened(hosts, ttl, **settings)``; ``recipe``: options of kazoo's."""
    with ExitStack() as closing:

        def opened(
            hosts: str, ttl: float = TTL, recipe: dict[str, Any] | None = None, **settings: Any
        ) -> Blocking:
            make = None if recipe is None else partial(KazooClient, **recipe)
            settings = {"timeout": min(2.0, ttl), **settings}
            section = ZookeeperRecipe(hosts=hosts, make=make, **settings)
            store = backends.connect("zookeeper", section, fresh_namespace, ttl)
            assert isinstance(store, Blocking)
            closing.callback(store.close)
            return store

        yield opened


@pytest.fixture
def admin(hosts: str) -> Iterator[KazooClient]:
    """A plain client, which sees all."""
    client = KazooClient(hosts=hosts)
    client.start()
    yield client
    client.stop()
    client.close()


@pytest.fixture
def layout(fresh_namespace: str) -> Layout:
    return Layout(fresh_namespace)


@pytest.fixture
def no_thread_left(zookeeper_server: ZookeeperNode) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_for(lambda: set(threading.enumerate()) <= before, "all threads ended", 5.0)


def source_of(store: Any) -> ZookeeperSource:
    """What is behind a store, blocking or not."""
    source = getattr(store, "verbs", store).source
    assert isinstance(source, ZookeeperSource)
    return source


def kazoo_of(store: Any) -> KazooClient:
    """The client that a store uses now."""
    return source_of(store).connection.client


@contextmanager
def counted(store: Any) -> Iterator[list[Any]]:
    """What requests are sent meanwhile."""
    client, sent = kazoo_of(store), []
    send = client._call

    def counting(request: object, result: object) -> object:
        sent.append(request)
        return send(request, result)

    client._call = counting
    try:
        yield sent
    finally:
        client._call = send


def nodes(admin: KazooClient, path: str) -> int:
    """How many there are below ``path``."""
    below = [f"{path}/{name}" for name in admin.get_children(path)]
    return len(below) + sum(nodes(admin, one) for one in below)


def renewed_for(store: Any, session: str, seconds: float, pause: float) -> None:
    """Keep a session alive for a while, as a client does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert store.keep_alive(session)
        time.sleep(pause)
