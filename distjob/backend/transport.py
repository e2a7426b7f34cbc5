"""What settings of backends have in common: secrets that are not shown, TLS files that are checked.

Imports no client library: settings are checked, and their schema printed, where it is missing.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any

import msgspec

from distjob.errors import ConfigError

File = Annotated[
    str,
    msgspec.Meta(
        max_length=4096,
        pattern=r"^[^\x00]*\Z",
        extra={"right": "a path of at most 4096 characters, none of them NUL"},
    ),
]
Word = Annotated[
    str,
    msgspec.Meta(
        max_length=4096,
        pattern=r"^[^\x00]*\Z",
        extra={"right": "text of at most 4096 characters, none of them NUL"},
    ),
]
Timeout = Annotated[
    float,
    msgspec.Meta(
        ge=0.01,
        le=60.0,
        description="Seconds to wait for a connection, and for each answer. Well below the "
        "session's TTL, or one answer that is lost can cost the session; never above it.",
    ),
]
CaFile = Annotated[
    File, msgspec.Meta(description="TLS: the CA's certificate (PEM); empty: the system's CAs.")
]
CertFile = Annotated[
    File, msgspec.Meta(description="TLS: this client's certificate (PEM), if it needs one.")
]
KeyFile = Annotated[
    File, msgspec.Meta(description="TLS: the key of `cert_file` (PEM), readable by us only.")
]
TLS_FILES = ("ca_file", "cert_file", "key_file")


class Private(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings whose repr leaves out what is not set, and blots out what nobody should read."""

    def blotted(self, name: str, value: Any) -> Any:
        """``value`` of the field ``name`` as it may be shown."""
        return "***" if value and name == "password" else value

    def __rich_repr__(self) -> Any:
        """The fields, for rich and for `__repr__`."""
        for field in msgspec.structs.fields(self):
            if (value := getattr(self, field.name)) != field.default:
                yield field.name, self.blotted(field.name, value)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"


def check_tls_files(settings: Any, section: str, *, tls: bool, how: str) -> None:
    """See that the TLS files of ``settings`` can be used. Raises `ConfigError`.

    ``tls``: whether TLS is used at all; ``how``: how it would be. Client libraries tell of a file
    that is broken late, in a log, or not at all.
    """
    given = [name for name in TLS_FILES if getattr(settings, name)]
    if given and not tls:
        raise ConfigError(f"{section}.{given[0]} is for TLS: {how}")
    if bool(settings.cert_file) != bool(settings.key_file):
        raise ConfigError(f"{section}.cert_file and {section}.key_file belong together: set both")
    for name in given:
        path = Path(getattr(settings, name))
        try:
            path.read_bytes()
        except OSError as error:
            msg = f"{section}.{name}: {path} can't be read: {error.strerror}"
            raise ConfigError(msg) from error
    if given:
        tls_context(settings, section)


def tls_context(settings: Any, section: str) -> ssl.SSLContext:
    """A context that verifies chain and host name, with the files given. Raises `ConfigError`."""
    context = ssl.create_default_context()
    try:
        if settings.ca_file:
            context = ssl.create_default_context(cafile=settings.ca_file)
    except ssl.SSLError as error:
        msg = f"{section}.ca_file: {settings.ca_file} holds no certificate in PEM ({error.reason})"
        raise ConfigError(msg) from error
    try:
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file, password=lambda: "")
    except ssl.SSLError as error:
        msg = (
            f"{section}.cert_file, {section}.key_file: {settings.cert_file} and "
            f"{settings.key_file} are no certificate and its key in PEM, without a passphrase "
            f"({error.reason})"
        )
        raise ConfigError(msg) from error
    return context
