"""Settings -> clients of redis-py that send nothing twice. Connects to nothing.

Raises `ConfigError`, without a password, for what can't be understood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from distjob.errors import ConfigError
from distjob_redis.settings import RedisSettings, SentinelSettings, address

_OWN = ("host", "port", "path", "connection_pool", "redis_connect_func")
_INNER = ("orig_", "maint_", "oss_", "himport_")
"""What a pool of redis-py adds to the settings of its connections, about itself."""


def client_for(settings: RedisSettings) -> redis.Redis:
    """A client of the one server that ``settings.url`` names."""
    options = _common(settings)
    if settings.url.startswith("rediss://"):
        options |= _tls(settings)
    elif settings.ca_file or settings.cert_file or settings.key_file:
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


def model_for(settings: RedisSettings) -> redis.Redis:
    """The `sibling` of each server behind sentinels, or of a cluster; never used itself."""
    options = _common(settings) | _transport(settings)
    return redis.Redis(db=settings.db, **options, **_login(settings.user, settings.password))


def sibling(
    model: redis.Redis, host: str, port: int, *, on_connect: Callable[[Any], None] | None
) -> redis.Redis:
    """A client that is configured as ``model``, of the server at another address.

    ``on_connect`` is called with each new connection, in place of its own method of that name.
    """
    pool: Any = model.connection_pool
    options = {
        name: value
        for name, value in pool.connection_kwargs.items()
        if name not in _OWN and not name.startswith(_INNER)
    }
    tls = issubclass(pool.connection_class, redis.SSLConnection)
    return redis.Redis(
        connection_pool=redis.ConnectionPool(
            connection_class=redis.SSLConnection if tls else redis.Connection,
            host=host,
            port=port,
            redis_connect_func=on_connect,
            **options,
        )
    )


def sentinels_for(settings: RedisSettings, sentinel: SentinelSettings) -> list[redis.Redis]:
    """A client of each sentinel."""
    options = _common(settings) | _transport(settings) | _login(sentinel.user, sentinel.password)
    places = [address(host, 26379) for host in sentinel.hosts]
    return [redis.Redis(host=host, port=port, **options) for host, port in places]


def check_client(client: Any) -> None:
    """Refuse a client that would decode values. Raises `ConfigError`."""
    if client.get_encoder().decode_responses:
        msg = "the Redis client decodes responses: make it with decode_responses=False"
        raise ConfigError(msg)


def _common(settings: RedisSettings) -> dict[str, Any]:
    return {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.timeout,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # all we need; RESP3 adds pushes and a longer greeting
    }


def _transport(settings: RedisSettings) -> dict[str, Any]:
    if settings.tls:
        return {"ssl": True, **_tls(settings)}
    if settings.ca_file or settings.cert_file or settings.key_file:
        msg = "redis.ca_file, cert_file and key_file are for TLS: set redis.tls to true"
        raise ConfigError(msg)
    return {}


def _tls(settings: RedisSettings) -> dict[str, Any]:
    files = {
        "ssl_ca_certs": settings.ca_file,
        "ssl_certfile": settings.cert_file,
        "ssl_keyfile": settings.key_file,
    }
    found: dict[str, Any] = {key: path for key, path in files.items() if path}
    return found | {"ssl_check_hostname": True}  # off by default before redis-py 6


def _login(user: str, password: str) -> dict[str, Any]:
    return {"username": user or None, "password": password} if password else {}
