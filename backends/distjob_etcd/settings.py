"""The keys of the ``etcd`` section, with their types, bounds and defaults.

Knows nothing of grpcio: settings are checked, and their schema printed, where it is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from distjob.backend.sections import Mistake, host_and_port
from distjob.backend.transport import TLS_FILES, CertFile, File, KeyFile, Private, Word

_Endpoint = Annotated[
    str,
    msgspec.Meta(
        max_length=300,
        pattern=r"^(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]):[0-9]{1,5}/?\Z",
        extra={"right": "host:port, such as localhost:2379, or https://host:port for TLS"},
    ),
]


class EtcdSettings(Private, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the etcd cluster is (3.4 or later), and how to be let in."""

    endpoints: Annotated[
        tuple[_Endpoint, ...],
        msgspec.Meta(
            min_length=1,
            max_length=20,
            description="The members, as `host:port`; with `https://` before it, by TLS. Name all: "
            "one that is down, hangs or has lost the others is left for the next.",
        ),
    ] = ("localhost:2379",)
    timeout: Annotated[
        float,
        msgspec.Meta(
            ge=0.05,
            le=60.0,
            description="Seconds to wait for an answer, all members together. Well below the "
            "session's TTL, or one answer that is lost can cost the session; never above it.",
        ),
    ] = 2.0
    user: Annotated[
        Word,
        msgspec.Meta(
            description="User, if the server asks for one; its role needs "
            "`readwrite` on the prefix `distjob/<namespace>/`."
        ),
    ] = ""
    password: Annotated[Word, msgspec.Meta(description="The password of `user`.")] = ""
    ca_file: Annotated[
        File,
        msgspec.Meta(description="TLS: the CA's certificate (PEM); empty: the CAs that gRPC has."),
    ] = ""
    cert_file: CertFile = ""
    key_file: KeyFile = ""
    server_name: Annotated[
        Word,
        msgspec.Meta(
            description="TLS: the name in the servers' certificates, where it is not the host's."
        ),
    ] = ""

    @property
    def secure(self) -> bool:
        """Whether TLS is used."""
        return self.endpoints[0].startswith("https://")

    @property
    def names(self) -> tuple[str, ...]:
        """The endpoints, each once, as ``host:port``."""
        plain = (endpoint.rpartition("//")[2].rstrip("/") for endpoint in self.endpoints)
        return tuple(dict.fromkeys(plain))

    def __post_init__(self) -> None:
        """Refuse keys that contradict each other."""
        for name in self.names:
            host_and_port(name, None, "endpoints")
        if any(endpoint.startswith("https://") != self.secure for endpoint in self.endpoints):
            right = "all begin with https:// or none: tokens would go in the clear"
            raise Mistake("endpoints", right)
        for name in (*TLS_FILES, "server_name"):
            if getattr(self, name) and not self.secure:
                raise Mistake(name, "is for TLS: all etcd.endpoints must begin with https://")
        for name, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
            if getattr(self, name) and not getattr(self, other):
                raise Mistake(name, f"goes with etcd.{other}: set both or none")
        if self.password and not self.user:
            raise Mistake("password", "goes with etcd.user: set both or none")


class EtcdRecipe(EtcdSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same for a program that makes its channels itself: what no settings file can hold.

    For connections by TLS of another kind, proxies, credentials of a cloud, interceptors:

        Settings(backend="etcd", section=EtcdRecipe(endpoints=(...), make=my_channel))
    """

    make: Callable[[Any, str], Any] | None = None
    """(the module `grpc`, or `grpc.aio` for the calls of an asyncio client; an endpoint, as
    ``host:port``) -> a new channel of that module to it, which is closed with the store. Give it
    ``("grpc.enable_retries", 0)``: what may have been applied must not be sent again."""
    client: Any = None
    """Instead of ``endpoints`` and ``make``, for a blocking client of ours: a `grpc.Channel`, or a
    client of python-etcd3 or of one of its forks, whose token is used, too. It is not closed."""
