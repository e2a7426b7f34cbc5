"""What an operator should know of the servers behind a store: `distjob.store.Backend.examine`.

Asks each server and each sentinel, as the store's own user, and changes nothing. For blocking
stores: `distjob doctor` opens one. What is refused at connect is not looked for again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from distjob.backend.source import Fault
from distjob.backend.world import now
from distjob.clock import wall
from distjob.store import Finding
from distjob_redis.client.cluster import Slot
from distjob_redis.client.sentinel import Primary
from distjob_redis.client.server import Place, Server
from distjob_redis.connecting import numbers
from distjob_redis.watch import exposed, is_near, secret_of

RECENT = (7, 0)
"""Versions before it get no more fixes from their makers."""
SKEW = 1.0
"""Seconds by which clocks may differ: about as long as the quickest fail-over takes."""
_ASKED = ("append*", "cluster-require-full-coverage", "cluster-node-timeout")
ok, warning, danger = (partial(Finding, level) for level in ("ok", "warning", "danger"))


def examine(place: Place, ttl: float) -> Iterator[Finding]:
    """What could make the servers unsafe for sessions of ``ttl`` seconds, and what is good."""
    for server in now(place.servers()):
        name = f"Redis at {server.name}"
        try:
            facts = now(server.facts(*_ASKED))
            offset = _offset(server)
        except Fault as error:
            yield danger(str(error), "start it, or take it out")
            continue
        yield from _version(name, facts)
        yield from _memory(name, facts)
        yield from _persistence(name, facts)
        yield from _replicas(name, facts, wanted=place.kind != "single")
        yield from _access(name, server.client)
        yield from _clock(name, offset)
        if place.kind == "cluster":
            yield from _node(name, facts, ttl)
    if isinstance(place, Primary):
        yield from _sentinels(place, ttl)
    if isinstance(place, Slot):
        yield from _cluster(place)


def _version(name: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    kind = "Valkey" if "valkey_version" in facts else "Redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version"))
    if numbers(version) < RECENT:
        yield warning(f"{name} is {kind} {version}, an old one", "upgrade it")
    else:
        yield ok(f"{name} is {kind} {version}")


def _memory(name: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    most, used = int(facts.get("maxmemory") or 0), int(facts.get("used_memory") or 0)
    if (policy := facts.get("maxmemory_policy")) != "noeviction":
        what = f"{name} has maxmemory-policy {policy}: should maxmemory be set, no job begins"
        yield warning(what, "set maxmemory-policy noeviction")
    if most and used > 0.8 * most:
        what = (
            f"{name} uses {100 * used // most} % of its maxmemory: when it is full, no job begins"
        )
        yield warning(what, "raise maxmemory, or find out what fills it")


def _persistence(name: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    if not facts.get("aof_enabled"):
        what = f"{name} has no append-only file: a restart forgets who holds what"
        yield danger(what, "set appendonly yes, and appendfsync always")
        return
    if facts.get("aof_last_write_status", "ok") != "ok":
        yield danger(f"{name} can't write its append-only file", "see its log, and its disk")
    lost = {
        "everysec": "may lose its last two seconds, by a crash on a slow disk, too",
        "no": "may lose its last half minute, or more",
        None: "does not tell this user its appendfsync: unless that is always, it may lose the "
        "last seconds",
    }
    fsync = facts.get("appendfsync")
    if fsync == "always":
        yield ok(f"{name} has each write on disk before it answers")
    else:
        what = f"{name} {lost.get(fsync, fsync)}: jobs that were granted then are granted again"
        yield warning(what, "set appendfsync always, and use guards")
    if delayed := facts.get("aof_delayed_fsync"):
        what = f"{name} had to wait {delayed} time(s) for its disk to sync"
        yield warning(what, "give it a quicker disk: that much more is lost by a crash")


def _replicas(name: str, facts: Mapping[str, Any], *, wanted: bool) -> Iterator[Finding]:
    replicas = int(facts.get("connected_slaves") or 0)
    if wanted and not replicas:
        yield warning(f"{name} has no replica: nobody takes over when it dies", "start one")
    # INFO tells of good replicas only if some are needed for a write.
    if replicas and "min_slaves_good_slaves" not in facts:
        yield warning(
            f"{name} goes on granting jobs when it is cut off from its {replicas} replica(s), one "
            "of which may grant them again in its place",
            "set min-replicas-to-write 1 and min-replicas-max-lag to less than session.ttl",
        )


def _access(name: str, client: Any) -> Iterator[Finding]:
    if is_near(client):
        return
    if not secret_of(client):
        yield warning(
            f"{name} is used without a password: whoever reaches it can take jobs away",
            "let it ask for one: deploy/redis/users.acl is a user with no more than is needed",
        )
    if found := exposed(client):
        what, advice = found
        yield warning(f"{name} {what}", advice)


def _clock(name: str, offset: float) -> Iterator[Finding]:
    if abs(offset) > SKEW:
        yield warning(
            f"the clock of {name} is {offset:+.1f} s from that of this host",
            "have NTP slew both, and never set them: sessions end by the server's clock, tokens "
            "are of it, and they rise across a fail-over only if the next one's is not behind",
        )


def _node(name: str, facts: Mapping[str, Any], ttl: float) -> Iterator[Finding]:
    if facts.get("cluster-require-full-coverage") == "yes":
        yield warning(
            f"{name} stops serving when any slot of the cluster is without a node",
            "set cluster-require-full-coverage no: the other shards then go on",
        )
    if (timeout := facts.get("cluster-node-timeout")) is not None:
        yield from _fail_over(name, "cluster-node-timeout", int(timeout), ttl)


def _fail_over(name: str, setting: str, milliseconds: int, ttl: float) -> Iterator[Finding]:
    """A session is not renewed for about as long, and a second or two for the election."""
    if milliseconds / 1000 > ttl / 2:
        yield warning(
            f"{name} has {setting} {milliseconds}: a fail-over takes longer than sessions live "
            f"without being renewed (session.ttl is {ttl:g} s), so each one loses all jobs",
            f"set {setting} to less than {500 * ttl:.0f}, or raise session.ttl",
        )


def _sentinels(primary: Primary, ttl: float) -> Iterator[Finding]:
    named = len(primary.sentinels)
    if named < 3:
        yield warning(
            f"{named} sentinel(s) are named: when one is lost, no primary can be agreed on",
            "run three or more, on hosts of their own, and name all in redis.sentinel.hosts",
        )
    for server in primary.sentinels:
        name = f"the sentinel at {server.name}"
        try:
            state = now(primary.state(server))
        except Fault as error:
            yield warning(f"{name} does not answer: {error}", "start it")
            continue
        known = int(state["num-other-sentinels"]) + 1
        if known != named:
            yield warning(
                f"{name} knows {known} sentinels, the settings name {named}: most of all of them "
                "must be asked",
                "name them all in redis.sentinel.hosts; SENTINEL RESET forgets those long gone",
            )
        if int(state["quorum"]) > known:
            yield warning(
                f"{name} waits for {state['quorum']} to call a primary dead, there are {known}",
                "SENTINEL SET ... quorum to more than half of them",
            )
        down_after = int(state["down-after-milliseconds"])
        yield from _fail_over(name, "down-after-milliseconds", down_after, ttl)
        yield from _access(name, server.client)


def _cluster(place: Slot) -> Iterator[Finding]:
    servers = now(place.servers())
    if len(servers) < 3:
        yield warning(
            f"the cluster has {len(servers)} primaries: fewer than three can't agree that one died",
            "have three or more",
        )
    for server in servers:
        try:
            told = now(server.ask("CLUSTER", "INFO"))
        except Fault:
            continue  # said above, or the user may not ask
        if b"cluster_state:ok" not in told:
            what = f"Redis at {server.name} says that the cluster is down"
            yield danger(what, "see redis-cli --cluster check")


def _offset(server: Server) -> float:
    """Seconds that the server's clock is ahead of ours."""
    before = wall()
    seconds, micros = now(server.ask("TIME"))
    return int(seconds) + int(micros) / 1e6 - (before + wall()) / 2
