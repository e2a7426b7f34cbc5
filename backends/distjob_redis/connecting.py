"""What happens once, at connect: the servers are found and checked, the layout is agreed on.

The first controller writes the layout into the namespace, and each checks it against its own:
how values are kept, among how many shards, and how sessions are woken. Two controllers that saw
that differently would not see each other's jobs. Then all that will ever be sent is sent once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from distjob.backend.source import Fault
from distjob.backend.world import World
from distjob.errors import ConfigError
from distjob.store import ABSENT
from distjob_redis.client.cluster import Cluster, Slot
from distjob_redis.client.making import Maker
from distjob_redis.client.sentinel import Primary
from distjob_redis.client.server import Command, Place, all_of
from distjob_redis.faults import RedisFault
from distjob_redis.guarantees import PROMISES
from distjob_redis.layout import COMMIT, FORMAT, SETTLE, Layout, session_value
from distjob_redis.settings import RedisSettings
from distjob_redis.source import RedisSource

log = logging.getLogger("distjob.redis")

OLDEST = (6, 2)
SHARDED_WAKES = (7, 0)
"""The first version with SPUBLISH. Before, a cluster carries each wake-up to all of its nodes."""
_LAYOUT = re.compile(rb"(\d+) shards=(\d+) wake=(PUBLISH|SPUBLISH)")


async def connected(
    settings: RedisSettings, namespace: str, ttl: float, world: World, shard: int
) -> RedisSource:
    """The source of servers that can be used. Raises `ConfigError`, `Fault`; then all is closed."""
    shards = settings.cluster.shards if settings.cluster else 1
    layout = Layout(namespace, shard if shards > 1 else None)
    place = place_of(settings, world, layout.prefix)
    try:
        facts = await _facts(place)
        await _agree(place, layout, shards, facts)
        durable = all(bool(one.get("aof_enabled")) for one in facts)
        promised = msgspec.structs.replace(PROMISES[place.kind], durable=durable)
        source = RedisSource(place, layout, promised, world, ttl)
        await _rehearse(place, layout, source.name)
    except BaseException:
        await place.close()
        raise
    return source


def place_of(settings: RedisSettings, world: World, prefix: bytes) -> Place:
    """What the settings name, for keys that begin with ``prefix``. Raises `ConfigError`."""
    maker = Maker(settings, world)
    if settings.sentinel is not None:
        return Primary(maker, settings.sentinel)
    if settings.cluster is not None:
        return Slot(Cluster(maker, settings.cluster), prefix)
    return maker.single()


async def _facts(place: Place) -> list[Mapping[str, Any]]:
    """INFO of every server, checked. Of a cluster, a part may be down."""
    found: list[Mapping[str, Any]] = []
    failure: Fault | None = None
    for server in await place.servers():
        try:
            facts = await server.info()
            check(facts, server.name, cluster=place.kind == "cluster")
            found.append(facts)
        except Fault as fault:
            failure = fault
            if place.kind == "cluster":
                log.warning("%s: what is there can't be used until it is back", fault)
    if not found and failure is not None:
        raise failure
    return found


async def _agree(place: Place, layout: Layout, shards: int, facts: list[Mapping[str, Any]]) -> None:
    """Set how sessions are woken. Raises `ConfigError` if others keep the namespace otherwise."""
    sharded = all(numbers(str(one["redis_version"])) >= SHARDED_WAKES for one in facts)
    ours, where = b"%d" % FORMAT, place
    if isinstance(place, Slot):
        wake = b"SPUBLISH" if sharded else b"PUBLISH"
        ours += b" shards=%d wake=%s" % (shards, wake)
        where = Slot(place.cluster, layout.format)  # of all shards: it is in a slot of its own
    asked = [("SET", layout.format, ours, "NX"), ("GET", layout.format)]
    _, found = all_of(await where.ask_each(asked, change=True))
    if found != ours:
        _check_layout(f"Redis at {place.name}", found or b"?", ours, sharded=sharded)
    if found.endswith(b"wake=SPUBLISH"):
        layout.publish = ("SPUBLISH",)


def _check_layout(where: str, found: bytes, ours: bytes, *, sharded: bool) -> None:
    """Whether a namespace that another has set up otherwise can be used. Raises `ConfigError`."""
    mine, theirs = _LAYOUT.fullmatch(ours), _LAYOUT.fullmatch(found)
    if mine is None or theirs is None or mine[1] != theirs[1]:
        msg = (
            f"{where}: this namespace is kept in format {found.decode(errors='replace')}, this "
            f"distjob reads format {ours.decode()}: run the same version with the same settings on "
            "every controller"
        )
        raise ConfigError(msg)
    if mine[2] != theirs[2]:
        msg = (
            f"{where}: this namespace has {theirs[2].decode()} shards, redis.cluster.shards is "
            f"{mine[2].decode()} here: set the same on every controller"
        )
        raise ConfigError(msg)
    if theirs[3] == b"SPUBLISH" and not sharded:
        msg = f"{where}: this namespace needs version {SHARDED_WAKES[0]} on every node"
        raise ConfigError(msg)


async def _rehearse(place: Place, layout: Layout, name: str) -> None:
    """Send now, not with a job held, all that will ever be sent, in one round trip.

    With a session of one's own, number 0, and a VM that is called nothing and gets no value. What
    is not here was sent before: INFO, and what finds the servers; SUBSCRIBE comes next.
    """
    me = f"{name}.0"
    key = layout.session(me)
    commit = layout.commit("", ABSENT, None, (me, me))
    commands: list[Command] = [
        ("SET", key, session_value("0", ""), "PX", 1000),
        ("GET", key),
        ("PEXPIRE", key, 1000),
        ("PTTL", key),
        ("TIME",),
        ("SCAN", 0, "MATCH", layout.vms + b"*", "COUNT", 1),
        (*(layout.publish or ("PUBLISH",)), layout.session(name), b""),
        ("PING",),
        ("DEL", layout.vm("")),
        # Last, as a script is refused without the name of what it may not do.
        ("EVAL", COMMIT.text, *commit),
        ("EVALSHA", COMMIT.digest, *commit),
        ("EVAL", SETTLE.text, 1, key, 1),
        ("EVALSHA", SETTLE.digest, 1, key, 2),
        ("DEL", key),
    ]
    replies = await place.ask_each(commands, change=True)
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, RedisFault):
            text = f"{reply.text} (in rehearsing {command[0]})"
            raise RedisFault(text, reply.advice, why=reply.why, unfit=reply.unfit)


def check(facts: Mapping[str, Any], name: str, *, cluster: bool = False) -> None:
    """Refuse a server (its INFO) that can't keep the store's word. Raises `ConfigError`."""
    where = f"Redis at {name}"
    version = str(facts.get("redis_version", "0"))
    if numbers(version) < OLDEST:
        msg = f"{where} is version {version}: {OLDEST[0]}.{OLDEST[1]} or later is needed"
        raise ConfigError(msg)
    if facts.get("redis_mode") == "sentinel":
        msg = f"{where} is a sentinel: name it in redis.sentinel.hosts"
        raise ConfigError(msg)
    if facts.get("role") != "master":
        primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
        if cluster:  # as it just said that it is none: somebody moves the cluster about
            raise RedisFault(f"{where} is a replica of {primary} by now")
        msg = f"{where} is a replica of {primary}: point redis.url at the primary"
        raise ConfigError(msg)
    if facts.get("cluster_enabled") and not cluster:
        msg = f"{where} is a node of a Redis Cluster: name it in redis.cluster.hosts"
        raise ConfigError(msg)
    policy = facts.get("maxmemory_policy")
    # Every volatile-* policy too: session keys are just those that carry a TTL.
    if facts.get("maxmemory") and policy != "noeviction":
        msg = (
            f"{where} has maxmemory-policy {policy}, which throws away sessions and jobs when "
            "memory is short: set maxmemory-policy noeviction, or use another server"
        )
        raise ConfigError(msg)
    if not facts.get("aof_enabled"):
        log.warning(
            "%s has no append-only file: jobs that are held when it restarts are forgotten; "
            "set appendonly yes",
            where,
        )


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
