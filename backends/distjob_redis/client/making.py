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

_TCP = {"socket_keepalive": True}


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
        options: dict[str, Any] = {"db": url.db}
        if url.user or url.password:
            options |= {"username": url.user or None, "password": url.password or None}
        if url.path:
            options |= {"unix_socket_path": url.path}
        else:
            options |= {"host": url.host, "port": url.port, **_TCP, **self._tls(on=url.tls)}
        return self._server(options)

    def data(self, at: Address, greet: Greet | None = None) -> Server:
        """A primary behind sentinels, or a node of a cluster."""
        chosen = self.settings
        options = {**_at(at), "db": chosen.db, **_login(chosen.user, chosen.password)}
        return self._server(options | self._tls(on=chosen.tls), greet)

    def sentinel(self, at: Address, sentinel: SentinelSettings) -> Server:
        """One of the sentinels."""
        login = _login(sentinel.user, sentinel.password)
        return self._server({**_at(at), **login, **self._tls(on=self.settings.tls)})

    def _server(self, options: dict[str, Any], greet: Greet | None = None) -> Server:
        options |= {
            "socket_timeout": self.settings.timeout,
            "socket_connect_timeout": self.settings.timeout,
            "retry": self._retry(NoBackoff(), 0),
            "protocol": 2,  # all we need; RESP3 adds pushes and a longer greeting
        }
        make = self.settings.make if isinstance(self.settings, RedisRecipe) else None
        client = (make or _made)(self._module, options)
        if not isinstance(client, self._module.Redis):
            kind = type(client)
            msg = (
                f"RedisRecipe.make returned a {kind.__module__}.{kind.__name__}, not a client of "
                f"the module that it was given: {self._module.__name__}.Redis"
            )
            raise ConfigError(msg)
        return self._kind(client, greet)

    def _tls(self, *, on: bool) -> dict[str, Any]:
        if not on:
            return {}
        files = {
            "ssl_ca_certs": self.settings.ca_file,
            "ssl_certfile": self.settings.cert_file,
            "ssl_keyfile": self.settings.key_file,
        }
        found: dict[str, Any] = {key: path for key, path in files.items() if path}
        return found | {"ssl": True, "ssl_check_hostname": True}  # off before redis-py 6


def _made(module: Any, options: dict[str, Any]) -> Any:
    return module.Redis(**options)


def _at(address: Address) -> dict[str, Any]:
    return {"host": address[0], "port": address[1], **_TCP}


def _login(user: str, password: str) -> dict[str, Any]:
    return {"username": user or None, "password": password} if password else {}
