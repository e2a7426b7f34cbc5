"""The keys of the ``etcd`` section, with their types, bounds and defaults.

Knows nothing of grpcio: settings are checked, and their schema printed, where it is missing.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from distjob.sections import Mistake, host_and_port

_File = Annotated[
    str,
    msgspec.Meta(
        max_length=4096,
        pattern=r"^[^\x00]*\Z",
        extra={"right": "a path of at most 4096 characters, none of them NUL"},
    ),
]
_Word = Annotated[
    str,
    msgspec.Meta(
        max_length=1024,
        pattern=r"^[^\x00]*\Z",
        extra={"right": "text of at most 1024 characters, none of them NUL"},
    ),
]
_Endpoint = Annotated[
    str,
    msgspec.Meta(
        max_length=300,
        pattern=r"^(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]):[0-9]{1,5}/?\Z",
        extra={"right": "host:port, such as localhost:2379, or https://host:port for TLS"},
    ),
]


class EtcdSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
        _Word,
        msgspec.Meta(
            description="User, if the server asks for one; its role needs "
            "`readwrite` on the prefix `distjob/<namespace>/`."
        ),
    ] = ""
    password: Annotated[_Word, msgspec.Meta(description="The password of `user`.")] = ""
    ca_file: Annotated[
        _File,
        msgspec.Meta(description="TLS: the CA's certificate (PEM); empty: the CAs that gRPC has."),
    ] = ""
    cert_file: Annotated[
        _File, msgspec.Meta(description="TLS: this client's certificate (PEM), if it needs one.")
    ] = ""
    key_file: Annotated[
        _File, msgspec.Meta(description="TLS: the key of `cert_file` (PEM), readable by us only.")
    ] = ""
    server_name: Annotated[
        _Word,
        msgspec.Meta(
            description="TLS: the name in the servers' certificates, where it is not the host's."
        ),
    ] = ""

    def __post_init__(self) -> None:
        """Refuse keys that contradict each other."""
        for endpoint in self.endpoints:
            host_and_port(address(endpoint), None, "endpoints")
        secure = {endpoint.startswith("https://") for endpoint in self.endpoints}
        if len(secure) > 1:
            right = "all begin with https:// or none: tokens would go in the clear"
            raise Mistake("endpoints", right)
        for name in ("ca_file", "cert_file", "key_file", "server_name"):
            if getattr(self, name) and secure != {True}:
                raise Mistake(name, "is for TLS: all etcd.endpoints must begin with https://")
        for name, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
            if getattr(self, name) and not getattr(self, other):
                raise Mistake(name, f"goes with etcd.{other}: set both or none")
        if self.password and not self.user:
            raise Mistake("password", "goes with etcd.user: set both or none")

    def __rich_repr__(self) -> Any:
        """The fields with the password blotted out, for rich and for `__repr__`."""
        yield "endpoints", self.endpoints
        yield "timeout", self.timeout
        for name in ("user", "password", "ca_file", "cert_file", "key_file", "server_name"):
            if value := getattr(self, name):
                yield name, "***" if name == "password" else value

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"


def address(endpoint: str) -> str:
    """``host:port`` of an endpoint."""
    return endpoint.rpartition("//")[2].rstrip("/")
