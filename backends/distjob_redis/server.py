"""One server: how it is asked, whatever the world, and what it must have.

Knows neither keys nor values, nor other servers.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from distjob.errors import BackendUnavailable, ConfigError, DistjobError
from distjob_redis.answers import ScriptUnknown, meaning
from distjob_redis.links import Line

log = logging.getLogger("distjob.redis")

OLDEST = (6, 2)


class Server(ABC):
    """Sends commands on connections of ``client``'s pool, each once.

    Not as redis-py would, for two reasons: it would send a command again whose reply was lost, and
    its errors don't tell a command that was never sent from one that may have been carried out.
    """

    def __init__(self, client: Any, *, owned: bool = False) -> None:
        self.client = client
        self._pool = client.connection_pool
        self._owned = owned
        """Whether the client is ours to close."""
        facts = self._pool.connection_kwargs
        self.host = str(facts.get("host", "?"))
        self.name = str(facts.get("path") or f"{self.host}:{facts.get('port', '?')}")
        """Where it is, for messages. Without the password."""

    @abstractmethod
    async def exchange(self, commands: Sequence[tuple[Any, ...]], *, change: bool) -> list[Any]:
        """The replies, in one round trip; one that is an error stands there as redis-py has it.

        Raises `BackendUnavailable`, with ``unanswered=change`` if they were sent.
        """

    @abstractmethod
    def line(self, ring: Callable[[], None]) -> Line:
        """One who subscribes, not connected yet; ``ring`` is called when something has come."""

    @abstractmethod
    async def let_go(self) -> None:
        """It is not the one to ask now: what is at hand must not answer when it is again."""

    @abstractmethod
    async def close(self) -> None:
        """Give back the connections at hand; close the client, too, if it is ours."""

    async def server(self) -> Server:
        """The server that has a shard's keys: see `distjob_redis.topology.Place`."""
        return self

    def doubt(self, server: Server) -> None:  # noqa: B027
        """There is no other that could have them."""

    async def ask(self, *command: Any, change: bool = False) -> Any:
        """The reply to one command; raises with ``unanswered=change`` if none came."""
        reply = (await self.exchange((command,), change=change))[0]
        if isinstance(reply, Exception):
            raise self._refusal(reply)
        return reply

    async def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies to several reading commands, in one round trip."""
        replies = await self.exchange(commands, change=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._refusal(reply)
        return replies

    async def ask_each(self, commands: Sequence[tuple[Any, ...]], *, change: bool) -> list[Any]:
        """As `ask_all`, with the error, not raised, in the place of a reply that is one."""
        replies = await self.exchange(commands, change=change)
        return [
            self._refusal(reply) if isinstance(reply, Exception) else reply for reply in replies
        ]

    async def run(self, script: str, digest: str, *arguments: Any) -> Any:
        """The reply of a script that changes something; sent in full only if it is not known."""
        try:
            return await self.ask("EVALSHA", digest, *arguments, change=True)
        except ScriptUnknown:
            return await self.ask("EVAL", script, *arguments, change=True)

    async def info(self) -> Mapping[str, Any]:
        """The server's INFO."""
        told = await self.ask("INFO")
        text = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        return {name: int(told) if told.isdecimal() else told for name, told in pairs}

    def error(self, error: RedisError | OSError, *, unanswered: bool = False) -> DistjobError:
        """What ``error`` means; ``unanswered`` if a change had been sent when it came."""
        return meaning(error, self.name, unanswered=unanswered)

    def _refusal(self, reply: Exception) -> Exception:
        """What a reply means that is an error."""
        return self.error(reply) if isinstance(reply, RedisError) else reply


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
        msg = f"{where} is a replica of {primary}: point redis.url at the primary"
        if cluster:  # as it just said that it is none: somebody moves the cluster about
            raise BackendUnavailable(f"{where} is a replica of {primary} by now")
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
