"""What happens once, at connect: the servers are found and checked, the layout is agreed on.

The first controller writes the layout into the namespace, and each checks it against its own:
how values are kept, among how many shards, and how sessions are woken. Two controllers that saw
that differently would not see each other's jobs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from distjob.errors import BackendUnavailable, ConfigError
from distjob_redis import clients, cluster, sentinel
from distjob_redis.keys import FORMAT, Keys
from distjob_redis.links import World
from distjob_redis.server import check, numbers
from distjob_redis.settings import RedisSettings, address
from distjob_redis.topology import Single, Topology

log = logging.getLogger("distjob.redis")

SHARDED_WAKES = (7, 0)
"""The first version with SPUBLISH. Before, a cluster carries each wake-up to all of its nodes."""
_LAYOUT = re.compile(rb"(\d+) shards=(\d+) wake=(PUBLISH|SPUBLISH)")


class Agreed(msgspec.Struct, frozen=True):
    """What is the same for all controllers of a namespace, and what the servers have."""

    shards: Sequence[Keys]
    sharded_wakes: bool
    durable: bool


def topology_for(settings: RedisSettings, world: World) -> Topology:
    """The servers that the settings name; closed by its `close`. Raises `ConfigError`."""
    driver = world.driver
    if settings.sentinel is not None:
        watching = clients.sentinels_for(settings, settings.sentinel, driver)
        servers = [world.server(client, owned=True) for client in watching]
        asked = sentinel.Sentinels(servers, settings.sentinel.name)
        return sentinel.Primary(asked, clients.model_for(settings, driver), world)
    if settings.cluster is not None:
        seeds = [address(host, 6379) for host in settings.cluster.hosts]
        return cluster.Cluster(seeds, clients.model_for(settings, driver), world)
    return Single(world.server(clients.client_for(settings, driver), owned=True), world)


def topology_of(client: Any, world: World) -> Topology:
    """The servers that a client of the user's leads to. Raises `ConfigError`."""
    driver = world.driver
    if isinstance(client, Single | sentinel.Primary | cluster.Cluster):
        return client
    if not isinstance(client, driver.client | driver.cluster):
        kind = type(client)
        msg = (
            f"a {kind.__module__}.{kind.__name__} can't be used here: redis.asyncio's clients are "
            "for asyncio, redis-py's others for threads"
        )
        raise ConfigError(msg)
    clients.check_client(client)
    if isinstance(client, driver.cluster):
        return cluster.of_client(client, world)
    if isinstance(client.connection_pool, driver.sentinel_pool):
        return sentinel.of_client(client, world)
    return Single(world.server(client), world)


async def agree(topology: Topology, namespace: str, shards: int) -> Agreed:
    """Check the servers, and the layout. Raises `ConfigError`, `BackendUnavailable`."""
    in_cluster = topology.kind == "cluster"
    first = Keys(namespace, None, topology)
    facts = await _facts(topology)
    wakes = all(numbers(str(one["redis_version"])) >= SHARDED_WAKES for one in facts)
    wake = b"SPUBLISH" if in_cluster and wakes else b"PUBLISH"
    layout = b"%d shards=%d wake=%s" % (FORMAT, shards, wake) if in_cluster else b"%d" % FORMAT
    key = first.prefix + b"format"
    _, found = await first.place.ask_all([("SET", key, layout, "NX"), ("GET", key)])
    if found != layout:
        wake = _accepted(topology, found, layout, sharded_wakes=wakes)
    return Agreed(
        shards=(
            (first,)
            if shards == 1
            else tuple(Keys(namespace, number, topology) for number in range(shards))
        ),
        sharded_wakes=wake == b"SPUBLISH",
        durable=all(bool(one.get("aof_enabled")) for one in facts),
    )


async def _facts(topology: Topology) -> list[dict[str, Any]]:
    """INFO of every server, checked. Of a cluster, a part may be down."""
    found: list[dict[str, Any]] = []
    failure: BackendUnavailable | None = None
    for server in await topology.servers():
        try:
            facts = dict(await server.info())
            check(facts, server.name, cluster=topology.kind == "cluster")
            found.append(facts)
        except BackendUnavailable as error:
            failure = error
            if topology.kind == "cluster":
                log.warning("%s: what is there can't be used until it is back", error)
    if not found and failure is not None:
        raise failure
    return found


def _accepted(
    topology: Topology, found: bytes | None, layout: bytes, *, sharded_wakes: bool
) -> bytes:
    """How to wake in a namespace that another has set up otherwise. Raises `ConfigError`."""
    ours, theirs = _LAYOUT.fullmatch(layout), _LAYOUT.fullmatch(found or b"")
    where = f"Redis at {topology.name}"
    if ours and theirs and ours[1] == theirs[1]:
        if ours[2] != theirs[2]:
            msg = (
                f"{where}: this namespace has {theirs[2].decode()} shards, redis.cluster.shards is "
                f"{ours[2].decode()} here: set the same on every controller"
            )
            raise ConfigError(msg)
        if theirs[3] == b"SPUBLISH" and not sharded_wakes:
            msg = f"{where}: this namespace needs version {SHARDED_WAKES[0]} on every node"
            raise ConfigError(msg)
        return theirs[3]
    shown = "?" if found is None else found.decode(errors="replace")
    msg = (
        f"{where}: this namespace is kept in format {shown}, this distjob reads format "
        f"{layout.decode()}: run the same version with the same settings on every controller"
    )
    raise ConfigError(msg)
