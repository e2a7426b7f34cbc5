"""What an operator should know of the servers of a store. Changes nothing that stays.

Each server named in ``hosts`` is asked by itself, by a four-letter word; what every client meets
alike was found out in connecting. Decides what is dangerous, and what to do.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kazoo.exceptions import NoNodeError

from distjob.backend.world import now
from distjob.store import Finding
from distjob_zookeeper.client.asking import acls
from distjob_zookeeper.faults import SHUT_OUT

if TYPE_CHECKING:
    from kazoo.client import KazooClient

    from distjob_zookeeper.source import ZookeeperSource

OLDEST = (3, 5)


def examine(source: ZookeeperSource) -> Iterator[Finding]:
    """Findings about the servers and our way to them."""
    client = source.connection.client
    modes: list[str] = []
    for host in client.hosts:
        yield from _server(client, host, source.settings.timeout, modes)
    yield from _topology(modes, len(client.hosts))
    away = any(not _on_loopback(host) for host, _ in client.hosts)
    if away and not source.settings.tls:
        what = "no TLS: what goes over the network can be read and changed"
        yield Finding("warning", what, "set tls")
    if not source.settings.user:
        what = "open ACLs: whoever reaches the servers can change jobs"
        yield Finding("warning" if away else "ok", what, "set user and password")
        return
    folder = source.layout.vms
    (found,) = now(source.connection.ask(acls(folder)))
    if not isinstance(found, NoNodeError) and any(
        acl.id.scheme == "world" and acl.perms & ~1 for acl in found[0]
    ):
        what = f"{folder} was made before user was set: whoever reaches the servers can change it"
        yield Finding("warning", what, "set its ACL, and that of all below it")


def _server(
    client: KazooClient, host: tuple[str, int], wait: float, modes: list[str]
) -> Iterator[Finding]:
    """Of one of them, whose mode is added to ``modes``."""
    where = f"ZooKeeper at {host[0]}:{host[1]}"
    try:
        said = _command(client, host, "srvr", wait)
    except OSError as error:
        yield Finding("warning", f"{where} can't be asked: {error}", "start it")
        return
    version = re.search(r"version: (\d+)\.(\d+)\.?(\d*)", said)
    mode = re.search(r"Mode: (\S+)", said)
    if not said:
        yield Finding("warning", f"{where} says nothing", SHUT_OUT)
    elif version is None:
        what = f"{where} does not tell how it is: {said.strip()[:80]!r}"
        yield Finding("warning", what, "allow it: 4lw.commands.whitelist=srvr,mntr")
    elif mode is None:
        yield Finding("danger", f"{where} does not serve", "see its log: has it a majority?")
    else:
        modes.append(mode[1])
        yield Finding("ok", f"{where}: {version[0]}, {mode[1]}")
    if version is not None and (int(version[1]), int(version[2])) < OLDEST:
        yield Finding("danger", f"{where} is {version[0]}", "use 3.5 or later, best 3.8")


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


def _command(client: KazooClient, host: tuple[str, int], word: str, seconds: float) -> str:
    """What a server answers to a four-letter word, within ``seconds``. Raises OSError."""
    names = ("use_ssl", "ca", "certfile", "keyfile", "keyfile_password")
    tls = {name: getattr(client, name) for name in (*names, "verify_certs", "check_hostname")}
    with client.handler.connect(host, hostname=host[0], timeout=seconds, **tls) as sock:
        sock.settimeout(seconds)
        sock.sendall(word.encode())
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


def _on_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
