"""Connecting: the client's options, what the servers must grant, the nodes all need, the errors.

Everything that can be wrong is found out here, as a `ConfigError`, rather than with a job held.
All of it blocks, in every world: on asyncio it is done in a thread, as it is done once.
"""

from __future__ import annotations

import importlib.util
import logging
import ssl
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.handlers.threading import SequentialThreadingHandler
from kazoo.protocol.states import KeeperState
from kazoo.retry import KazooRetry
from kazoo.security import CREATOR_ALL_ACL

from distjob.errors import BackendUnavailable, ConfigError, DistjobError
from distjob.greenlets import refuse
from distjob.store import Guarantees
from distjob_zookeeper import guarantees as promised
from distjob_zookeeper import verbs, wire
from distjob_zookeeper.connection import Connection
from distjob_zookeeper.failures import NotAllowed
from distjob_zookeeper.handler import Notes, Sockets, tls_context
from distjob_zookeeper.layout import FORMAT, Epoch, Layout
from distjob_zookeeper.requests import Batch, Steps, failed, multi
from distjob_zookeeper.settings import ZookeeperSettings, taken_apart

log = logging.getLogger("distjob.zookeeper")


def client_for(settings: ZookeeperSettings, ttl: float) -> tuple[KazooClient, str]:
    """A client, not started, and the chroot. Raises `ConfigError`, without the password."""
    refuse("ZooKeeper", "eventlet")
    hosts, chroot = taken_apart(settings.hosts)
    options: dict[str, Any] = {}
    if settings.user:
        options["default_acl"] = CREATOR_ALL_ACL
        options |= _credentials(settings)
    sockets = Sockets(settings.timeout, _tls(settings))
    client = KazooClient(
        # The chroot is ours to make, with all above it, which kazoo does not.
        hosts=",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts
        ),
        timeout=ttl * promised.MARGIN,
        handler=sockets,
        connection_retry=KazooRetry(
            max_tries=-1, delay=0.05, max_delay=min(1.0, ttl / 10), sleep_func=sockets.sleep_func
        ),
        logger=Notes(),
        use_ssl=settings.tls,
        **options,
    )
    return client, chroot


def _credentials(settings: ZookeeperSettings) -> dict[str, Any]:
    if settings.auth == "digest":
        return {"auth_data": [("digest", f"{settings.user}:{settings.password}")]}
    if importlib.util.find_spec("puresasl") is None:
        msg = 'zookeeper.auth is "sasl", which needs pure-sasl: pip install "distjob-vm[zookeeper]"'
        raise ConfigError(msg)
    options = {"username": settings.user, "password": settings.password}
    return {"sasl_options": {"mechanism": "DIGEST-MD5", **options}}


def _tls(settings: ZookeeperSettings) -> ssl.SSLContext | None:
    files = {
        key: getattr(settings, key)
        for key in ("ca_file", "cert_file", "key_file")
        if getattr(settings, key)
    }
    if not settings.tls:
        return None
    try:
        return tls_context(settings.ca_file, settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(f"zookeeper.{key}={path}" for key, path in files.items())
        msg = f"TLS files can't be used ({named}): {error}"
        raise ConfigError(msg) from error


def begin(connection: Connection, ttl: float) -> None:
    """Have the client connected. Raises `BackendUnavailable`, `ConfigError`."""
    if connection.sockets is None:
        _check_users(connection)
    elif not connection.start():
        raise why(connection)
    if connection.granted > connection.needed * 1.01:
        log.warning(
            "ZooKeeper at %s grants sessions of %g s at least, where %g s were asked for: jobs of "
            "a controller that dies are freed later than session.ttl=%g says; lower the server's "
            "minSessionTimeout (twice its tickTime unless set)",
            connection.name,
            connection.granted,
            connection.needed,
            ttl,
        )


def _check_users(connection: Connection) -> None:
    refuse("ZooKeeper", "eventlet")
    client = connection.client
    if not isinstance(client.handler, SequentialThreadingHandler):
        msg = "the KazooClient must have kazoo's default handler (threads), not gevent or eventlet"
        raise ConfigError(msg)
    if client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED):
        msg = f"the KazooClient for {connection.name} is not started: call its start() first"
        raise ConfigError(msg)
    if not connection.settle():
        raise why(connection)
    look_at_limits(connection)
    if connection.too_short():
        msg = (
            f"the KazooClient for {connection.name} has sessions of {connection.granted:g} s, "
            f"{connection.needed:g} s are needed (1.5 times the TTL): make it with "
            f"KazooClient(timeout={connection.needed:g}); if that is not granted, raise the "
            "servers' maxSessionTimeout or lower the TTL"
        )
        raise ConfigError(msg)


def look_at_limits(connection: Connection) -> None:
    """Find out what session timeout a client of the user's has, once for each of its sessions.

    kazoo does not tell it. So each server is asked what it grants, on a connection of its own.
    Raises `BackendUnavailable` if none answers.
    """
    if not limits_unknown(connection):
        return
    client = connection.client
    of = client.client_id
    asked = client._session_timeout / 1000  # noqa: SLF001  # as passed to KazooClient(timeout=...)
    granted, last = [], ""
    for host in client.hosts:
        try:
            granted.append(wire.granted_timeout(client, host, asked, connection.timeout))
        except OSError as error:
            last = str(error)
    if not granted:
        msg = f"ZooKeeper at {connection.name}: no server could be asked for its limits: {last}"
        raise BackendUnavailable(msg)
    connection.granted = min(granted)
    connection.limits_of = of


def limits_unknown(connection: Connection) -> bool:
    """Whether `look_at_limits` would have to ask."""
    return connection.sockets is None and connection.limits_of != connection.client.client_id


def prepare(connection: Connection, layout: Layout, name: str) -> Epoch:
    """Make what nodes are missing, and find out that we may do all that we will have to.

    Returns the current epoch. Raises `BackendUnavailable`, `ConfigError`.
    """
    try:
        connection.run_here(_make(layout))
        written, epoch = connection.run_here(_rehearse(layout, name))
    except BackendUnavailable as error:
        found = why(connection)
        if isinstance(error, NotAllowed) and not isinstance(found, ConfigError):
            found = ConfigError(str(error))
        raise (found if isinstance(found, ConfigError) else error) from error
    if written != b"%d" % FORMAT:
        msg = (
            f"ZooKeeper at {connection.name}: this namespace is kept in format "
            f"{written.decode(errors='replace')[:40]}, this distjob reads format {FORMAT}: run the "
            "same version on every controller"
        )
        raise ConfigError(msg)
    return epoch


def _make(layout: Layout) -> Steps[None]:
    parts = layout.root.split("/")[1:]
    above = ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]
    paths = [*above, layout.vms, layout.sessions, layout.epoch, layout.format]
    found = yield Batch([verbs.exists(path) for path in paths])
    missing = [path for path, stat in zip(paths, found, strict=True) if stat is None]
    if missing:
        yield Batch([_create(layout, path) for path in missing], change=True)


def _create(layout: Layout, path: str) -> Any:
    data = b"%d" % FORMAT if path == layout.format else b""
    return lambda client: client.create_async(path, data)


def _rehearse(layout: Layout, name: str) -> Steps[tuple[bytes, Epoch]]:
    """Read what all agree on, and make and delete a VM's and a session's node in one step."""

    def build(steps: Any) -> None:
        steps.check(layout.epoch, verbs.ANY)
        for folder, ephemeral in ((layout.vms, False), (layout.sessions, True)):
            node = f"{folder}/~{name}"  # `layout.encoded` makes no such name
            steps.create(node, ephemeral=ephemeral)
            steps.set_data(node, b"", 0)
            steps.delete(node)

    written, epoch, results = yield Batch(
        (verbs.get(layout.format), verbs.get(layout.epoch), multi(build)), change=True
    )
    for answer in (written, epoch):
        if isinstance(answer, NoNodeError):
            raise answer
    if refused := failed(results):
        raise refused[1]
    return bytes(written[0] or b""), verbs.epoch_of(epoch)


def why(connection: Connection) -> DistjobError:
    """What has kept us from being connected."""
    where, last = f"ZooKeeper at {connection.name}", connection.notes.last
    if connection.notes.refused:
        return ConfigError(
            f"{where}: the user or password was refused: set zookeeper.user and password"
        )
    if short := connection.too_short():
        return ConfigError(f"{where}: {short}")
    if "CERTIFICATE_VERIFY_FAILED" in last:
        return ConfigError(
            f"{where}: its certificate is not trusted: set zookeeper.ca_file, and use the host "
            f"name that the certificate is for ({last})"
        )
    return BackendUnavailable(
        f"{where}: no connection within {connection.timeout:g} s: check zookeeper.hosts, and that "
        f"a majority of the servers is up ({last or 'no answer'})"
    )


def guarantees(connection: Connection, ttl: float) -> Guarantees:
    """What this ensemble promises to a client with that TTL."""
    servers = len(connection.client.hosts)
    return promised.of(ttl, connection.granted, ensemble=servers > 1)
