"""The server: how it is asked, what redis-py's errors mean, and what the server must have.

The only file, beside `distjob_redis.subscription`, that knows redis-py. It takes connections from
the client's pool and drives them itself, for two reasons: redis-py would send a command again
whose reply was lost, and its errors don't tell a command that was never sent from one that may
have been carried out. Knows neither keys nor values.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable, ConfigError, DistjobError, RecordError
from distjob_redis.settings import RedisSettings

log = logging.getLogger("distjob.redis")

OLDEST = (6, 2)

_DENIED = "the user or password was refused: set them in redis.url"
_FORBIDDEN = "the ACL user may not do this: grant what deploy/redis/users.acl lists"
_REPLICA = "this is a read-only replica: point redis.url at the primary"
_FULL = "it is out of memory: raise maxmemory or free some"
_ANSWERS: tuple[tuple[type[RedisError] | None, str, str], ...] = (
    # An answer's class; or, where a script or redis-py hides that, what stands in its text.
    (AuthenticationError, "", _DENIED),
    (None, "NOAUTH", _DENIED),
    (NoPermissionError, "", _FORBIDDEN),
    (None, "ACL failure", _FORBIDDEN),
    (None, "can't run this command", _FORBIDDEN),
    (ReadOnlyError, "", _REPLICA),
    (None, "READONLY", _REPLICA),
    (OutOfMemoryError, "", _FULL),
    (None, "OOM", _FULL),
    (BusyLoadingError, "", "it is still loading its data: wait until it has"),
    (None, "MISCONF", "it can't write to its disk and refuses changes: see its log"),
)


class ScriptUnknown(BackendUnavailable):
    """The server has not seen the script yet, or has forgotten it. Never leaves the backend."""


FRESH = 0.5
"""Seconds for which a connection is trusted without the pool's look at it."""
MOST_KEPT = 4


class NotAllowed(BackendUnavailable):
    """The user is unknown or lacks a permission; in connecting that is a `ConfigError`."""


class Server:
    """Sends commands on connections of ``client``'s pool, each once. Callable from any thread.

    A connection is kept at hand between commands that follow each other closely: a pool that
    checks it each time takes a third of a command's time.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._pool = client.connection_pool
        self._kept: deque[tuple[float, Any]] = deque()
        facts = self._pool.connection_kwargs
        self.name = str(facts.get("path") or f"{facts.get('host', '?')}:{facts.get('port', '?')}")
        """Where it is, for messages. Without the password."""

    def info(self) -> Mapping[str, Any]:
        """The server's INFO. May be sent twice: it changes nothing."""
        try:
            return dict(self._client.info())
        except (RedisError, OSError) as error:
            raise self.error(error) from error

    def ask(self, *command: Any, change: bool = False) -> Any:
        """The reply to one command; raises with ``unanswered=change`` if none came."""
        return self._exchange((command,), change=change)[0]

    def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies to several reading commands, in one round trip."""
        return self._exchange(commands, change=False)

    def run(self, script: str, digest: str, *arguments: Any) -> Any:
        """The reply of a script that changes something; sent in full only if it is not known."""
        try:
            return self.ask("EVALSHA", digest, *arguments, change=True)
        except ScriptUnknown:
            return self.ask("EVAL", script, *arguments, change=True)

    def _exchange(self, commands: Sequence[tuple[Any, ...]], *, change: bool) -> list[Any]:
        connection = self._take()
        complete = False
        try:
            if len(commands) == 1:
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
        text = str(error)
        if isinstance(error, NoScriptError):
            return ScriptUnknown(text)
        answered = isinstance(error, ResponseError)
        if answered and "WRONGTYPE" in text:
            return RecordError(f"Redis at {self.name} holds other data under a key of ours: {text}")
        for kind, code, advice in _ANSWERS:
            # Only an answer's text is searched: a lost connection's may hold any host name.
            if isinstance(error, kind) if kind else answered and code in text:
                refusal = NotAllowed if advice in (_DENIED, _FORBIDDEN) else BackendUnavailable
                return refusal(f"Redis at {self.name}: {advice} ({text})")
        if answered:
            return BackendUnavailable(f"Redis at {self.name} refused a command: {text}")
        return BackendUnavailable(f"Redis at {self.name}: {text}", unanswered=unanswered)


def _is_silent(connection: Any) -> bool:
    """Whether nothing waits to be read; if something does, it is the end of the connection."""
    try:
        if not connection.can_read(timeout=0):
            return True
    except (RedisError, OSError):
        pass
    connection.disconnect()
    return False


def client_for(settings: RedisSettings) -> redis.Redis:
    """A client that sends nothing twice. Raises `ConfigError`, without the password."""
    options: dict[str, Any] = {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # all we need; RESP3 adds pushes and a longer greeting
    }
    files = {
        "ssl_ca_certs": settings.ca_file,
        "ssl_certfile": settings.cert_file,
        "ssl_keyfile": settings.key_file,
    }
    if settings.url.startswith("rediss://"):
        options |= {key: path for key, path in files.items() if path}
        options["ssl_check_hostname"] = True  # off by default before redis-py 6
    elif any(files.values()):
        msg = "redis.ca_file, cert_file and key_file are for TLS: redis.url must begin rediss://"
        raise ConfigError(msg)
    try:
        parts = urlsplit(settings.url)
        if "@" in parts.path + parts.fragment:  # a password cut short by its "/" or "#"
            raise ValueError
        return redis.Redis.from_url(settings.url, **options)
    except (ValueError, TypeError, RedisError):
        # The driver's text may quote the part of the URL that holds the password.
        msg = (
            "redis.url can't be understood: it must read redis://user:password@host:port/number, "
            "with special characters of user and password percent-encoded"
        )
        raise ConfigError(msg) from None


def check_client(client: redis.Redis) -> None:
    """Refuse a client that would decode values. Raises `ConfigError`."""
    if client.get_encoder().decode_responses:
        msg = "the Redis client decodes responses: make it with decode_responses=False"
        raise ConfigError(msg)


def check(facts: Mapping[str, Any], name: str) -> None:
    """Refuse a server (its INFO) that can't keep the store's word. Raises `ConfigError`."""
    where = f"Redis at {name}"
    version = str(facts.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        msg = f"{where} is version {version}: {OLDEST[0]}.{OLDEST[1]} or later is needed"
        raise ConfigError(msg)
    if facts.get("role") != "master":
        primary = f"{facts.get('master_host')}:{facts.get('master_port')}"
        msg = f"{where} is a replica of {primary}: point redis.url at the primary"
        raise ConfigError(msg)
    if facts.get("cluster_enabled"):
        msg = f"{where} is a node of a Redis Cluster: use one that is not, with or without replicas"
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
