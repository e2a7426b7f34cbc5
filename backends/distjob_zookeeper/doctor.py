"""What an operator should know of the servers behind the settings. Changes nothing that stays.

Each server named in ``hosts`` is asked by itself, by the four-letter words it allows; what every
client meets alike is asked through a client of our own. Decides what is dangerous, and what to do.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kazoo.exceptions import NoNodeError

from distjob.backend.source import Fault
from distjob.backend.threads import Threads
from distjob.backend.world import now
from distjob.store import Finding
from distjob_zookeeper.client.asking import acls, children, exists
from distjob_zookeeper.client.connection import Connection
from distjob_zookeeper.client.making import recipe
from distjob_zookeeper.client.words import command
from distjob_zookeeper.guarantees import LAG, SHARE, needed
from distjob_zookeeper.layout import PACKET
from distjob_zookeeper.settings import ZookeeperSettings

if TYPE_CHECKING:
    from kazoo.client import KazooClient

TTL = 10.0
"""Seconds; the default of session.ttl, which an examination does not know."""
OLDEST = (3, 5)


def examine(settings: ZookeeperSettings) -> Iterator[Finding]:
    """Findings about the servers and our way to them. Raises `ConfigError` on bad settings."""
    made, chroot = recipe(settings, needed(TTL))
    world = Threads()
    connection = Connection(made, world, settings.timeout)
    connection.sockets.needed = 0.0  # what is granted is to be found out
    try:
        yield from _servers(connection.client, settings.timeout)
        yield from _way(connection.client, settings)
        now(connection.start())
        yield from _limits(connection)
        yield from _nodes(connection, chroot, settings)
    except Fault as fault:
        yield Finding("danger", fault.text, fault.advice or "see what the servers' logs say")
    finally:
        now(connection.stop(goodbye=True))
        world.close()


def _servers(client: KazooClient, wait: float) -> Iterator[Finding]:
    modes: list[str] = []
    for host in client.hosts:
        where = f"ZooKeeper at {host[0]}:{host[1]}"
        try:
            said = command(client, host, "srvr", wait)
        except OSError as error:
            yield Finding("warning", f"{where} can't be asked: {error}", "start it")
            continue
        version = re.search(r"version: (\d+)\.(\d+)\.?(\d*)", said)
        mode = re.search(r"Mode: (\S+)", said)
        if version is None:
            yield Finding(
                "warning",
                f"{where} does not tell how it is: {said.strip()[:80]!r}",
                "allow it: 4lw.commands.whitelist=srvr,mntr",
            )
            continue
        if (int(version[1]), int(version[2])) < OLDEST:
            yield Finding("danger", f"{where} is {version[0]}", "use 3.5 or later, best 3.8")
        if mode is None:
            yield Finding("danger", f"{where} does not serve", "see its log: has it a majority?")
        else:
            modes.append(mode[1])
            yield Finding("ok", f"{where}: {version[0]}, {mode[1]}")
    yield from _topology(modes, len(client.hosts))


def _topology(modes: list[str], named: int) -> Iterator[Finding]:
    if "standalone" in modes and named > 1:
        yield Finding(
            "danger",
            "one of several servers is alone: controllers that use different ones lock each "
            "other out of nothing",
            "make them one ensemble (server.1=..., server.2=...), or name one in hosts",
        )
    elif "standalone" in modes:
        yield Finding(
            "warning",
            "one server alone: while it is down no job can begin, and its disk holds all",
            "use an ensemble of three",
        )
    elif modes and named == 1:
        yield Finding(
            "warning",
            "an ensemble, of which hosts names one server: when that is down, so are we",
            "name them all in hosts",
        )
    elif modes.count("leader") > 1:
        yield Finding("danger", "two leaders: these are two ensembles", "mend hosts")
    elif modes and len(modes) < named:
        yield Finding("warning", f"{len(modes)} of {named} servers serve", "start the others")


def _way(client: KazooClient, settings: ZookeeperSettings) -> Iterator[Finding]:
    away = any(not _on_loopback(host) for host, _ in client.hosts)
    if away and not settings.tls:
        yield Finding(
            "warning", "no TLS: what goes over the network can be read and changed", "set tls"
        )
    if not settings.user:
        yield Finding(
            "warning" if away else "ok",
            "open ACLs: whoever reaches the servers can change jobs",
            "set user and password",
        )


def _on_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _limits(connection: Connection) -> Iterator[Finding]:
    granted = connection.sockets.granted
    if granted < needed(TTL) * 0.999:
        yield Finding(
            "danger",
            f"sessions of {granted:g} s where {needed(TTL):g} s are asked for: session.ttl is "
            f"{max(0.0, granted - LAG) / SHARE:.1f} s at most",
            "raise maxSessionTimeout (20 times tickTime unless set)",
        )
    try:
        now(connection.ask(exists("/" + "x" * PACKET)))
        now(connection.ask(exists("/")))
    except Fault:
        yield Finding(
            "danger",
            f"a request of {PACKET} bytes is not taken: jobs of a VM in whose line many wait "
            "could not begin, nor end",
            "set jute.maxbuffer to 1048575, its default, or more",
        )


def _nodes(connection: Connection, chroot: str, settings: ZookeeperSettings) -> Iterator[Finding]:
    root = f"{chroot}/distjob"
    (namespaces,) = now(connection.ask(children(root)))
    if not settings.user or isinstance(namespaces, NoNodeError):
        return
    for namespace in namespaces:
        folder = f"{root}/{namespace}/vm"
        (found,) = now(connection.ask(acls(folder)))
        if not isinstance(found, NoNodeError) and any(
            acl.id.scheme == "world" and acl.perms & ~1 for acl in found[0]
        ):
            yield Finding(
                "warning",
                f"{folder} was made before user was set: whoever reaches the servers can change it",
                "set its ACL, and that of all below it",
            )
