"""What an operator should know of the servers behind a store: `distjob.store.Backend.examine`.

Asks each server and each sentinel, as the store's own user, and changes nothing. For blocking
stores: `distjob doctor` opens one. What is refused at connect is not looked for again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import redis

from distjob.backend.source import Fault
from distjob.backend.world import now
from distjob.clock import wall
from distjob.store import Finding
from distjob_redis.client.cluster import Slot
from distjob_redis.client.sentinel import Primary
from distjob_redis.client.server import Place, Server
from distjob_redis.connecting import numbers

RECENT = (7, 0)
"""Versions before it get no more fixes from their makers."""
SKEW = 1.0
"""Seconds by which clocks may differ: about as long as the quickest fail-over takes."""
_LOOPBACK = ("localhost", "127.", "::1")


def examine(place: Place) -> Iterator[Finding]:
    """What could make the servers unsafe, and what is good."""
    offsets: dict[str, float] = {}
    for server in now(place.servers()):
        name = f"Redis at {server.name}"
        try:
            facts = now(server.info())
            offsets[name] = _offset(server)
            settings = _settings(server)
        except Fault as error:
            yield Finding("danger", str(error), "start it, or take it out")
            continue
        yield from _version(name, facts)
        yield from _memory(name, facts)
        yield from _persistence(name, facts, settings)
        yield from _replicas(name, facts, wanted=place.kind != "single")
        yield from _access(name, server.client)
        if place.kind == "cluster" and settings.get("cluster-require-full-coverage") == "yes":
            yield Finding(
                "warning",
                f"{name} stops serving when any slot of the cluster is without a node",
                "set cluster-require-full-coverage no: the other shards then go on",
            )
    yield from _clocks(offsets)
    if isinstance(place, Primary):
        yield from _sentinels(place)
    if isinstance(place, Slot):
        yield from _cluster(place)


def _version(name: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    kind = "Valkey" if "valkey_version" in facts else "Redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version"))
    if numbers(version) < RECENT:
        yield Finding("warning", f"{name} is {kind} {version}, an old one", "upgrade it")
    else:
        yield Finding("ok", f"{name} is {kind} {version}")


def _memory(name: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    most, used = int(facts.get("maxmemory") or 0), int(facts.get("used_memory") or 0)
    policy = facts.get("maxmemory_policy")
    if policy != "noeviction":
        yield Finding(
            "warning",
            f"{name} has maxmemory-policy {policy}: should maxmemory be set, it throws away jobs",
            "set maxmemory-policy noeviction",
        )
    if most and used > 0.8 * most:
        yield Finding(
            "warning",
            f"{name} uses {100 * used // most} % of its maxmemory: when it is full, no job begins",
            "raise maxmemory, or find out what fills it",
        )


def _persistence(
    name: str, facts: Mapping[str, Any], settings: Mapping[str, str]
) -> Iterator[Finding]:
    if not facts.get("aof_enabled"):
        yield Finding(
            "danger",
            f"{name} has no append-only file: a restart forgets who holds what",
            "set appendonly yes",
        )
        return
    if facts.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            "danger", f"{name} can't write its append-only file", "see its log, and its disk"
        )
    match settings.get("appendfsync"):
        case "always":
            yield Finding("ok", f"{name} has each write on disk before it answers")
        case "everysec":
            yield Finding("ok", f"{name} loses its last second if its host goes down")
        case "no":
            yield Finding(
                "warning",
                f"{name} loses its last half minute, or more, if its host goes down",
                "set appendfsync everysec, or always",
            )


def _replicas(name: str, facts: Mapping[str, Any], *, wanted: bool) -> Iterator[Finding]:
    replicas = int(facts.get("connected_slaves") or 0)
    if wanted and not replicas:
        yield Finding(
            "warning", f"{name} has no replica: nobody takes over when it dies", "start one"
        )
    # INFO tells of good replicas only if some are needed for a write.
    if replicas and "min_slaves_good_slaves" not in facts:
        yield Finding(
            "warning",
            f"{name} goes on granting jobs when it is cut off from its {replicas} replica(s), one "
            "of which may grant them again in its place",
            "set min-replicas-to-write 1 and min-replicas-max-lag to less than session.ttl",
        )


def _access(name: str, client: redis.Redis) -> Iterator[Finding]:
    pool: Any = client.connection_pool
    options = pool.connection_kwargs
    host = str(options.get("host") or "localhost")
    if "path" in options or host.startswith(_LOOPBACK):
        return
    secret = options.get("password") or options.get("credential_provider")
    if not secret:
        yield Finding(
            "warning",
            f"{name} is used without a password: whoever reaches it can take jobs away",
            "let it ask for one: deploy/redis/users.acl is a user with no more than is needed",
        )
    if not issubclass(pool.connection_class, redis.SSLConnection):
        what = "the password and all jobs" if secret else "all jobs"
        yield Finding(
            "warning", f"{name} is reached without TLS: {what} can be read on the way", "use TLS"
        )


def _clocks(offsets: Mapping[str, float]) -> Iterator[Finding]:
    for name, offset in offsets.items():
        if abs(offset) > SKEW:
            yield Finding(
                "warning",
                f"the clock of {name} is {offset:+.1f} s from that of this host",
                "have NTP set both: tokens are of the server's clock, and rise across a fail-over "
                "only if the next one's is not behind",
            )


def _sentinels(primary: Primary) -> Iterator[Finding]:
    sentinels = primary.sentinels
    named = len(sentinels.servers)
    if named < 3:
        yield Finding(
            "warning",
            f"{named} sentinel(s) are named: when one is lost, no primary can be agreed on",
            "run three or more, on hosts of their own, and name all in redis.sentinel.hosts",
        )
    for server in sentinels.servers:
        name = f"the sentinel at {server.name}"
        try:
            state = now(sentinels.state(server))
        except Fault as error:
            yield Finding("warning", f"{name} does not answer: {error}", "start it")
            continue
        known = int(state["num-other-sentinels"]) + 1
        if known != named:
            yield Finding(
                "warning",
                f"{name} knows {known} sentinels, the settings name {named}: most of all of them "
                "must be asked",
                "name them all in redis.sentinel.hosts; SENTINEL RESET forgets those long gone",
            )
        if int(state["quorum"]) > known:
            yield Finding(
                "warning",
                f"{name} waits for {state['quorum']} to call a primary dead, there are {known}",
                "SENTINEL SET ... quorum to more than half of them",
            )
        yield from _access(name, server.client)


def _cluster(place: Slot) -> Iterator[Finding]:
    servers = now(place.servers())
    primaries = len(servers)
    if primaries < 3:
        yield Finding(
            "warning",
            f"the cluster has {primaries} primaries: fewer than three can't agree that one died",
            "have three or more",
        )
    for server in servers:
        try:
            told = now(server.ask("CLUSTER", "INFO"))
        except Fault:
            continue  # said above, or the user may not ask
        if b"cluster_state:ok" not in told:
            yield Finding(
                "danger",
                f"Redis at {server.name} says that the cluster is down",
                "see redis-cli --cluster check",
            )


def _offset(server: Server) -> float:
    """Seconds that the server's clock is ahead of ours."""
    before = wall()
    seconds, micros = now(server.ask("TIME"))
    after = wall()
    return int(seconds) + int(micros) / 1e6 - (before + after) / 2


def _settings(server: Server) -> Mapping[str, str]:
    """What of CONFIG the user may read; INFO does not tell these."""
    found: dict[str, str] = {}
    for name in ("appendfsync", "cluster-require-full-coverage"):
        try:
            reply = now(server.ask("CONFIG", "GET", name))
        except Fault:
            continue  # a user as in users.acl may not, and that is right
        pairs = reply.items() if isinstance(reply, dict) else zip(*[iter(reply)] * 2, strict=True)
        found |= {key.decode(): value.decode() for key, value in pairs}
    return found
