"""Settings -> servers, by clients of redis-py that send nothing twice. Connects to nothing."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from distjob.backend.world import World
from distjob.errors import ConfigError
from distjob_redis.client.pipeline import AsyncServer
from distjob_redis.client.server import Greet, Server
from distjob_redis.client.threads import BlockingServer
from distjob_redis.faults import Address
from distjob_redis.settings import RedisRecipe, RedisSettings, SentinelSettings
from distjob_redis.url import taken_apart


class Maker:
    """Makes the servers that the settings name, for one world."""

    def __init__(self, settings: RedisSettings, world: World) -> None:
        self.settings = settings
        self.world = world
        on_loop = world.kind == "tasks"
        self._module: Any = redis.asyncio if on_loop else redis
        self._kind: type[Server] = AsyncServer if on_loop else BlockingServer
        self._retry: Any = AsyncRetry if on_loop else Retry

    def single(self) -> Server:
        """The one server that ``settings.url`` names."""
        url = taken_apart(self.settings.url)
        login = {"username": url.user or None, "password": url.password or None, "db": url.db}
        if url.path:
            return self._server({"unix_socket_path": url.path, **login})
        return self._server({**self._tcp((url.host, url.port), tls=url.tls), **login})

    def data(self, at: Address, greet: Greet | None = None) -> Server:
        """A primary behind sentinels, or a node of a cluster."""
        chosen = self.settings
        options = {**self._tcp(at, tls=chosen.tls), **_login(chosen), "db": chosen.db}
        return self._server(options, greet)

    def sentinel(self, at: Address, sentinel: SentinelSettings) -> Server:
        """One of the sentinels."""
        return self._server({**self._tcp(at, tls=self.settings.tls), **_login(sentinel)})

    def _tcp(self, at: Address, *, tls: bool) -> dict[str, Any]:
        options: dict[str, Any] = {"host": at[0], "port": at[1], "socket_keepalive": True}
        if tls:
            files = {
                "ssl_ca_certs": self.settings.ca_file,
                "ssl_certfile": self.settings.cert_file,
                "ssl_keyfile": self.settings.key_file,
            }
            options |= {key: path for key, path in files.items() if path}
            options |= {"ssl": True, "ssl_check_hostname": True}  # off before redis-py 6
        return options

    def _server(self, options: dict[str, Any], greet: Greet | None = None) -> Server:
        options |= {
            "socket_timeout": self.settings.timeout,
            "socket_connect_timeout": self.settings.timeout,
            "retry": self._retry(NoBackoff(), 0),
            "protocol": 2,  # all we need; RESP3 adds pushes and a longer greeting
        }
        make = self.settings.make if isinstance(self.settings, RedisRecipe) else None
        client = make(self._module, options) if make else self._module.Redis(**options)
        if not isinstance(client, self._module.Redis):
            kind = type(client)
            msg = (
                f"RedisRecipe.make returned a {kind.__module__}.{kind.__name__}, not a client of "
                f"the module that it was given: {self._module.__name__}.Redis"
            )
            raise ConfigError(msg)
        return self._kind(client, greet)


def _login(section: RedisSettings | SentinelSettings) -> dict[str, Any]:
    return {"username": section.user or None, "password": section.password or None}
