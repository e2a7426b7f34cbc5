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
from distjob_redis.client.cluster import Slot
from distjob_redis.client.making import Maker
from distjob_redis.client.sentinel import Primary
from distjob_redis.client.server import Command, Place, all_of
from distjob_redis.faults import RedisFault
from distjob_redis.guarantees import PROMISES
from distjob_redis.layout import COMMIT, FORMAT, SETTLE, Layout, session_value
from distjob_redis.settings import RedisSettings
from distjob_redis.source import RedisSource
from distjob_redis.watch import NO_EVICTION, evicting, exposed, secret_of

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
    maker = Maker(settings, world)
    place: Place
    if settings.sentinel is not None:
        place = Primary(maker, settings.sentinel)
    elif settings.cluster is not None:
        place = Slot(maker, settings.cluster, layout.prefix)
    else:
        place = maker.single()
    try:
        facts = await _facts(place)
        await _agree(place, layout, shards, facts)
        durable = all(one.get("appendfsync") == "always" and one["aof_enabled"] for one in facts)
        promised = msgspec.structs.replace(PROMISES[place.kind], durable=durable)
        source = RedisSource(place, layout, promised, world, ttl)
        await _rehearse(place, layout, source.name)
    except BaseException:
        await place.close()
        raise
    return source


async def _facts(place: Place) -> list[Mapping[str, Any]]:
    """What every server says of itself, checked. Of a cluster, a part may be down."""
    found: list[Mapping[str, Any]] = []
    failure: Fault | None = None
    servers = await place.servers()
    for server in (*servers, *place.sentinels) if isinstance(place, Primary) else servers:
        if secret_of(server.client) and (way := exposed(server.client)):
            log.warning("Redis at %s %s: %s", server.name, *way)
    for server in servers:
        try:
            facts = await server.facts("append*")
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
    ours = b"%d" % FORMAT
    if isinstance(place, Slot):
        ours += b" shards=%d wake=%s" % (shards, b"SPUBLISH" if sharded else b"PUBLISH")
        place = place.beside(layout.format)  # of all shards: it is in a slot of its own
    asked = [("SET", layout.format, ours, "NX"), ("GET", layout.format)]
    found = all_of(await place.exchange(asked, change=True))[1] or b"?"
    mine, theirs = _LAYOUT.fullmatch(ours), _LAYOUT.fullmatch(found)
    layout.publish = ("SPUBLISH",) if found.endswith(b"wake=SPUBLISH") else ()
    if found == ours:
        return
    if mine is None or theirs is None or mine[1] != theirs[1]:
        wrong = (
            f"is kept in format {found.decode(errors='replace')}, this distjob reads format "
            f"{ours.decode()}: run the same version with the same settings on every controller"
        )
    elif mine[2] != theirs[2]:
        wrong = (
            f"has {theirs[2].decode()} shards, redis.cluster.shards is {mine[2].decode()} here: "
            "set the same on every controller"
        )
    elif layout.publish and not sharded:
        wrong = f"needs version {SHARDED_WAKES[0]} on every node"
    else:
        return
    raise ConfigError(f"Redis at {place.name}: this namespace {wrong}")


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
    if place.kind == "cluster":
        commands.append(("ASKING",))
    replies = await place.exchange(commands, change=True)
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, RedisFault):
            text = f"{reply.text} (in rehearsing {command[0]})"
            raise RedisFault(text, reply.advice, why=reply.why, unfit=reply.unfit)


def check(facts: Mapping[str, Any], name: str, *, cluster: bool = False) -> None:
    """Refuse a server (its INFO) that can't keep the store's word. Raises `ConfigError`."""
    where = f"Redis at {name}"
    version = str(facts.get("redis_version", "0"))
    primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
    replica = facts.get("role") != "master"
    if cluster and replica:  # as it just said that it is none: somebody moves the cluster about
        raise RedisFault(f"{where} is a replica of {primary} by now")
    wrong = ""
    if numbers(version) < OLDEST:
        wrong = f"is version {version}: {OLDEST[0]}.{OLDEST[1]} or later is needed"
    elif facts.get("redis_mode") == "sentinel":
        wrong = "is a sentinel: name it in redis.sentinel.hosts"
    elif replica:
        wrong = f"is a replica of {primary}: point redis.url at the primary"
    elif facts.get("cluster_enabled") and not cluster:
        wrong = "is a node of a Redis Cluster: name it in redis.cluster.hosts"
    elif policy := evicting(facts):
        wrong = f"{policy}: {NO_EVICTION}"
    if wrong:
        raise ConfigError(f"{where} {wrong}")
    if not facts.get("aof_enabled"):
        log.warning(
            "%s has no append-only file: jobs that are held when it restarts are forgotten; "
            "set appendonly yes",
            where,
        )


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
