"""Settings -> clients of redis-py that send nothing twice. Connects to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from redis.backoff import NoBackoff

from distjob.errors import ConfigError
from distjob_redis.blocking import THREADS
from distjob_redis.links import Driver, Then, World
from distjob_redis.settings import RedisSettings, SentinelSettings, address
from distjob_redis.url import taken_apart

if TYPE_CHECKING:
    import redis.asyncio

_OWN = ("host", "port", "path", "connection_pool", "connection_class", "redis_connect_func")
_TCP = {"socket_keepalive": True}
_INNER = ("orig_", "maint_", "oss_", "himport_")
"""What a pool of redis-py adds to the settings of its connections, about itself."""


class Model(NamedTuple):
    """How servers behind sentinels, or of a cluster, are connected to."""

    options: dict[str, Any]
    tls: bool
    greet: Any = None
    """The user's ``redis_connect_func``."""


def client_for(settings: RedisSettings, driver: Driver = THREADS.driver) -> Any:
    """A client of the one server that ``settings.url`` names, and the owner of its pool."""
    url = taken_apart(settings.url)
    options = _common(settings, driver) | {"db": url.db}
    if url.user or url.password:
        options |= {"username": url.user or None, "password": url.password or None}
    if url.path:
        kind, options = driver.unix_connection, options | {"path": url.path}
    else:
        kind = driver.tls_connection if url.tls else driver.connection
        options |= {"host": url.host, "port": url.port, **_TCP}
        options |= _tls(settings) if url.tls else {}
    return driver.client.from_pool(driver.pool(connection_class=kind, **options))


def model_for(settings: RedisSettings, driver: Driver) -> Model:
    """That of the servers' settings."""
    login = _login(settings.user, settings.password)
    options = _common(settings, driver) | _transport(settings) | login
    return model_of(driver.client(db=settings.db, **options), driver)


def model_of(client: Any, driver: Driver) -> Model:
    """That of a client, which is not used itself."""
    pool = client.connection_pool
    tls = issubclass(pool.connection_class, driver.tls_connection)
    return Model(_usable(pool.connection_kwargs), tls, _greet(pool.connection_kwargs))


def model_of_nodes(client: redis.asyncio.RedisCluster, driver: Driver) -> Model:
    """That of an asyncio cluster client's nodes, which have no pools of the usual kind."""
    told = client.connection_kwargs
    tls = issubclass(told.get("connection_class", driver.connection), driver.tls_connection)
    options = {name: told[name] for name in told.keys() - {"response_callbacks"}}
    return Model(_usable(options), tls, _greet(told))


def sibling(model: Model, host: str, port: int, world: World, then: Then | None = None) -> Any:
    """A client that is configured as ``model``, of the server at another address.

    ``then`` is called with each new connection, when it has logged in.
    """
    driver = world.driver
    return driver.client(
        connection_pool=driver.pool(
            connection_class=driver.tls_connection if model.tls else driver.connection,
            host=host,
            port=port,
            redis_connect_func=world.greeting(model.greet, then) if then else model.greet,
            **model.options,
        )
    )


def sentinels_for(settings: RedisSettings, sentinel: SentinelSettings, driver: Driver) -> list[Any]:
    """A client of each sentinel."""
    login = _login(sentinel.user, sentinel.password)
    options = _common(settings, driver) | _transport(settings) | login
    places = [address(host, 26379) for host in sentinel.hosts]
    return [driver.client(host=host, port=port, **options) for host, port in places]


def check_client(client: Any) -> None:
    """Refuse a client that would decode values. Raises `ConfigError`."""
    if client.get_encoder().decode_responses:
        msg = "the Redis client decodes responses: make it with decode_responses=False"
        raise ConfigError(msg)


def _usable(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in options.items()
        if name not in _OWN and not name.startswith(_INNER)
    }


def _greet(options: dict[str, Any]) -> Any:
    return options.get("redis_connect_func")


def _common(settings: RedisSettings, driver: Driver) -> dict[str, Any]:
    return {
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.timeout,
        "retry": driver.retry(NoBackoff(), 0),
        "protocol": 2,  # all we need; RESP3 adds pushes and a longer greeting
    }


def _transport(settings: RedisSettings) -> dict[str, Any]:
    return _TCP | ({"ssl": True, **_tls(settings)} if settings.tls else {})


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
