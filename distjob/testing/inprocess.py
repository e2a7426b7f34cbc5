"""``backend: memory``: for the tests of programs that use distjob, with no server and no file.

Clients of one process that name the same store, and the same namespace, share jobs; whatever else
is promised, waking and losing included, is as on a real store. Nothing of it outlives the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from distjob.backend.sections import Mistake, url_parts
from distjob.backend.source import Source
from distjob.backend.world import World
from distjob.store import Backend
from distjob.testing.memory import MemoryServer, MemorySource

_SERVERS: dict[tuple[str, str], MemoryServer] = {}


class MemorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which store of this process it is."""

    name: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=255,
            description="Clients that name the same store share jobs: give each test its own.",
        ),
    ] = "default"


async def _source(
    settings: MemorySettings,
    namespace: str,
    ttl: float,  # noqa: ARG001  sessions are told theirs
    world: World,
    shard: int,  # noqa: ARG001  there is one
) -> Source:
    server = _SERVERS.setdefault((settings.name, namespace), MemoryServer())
    return MemorySource(server, world)


def _section(url: str) -> Mapping[str, str]:
    right = "memory://name"
    parts = url_parts(url, right)
    if len(parts.hosts) > 1 or parts.login or parts.path:
        raise Mistake("", f"must be {right}")
    return dict(zip(("name",), parts.hosts, strict=False))


backend = Backend(settings=MemorySettings, source=_source, urls={"memory": _section})
