"""One server: how it is asked, and what it must have.

Takes connections from redis-py's pool and drives them itself, for two reasons: redis-py would
send a command again whose reply was lost, and its errors don't tell a command that was never sent
from one that may have been carried out. Knows neither keys nor values, nor other servers.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable, ConfigError, DistjobError
from distjob_redis.answers import ScriptUnknown, meaning

if TYPE_CHECKING:
    import redis
    from redis.client import PubSub

log = logging.getLogger("distjob.redis")

OLDEST = (6, 2)
FRESH = 0.5
"""Seconds for which a connection is trusted without the pool's look at it."""
MOST_KEPT = 4


class Server:
    """Sends commands on connections of ``client``'s pool, each once. Callable from any thread.

    A connection is kept at hand between commands that follow each other closely: a pool that
    checks it each time takes a third of a command's time.
    """

    def __init__(self, client: redis.Redis, name: str = "") -> None:
        self.client = client
        self._pool = client.connection_pool
        self._kept: deque[tuple[float, Any]] = deque()
        facts = self._pool.connection_kwargs
        where = str(facts.get("path") or f"{facts.get('host', '?')}:{facts.get('port', '?')}")
        self.name = name or where
        """Where it is, for messages. Without the password."""

    def info(self) -> Mapping[str, Any]:
        """The server's INFO. May be sent twice: it changes nothing."""
        try:
            return dict(self.client.info())
        except (RedisError, OSError) as error:
            raise self.error(error) from error

    def pubsub(self) -> PubSub:
        """A connection for one who subscribes, not connected yet."""
        made: PubSub = self.client.pubsub()  # type: ignore[no-untyped-call]
        return made

    def server(self) -> Server:
        """The server that has a shard's keys: see `distjob_redis.topology.Place`."""
        return self

    def doubt(self, server: Server) -> None:
        """There is no other that could have them."""

    def ask(self, *command: Any, change: bool = False) -> Any:
        """The reply to one command; raises with ``unanswered=change`` if none came."""
        return self._exchange((command,), change=change)[0]

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies to several reading commands, in one round trip."""
        return self._exchange(commands, change=False)

    def ask_each(self, commands: Sequence[tuple[Any, ...]], *, change: bool) -> list[Any]:
        """As `ask_all`, with the error, not raised, in the place of a reply that is one."""
        return self._exchange(commands, change=change, errors=True)

    def run(self, script: str, digest: str, *arguments: Any) -> Any:
        """The reply of a script that changes something; sent in full only if it is not known."""
        try:
            return self.ask("EVALSHA", digest, *arguments, change=True)
        except ScriptUnknown:
            return self.ask("EVAL", script, *arguments, change=True)

    def _exchange(
        self, commands: Sequence[tuple[Any, ...]], *, change: bool, errors: bool = False
    ) -> list[Any]:
        connection = self._take()
        complete = False
        try:
            if errors:
                connection.send_packed_command(connection.pack_commands(commands))
                replies = [self._reply_or_error(connection) for _ in commands]
            elif len(commands) == 1:
                connection.send_command(*commands[0])
                replies = [connection.read_response()]
            else:
                connection.send_packed_command(connection.pack_commands(commands))
                replies = [connection.read_response() for _ in commands]
            complete = True
        except (RedisError, OSError) as error:
            complete = len(commands) == 1 and isinstance(error, ResponseError)
            raise self.error(error, unanswered=change) from error
        finally:
            if complete and len(self._kept) < MOST_KEPT:
                self._kept.append((monotonic(), connection))
            else:
                if not complete:  # what may still arrive must not answer the next command
                    connection.disconnect()
                self._pool.release(connection)
        return replies

    def _reply_or_error(self, connection: Any) -> Any:
        try:
            return connection.read_response()
        except ResponseError as error:
            return self.error(error)

    def close(self) -> None:
        """Give back the connections at hand."""
        while self._kept:
            self._pool.release(self._kept.pop()[1])

    def _take(self) -> Any:
        """The connection used last, or one that the pool has made or looked after."""
        while self._kept:
            try:
                used, connection = self._kept.pop()
            except IndexError:  # another thread was quicker
                break
            if monotonic() - used < FRESH and _is_silent(connection):
                return connection
            self._pool.release(connection)
        try:
            return self._pool.get_connection()
        except (RedisError, OSError) as error:
            raise self.error(error) from error

    def error(self, error: RedisError | OSError, *, unanswered: bool = False) -> DistjobError:
        """What ``error`` means; ``unanswered`` if a change had been sent when it came."""
        return meaning(error, self.name, unanswered=unanswered)


def _is_silent(connection: Any) -> bool:
    """Whether nothing waits to be read; if something does, it is the end of the connection."""
    try:
        if not connection.can_read(timeout=0):
            return True
    except (RedisError, OSError):
        pass
    connection.disconnect()
    return False


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
