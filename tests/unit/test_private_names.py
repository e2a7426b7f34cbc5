"""Private names of client libraries that backends use: each is known here, and is there today.

Such a name may go with any release. So the library has an upper bound in pyproject.toml, each name
has a canary below, and `make matrix` runs them on the oldest and the newest library. A line that
uses one says so to ruff (``noqa: SLF001``), and this finds it by that.
"""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

ROOT = Path(__file__).parent.parent.parent
LIBRARIES = {"distjob_redis": "redis", "distjob_zookeeper": "kazoo", "distjob_etcd": "grpcio"}
_NAME = re.compile(r"""(?<!self)(?:\.|["'])(_[a-z]\w*)""")


async def _on_asyncio() -> Any:
    return redis.asyncio.Redis().connection_pool.make_connection()


def connection() -> Any:
    """One of redis-py's, not connected."""
    return redis.Redis().connection_pool.make_connection()


def connection_on_asyncio() -> Any:
    """The same of its asyncio half."""
    return asyncio.run(_on_asyncio())


CANARIES: dict[str, dict[str, tuple[Callable[[], Any], ...]]] = {
    # backend: {private name: what makes an object, without a server, that must have it}
    "distjob_redis": {
        "_sock": (connection,),
        "_parser": (connection_on_asyncio,),
        "_reader": (connection_on_asyncio, lambda: connection_on_asyncio()._parser),
        "_writer": (connection_on_asyncio,),
        "_re_auth_token": (connection_on_asyncio,),
    },
    "distjob_zookeeper": {},
    "distjob_etcd": {},
}


def used(backend: str) -> set[str]:
    """The private names on lines of ``backend`` where ruff is told of one."""
    found = set()
    for file in (ROOT / "backends" / backend).rglob("*.py"):
        for line in file.read_text().splitlines():
            code, told, _ = line.partition("# noqa: SLF001")
            if told:
                found |= set(_NAME.findall(code))
    return found


@pytest.mark.parametrize("backend", CANARIES)
def test_each_has_a_canary_and_no_canary_is_left_over(backend: str) -> None:
    assert used(backend) == set(CANARIES[backend])


@pytest.mark.parametrize(
    ("backend", "name"), [(backend, name) for backend in CANARIES for name in CANARIES[backend]]
)
def test_it_is_there(backend: str, name: str) -> None:
    for make in CANARIES[backend][name]:
        thing = make()
        assert hasattr(thing, name), f"{type(thing)} of {LIBRARIES[backend]} has no {name} any more"


def test_one_file_has_all_of_redis_pys() -> None:
    """There the public way is, too."""
    users = [
        file.name
        for file in (ROOT / "backends" / "distjob_redis").rglob("*.py")
        if "SLF001" in file.read_text()
    ]
    assert users == ["wire.py"]


@pytest.mark.parametrize("backend", [backend for backend in CANARIES if CANARIES[backend]])
def test_the_library_has_an_upper_bound(backend: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    library = LIBRARIES[backend]
    [needed] = [
        need
        for need in project["optional-dependencies"][backend.removeprefix("distjob_")]
        if re.match(rf"{library}\b", need)
    ]
    assert re.search(r",<\d+$", needed), f"{needed}: what uses private names has an upper bound"
