"""Every store as a fixture, on each kind of server and topology in turn.

`open_store` opens connections of one namespace, `clients` makes clients of them, `config` is a
settings file for one, for commands. `KINDS` names them: `pytest -k etcd-cluster` takes one, and
`etcd+asyncio` is the same store, used by asyncio; clusters are, where a test asks for `WORLDS`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distjob import Client
from distjob.config import load, open_backend, open_backend_async
from distjob.store import AsyncStore, Store
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from distjob.testing.onloop import OnLoop, ProxyClient

REAL = (
    *("sqlite", "redis", "redis-sentinel", "redis-cluster"),
    *("etcd", "etcd-cluster", "zookeeper", "zookeeper-cluster"),
)
KINDS = ("memory", *REAL)
WORLDS = (*KINDS, *(f"{kind}+asyncio" for kind in KINDS))


def section_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    """The settings section that names the tests' own server of this kind, which is started."""
    server = request.getfixturevalue
    match kind:
        case "sqlite":
            return {"path": str(folder / "jobs.db")}
        case "redis":
            return {"url": server("redis_server").url}
        case "redis-sentinel":
            there = server("redis_sentinel")
            hosts = [f"{host}:{port}" for host, port in there.sentinels]
            return {"sentinel": {"hosts": hosts, "name": there.name}}
        case "redis-cluster":
            nodes = server("redis_cluster").nodes
            return {"cluster": {"hosts": [f"{node.host}:{node.port}" for node in nodes]}}
        case "etcd":
            return {"endpoints": server("etcd_server").endpoints}
        case "etcd-cluster":
            return {"endpoints": server("etcd_cluster").endpoints}
        case "zookeeper":
            return {"hosts": server("zookeeper_server").hosts}
        case "zookeeper-cluster":
            return {"hosts": server("zookeeper_cluster").hosts}
    raise AssertionError(kind)


def settings_of(
    kind: str, request: pytest.FixtureRequest, folder: Path, namespace: str
) -> dict[str, Any]:
    """What a settings file would hold."""
    name = kind.partition("-")[0]
    section = section_of(kind, request, folder)
    return {"namespace": namespace, "backend": name, name: section}


class Opener:
    """Opens new connections to one and the same store, and makes clients of them."""

    def __init__(self, connect: Callable[[], Store]) -> None:
        self.connect = connect

    def __call__(self) -> Store:
        return self.connect()

    def client(self, **settings: Any) -> Client:
        return Client(self.connect(), **settings)


class AsyncOpener(Opener):
    """The same by asyncio, with each connection in a loop of its own."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncStore]]) -> None:
        super().__init__(lambda: OnLoop(connect))
        self.connect_async = connect

    def client(self, **settings: Any) -> Any:
        return ProxyClient(self.connect_async, **settings)


@pytest.fixture(params=[*KINDS, *(f"{kind}+asyncio" for kind in KINDS if "-" not in kind)])
def open_store(request, tmp_path, fresh_namespace) -> Opener:
    """Opens a new connection to one and the same store, on each kind in turn."""
    kind, _, on_asyncio = request.param.partition("+")
    if kind == "memory":
        server = MemoryServer()
        if on_asyncio:
            return AsyncOpener(partial(AsyncMemoryStore.connect, server))
        return Opener(partial(MemoryStore, server))
    settings = load(settings_of(kind, request, tmp_path, fresh_namespace))
    if on_asyncio:
        return AsyncOpener(partial(open_backend_async, settings))
    return Opener(partial(open_backend, settings))


@pytest.fixture(params=REAL)
def config(request, tmp_path, fresh_namespace) -> Path:
    """A settings file for a real store, on each kind in turn."""
    file = tmp_path / "distjob.yaml"
    settings = settings_of(request.param, request, tmp_path, fresh_namespace)
    file.write_text(json.dumps(settings))  # JSON is YAML
    return file


@pytest.fixture
def clients(open_store) -> Iterator[Callable[..., Client]]:
    """Makes clients of the store, named by their first argument, and closes them in the end."""
    made: list[Client] = []

    def client(name: str, **settings: float) -> Client:
        made.append(open_store.client(controller=name, **settings))
        return made[-1]

    yield client
    for one in made:
        one.__exit__(None, None, None)
