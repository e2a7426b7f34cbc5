"""The keys of the ``redis`` section, with their types, bounds and defaults.

Knows nothing of redis-py: settings are checked, and their schema printed, where it is missing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

_File = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[^\x00]*\Z")]
_SECRETS = re.compile(
    r"(?P<user>^[a-z]+://[^:@/?#]*:)(?P<password>.*)(?=@)"  # greedy: a password may hold an "@"
    r"|(?P<key>[?&][a-z_]*password=)(?P<value>[^&#]*)"
)


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the Redis or Valkey server is (6.2 or later), and how to be let in."""

    url: Annotated[
        str,
        msgspec.Meta(
            min_length=8,
            max_length=4096,
            pattern=r"^(redis|rediss|unix)://[^\x00\s]*\Z",
            description="`redis://user:password@host:6379/0`; `rediss://` for TLS, `unix://` for "
            "a socket. Special characters in the password are percent-encoded. An ACL user needs "
            "what deploy/redis/users.acl grants.",
        ),
    ] = "redis://localhost:6379/0"
    timeout: Annotated[
        float,
        msgspec.Meta(
            ge=0.01,
            le=60.0,
            description="Seconds to wait for a connection, and for each answer. Well below the "
            "session's TTL, or one answer that is lost can cost the session.",
        ),
    ] = 2.0
    ca_file: Annotated[
        _File,
        msgspec.Meta(description="TLS: the CA's certificate (PEM); empty: the system's CAs."),
    ] = ""
    cert_file: Annotated[
        _File, msgspec.Meta(description="TLS: this client's certificate (PEM), if it needs one.")
    ] = ""
    key_file: Annotated[
        _File, msgspec.Meta(description="TLS: the key of `cert_file` (PEM), readable by us only.")
    ] = ""

    def __rich_repr__(self) -> Any:
        """The fields with the password blotted out, for rich and for `__repr__`."""
        yield "url", redacted(self.url)
        yield "timeout", self.timeout
        for name in ("ca_file", "cert_file", "key_file"):
            if value := getattr(self, name):
                yield name, value

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"


def redacted(url: str) -> str:
    """``url`` with its password, wherever it stands, blotted out."""
    return _SECRETS.sub(lambda found: f"{found['user'] or found['key']}***", url)
