"""The keys of the ``zookeeper`` section, with their types, bounds and defaults.

Knows nothing of kazoo: settings are checked, and their schema printed, where it is missing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from distjob.backend.sections import Mistake, host_and_port
from distjob.backend.transport import CaFile, CertFile, KeyFile, Private, Timeout


class ZookeeperSettings(Private, frozen=True, kw_only=True):
    """Where the ZooKeeper servers are (3.5 or later), and how to be let in."""

    hosts: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=4096,
            pattern=r"^[^\x00\s/@,]+(,[^\x00\s/@,]+)*(/[^\x00\s]*)?\Z",
            extra={
                "right": "like zk1:2181,zk2:2181,zk3:2181/chroot, without blanks, or a list",
                "joined": ",",
            },
            description="`zk1:2181,zk2:2181,zk3:2181/chroot`: all servers of the ensemble, as one "
            "text or as a list, the last with the chroot below which everything is kept, if any; "
            "it is made if it is missing.",
        ),
    ] = "localhost:2181"
    timeout: Timeout = 2.0
    user: Annotated[
        str,
        msgspec.Meta(
            max_length=255,
            pattern=r"^[^\x00:]*\Z",
            extra={"right": "text of at most 255 characters, none of them ':' or NUL"},
            description="If set, all nodes are made so that only this user may see or change "
            "them: every controller of a namespace needs the same one.",
        ),
    ] = ""
    password: Annotated[
        str,
        msgspec.Meta(
            max_length=1024,
            pattern=r"^[^\x00]*\Z",
            extra={"right": "text of at most 1024 characters, none of them NUL"},
            description="The password of `user`.",
        ),
    ] = ""
    auth: Annotated[
        Literal["digest", "sasl"],
        msgspec.Meta(
            description="How `user` is shown: `digest` needs nothing of the servers; `sasl` "
            "(DIGEST-MD5) needs them to know the user by their JAAS configuration."
        ),
    ] = "digest"
    tls: Annotated[bool, msgspec.Meta(description="TLS, on the servers' `secureClientPort`.")] = (
        False
    )
    ca_file: CaFile = ""
    cert_file: Annotated[
        CertFile,
        msgspec.Meta(
            description="TLS: this client's certificate (PEM). Servers ask for one unless "
            "`ssl.clientAuth=none`."
        ),
    ] = ""
    key_file: KeyFile = ""

    def __post_init__(self) -> None:
        """Refuse keys that contradict each other."""
        taken_apart(self.hosts)
        if self.password and not self.user:
            raise Mistake("password", "goes with zookeeper.user: set both or none")
        if self.auth == "sasl" and not self.user:
            raise Mistake("auth", "sasl shows a user to the servers: set zookeeper.user, too")
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(self, name) and not self.tls:
                raise Mistake(name, "is for TLS: set zookeeper.tls to true as well")
        if self.key_file and not self.cert_file:
            raise Mistake("key_file", "is the key of zookeeper.cert_file: set both or none")


def taken_apart(hosts: str) -> tuple[list[tuple[str, int]], str]:
    """Servers and chroot, the latter without an end; empty: none. Raises `Mistake`."""
    servers, _, below = hosts.partition("/")
    parts = [part for part in below.split("/") if part]
    if not {".", ".."}.isdisjoint(parts):
        raise Mistake("hosts", "the chroot, from the first '/' on, holds no '.' or '..'")
    found = [host_and_port(server, 2181, "hosts") for server in servers.split(",")]
    return found, "".join(f"/{part}" for part in parts)
