"""Every store as a fixture: `open_store` opens connections of one namespace, `clients` clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import distjob_redis
import distjob_sqlite
from distjob import Client
from distjob.store import Store
from distjob.testing.memory import MemoryServer, MemoryStore

KINDS = ("memory", "sqlite", "redis")


@pytest.fixture(params=KINDS)
def open_store(request, tmp_path, fresh_namespace) -> Callable[[], Store]:
    """Opens a new connection to one and the same store, on each kind in turn."""
    match request.param:
        case "memory":
            server = MemoryServer()
            return lambda: MemoryStore(server)
        case "sqlite":
            file = distjob_sqlite.SqliteSettings(path=str(tmp_path / "jobs.db"))
            return lambda: distjob_sqlite.backend.connect(file, fresh_namespace, 10.0)
        case _:
            url = request.getfixturevalue("redis_server").url
            there = distjob_redis.RedisSettings(url=url)
            return lambda: distjob_redis.backend.connect(there, fresh_namespace, 10.0)


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
