"""Every store as a fixture, on each kind of server and topology in turn.

`open_store` opens connections of one namespace, `clients` makes clients of them, `config` is a
settings file for one, for commands. `KINDS` names them: `pytest -k etcd-cluster` takes one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distjob import Client
from distjob.config import load, open_backend
from distjob.store import Store
from distjob.testing.memory import MemoryServer, MemoryStore

REAL = (
    *("sqlite", "redis", "redis-sentinel", "redis-cluster"),
    *("etcd", "etcd-cluster", "zookeeper", "zookeeper-cluster"),
)
KINDS = ("memory", *REAL)


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


@pytest.fixture(params=KINDS)
def open_store(request, tmp_path, fresh_namespace) -> Callable[[], Store]:
    """Opens a new connection to one and the same store, on each kind in turn."""
    if request.param == "memory":
        server = MemoryServer()
        return lambda: MemoryStore(server)
    settings = load(settings_of(request.param, request, tmp_path, fresh_namespace))
    return lambda: open_backend(settings)


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
        made.append(Client(open_store(), controller=name, **settings))
        return made[-1]

    yield client
    for one in made:
        one.close()
