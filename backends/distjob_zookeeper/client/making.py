"""How a kazoo client is made: of the settings, or by the user's recipe with what they say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient
from kazoo.protocol.states import KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL

from distjob.backend.greenlets import refuse
from distjob.backend.transport import check_tls_files, tls_context
from distjob.errors import ConfigError
from distjob_zookeeper.client.sockets import Notes, Sockets
from distjob_zookeeper.settings import ZookeeperRecipe, ZookeeperSettings, taken_apart


def recipe(settings: ZookeeperSettings, seconds: float) -> tuple[Callable[[], KazooClient], str]:
    """What makes a client, and the chroot. Raises `ConfigError`, without the password.

    ``seconds``: how long a server must keep a session.
    """
    make = (isinstance(settings, ZookeeperRecipe) and settings.make) or KazooClient
    refuse("ZooKeeper", "eventlet")
    hosts, chroot = taken_apart(settings.hosts)
    check_tls_files(settings, "zookeeper", tls=settings.tls, how="set zookeeper.tls as well")
    tls = tls_context(settings, "zookeeper") if settings.tls else None
    options = _credentials(settings)
    # The chroot is ours to make, with all above it, which kazoo does not.
    options["hosts"] = ",".join(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts
    )

    def made() -> KazooClient:
        sockets = Sockets(settings.timeout, seconds, tls)
        pauses = KazooRetry(max_tries=-1, delay=0.05, max_delay=1.0, sleep_func=sockets.sleep_func)
        client = make(
            timeout=seconds, handler=sockets, logger=Notes(), connection_retry=pauses, **options
        )
        if client.handler is not sockets or not isinstance(client.logger, Notes):
            msg = "the recipe of the ZooKeeper client must pass on handler=... and logger=..."
            raise ConfigError(msg)
        if client.client_state != KeeperState.CLOSED:
            raise ConfigError("the recipe of the ZooKeeper client must not start it")
        if client.chroot:
            raise ConfigError("the chroot belongs into zookeeper.hosts, not into the recipe")
        return client

    return made, chroot


def _credentials(settings: ZookeeperSettings) -> dict[str, Any]:
    if not settings.user:
        return {}
    options: dict[str, Any] = {"default_acl": CREATOR_ALL_ACL}
    if settings.auth == "digest":
        return options | {"auth_data": [("digest", f"{settings.user}:{settings.password}")]}
    if importlib.util.find_spec("puresasl") is None:
        raise ConfigError(
            'zookeeper.auth is "sasl", which needs pure-sasl:'
            ' pip install "distjob-vm[zookeeper-sasl]"'
        )
    login = {"username": settings.user, "password": settings.password}
    return options | {"sasl_options": {"mechanism": "DIGEST-MD5", **login}}
