"""The keys of the ``redis`` section, with their types, bounds and defaults.

Knows nothing of redis-py: settings are checked, and their schema printed, where it is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from distjob.backend.sections import Mistake, host_and_port
from distjob.backend.transport import (
    TLS_FILES,
    CaFile,
    CertFile,
    KeyFile,
    Private,
    Timeout,
    Word,
)
from distjob_redis.url import MOST_DB, taken_apart

_Host = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(\[[^\x00\s/@\[\]]+\]|[^\x00\s:/@\[\]]+)(:[0-9]{1,5})?\Z",
        extra={"right": "a host, with or without a port, such as redis1:6379 or [::1]:6379"},
    ),
]
_Hosts = Annotated[tuple[_Host, ...], msgspec.Meta(min_length=1, max_length=1000)]
_SECRETS = re.compile(
    r"(?P<user>^[a-z]+://[^:@/?#]*:)(?P<password>.*)(?=@)"  # greedy: a password may hold an "@"
    r"|(?P<key>[?&][a-z_]*password=)(?P<value>[^&#]*)"
)
DEFAULT_URL = "redis://localhost:6379/0"
SHARDS = 8


class SentinelSettings(Private, frozen=True, kw_only=True):
    """The sentinels that say which server is the primary. ``hosts`` must be given."""

    hosts: Annotated[
        _Hosts,
        msgspec.Meta(
            description="All sentinels, as `host:port`, port 26379 if none is given. Most of them "
            "must answer, and agree, for a server to be taken for the primary."
        ),
    ]
    name: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=255,
            pattern=r"^\S+\Z",
            extra={"right": "1 to 255 characters, without blanks"},
            description="What the sentinels call the primary (`sentinel monitor NAME ...`).",
        ),
    ] = "distjob"
    user: Annotated[Word, msgspec.Meta(description="ACL user at the sentinels, if any.")] = ""
    password: Annotated[
        Word, msgspec.Meta(description="Password at the sentinels, if they ask for one.")
    ] = ""

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        for host in self.hosts:
            address(host, 26379)
        _check_login(self)


class ClusterSettings(Private, frozen=True, kw_only=True):
    """A Redis Cluster. ``hosts`` must be given."""

    hosts: Annotated[
        _Hosts,
        msgspec.Meta(
            description="Some nodes, as `host:port`, port 6379 if none is given; the others are "
            "found through them."
        ),
    ]
    shards: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            le=256,
            description="Among how many hash slots VMs are spread. The same on every controller, "
            "and for ever: the first one to connect writes it into the namespace.",
        ),
    ] = SHARDS

    def __post_init__(self) -> None:
        """Refuse what can't be."""
        for host in self.hosts:
            address(host, 6379)


class RedisSettings(Private, frozen=True, kw_only=True):
    """Where Redis or Valkey is (6.2 or later): ``url``, ``sentinel`` or ``cluster``."""

    url: Annotated[
        str,
        msgspec.Meta(
            min_length=8,
            max_length=4096,
            pattern=r"^(redis|rediss|unix)://[^\x00\s]*\Z",
            extra={
                "right": "redis://host:6379/0, rediss://host:6379/0 for TLS, or "
                "unix:///run/redis/redis.sock for a socket, without blanks"
            },
            description="One server: `redis://user:password@host:6379/0`; `rediss://` for TLS; "
            "`unix://user:password@/run/redis.sock?db=0` for a socket. Special characters in the "
            "password are percent-encoded. An ACL user needs what deploy/redis/users.acl grants.",
        ),
    ] = DEFAULT_URL
    sentinel: Annotated[
        SentinelSettings | None,
        msgspec.Meta(description="A primary with replicas, watched by sentinels."),
    ] = None
    cluster: Annotated[ClusterSettings | None, msgspec.Meta(description="A Redis Cluster.")] = None
    user: Annotated[
        Word, msgspec.Meta(description="With sentinel or cluster: ACL user at the servers.")
    ] = ""
    password: Annotated[
        Word, msgspec.Meta(description="With sentinel or cluster: password at the servers.")
    ] = ""
    db: Annotated[
        int, msgspec.Meta(ge=0, le=MOST_DB, description="With sentinel: number of the database.")
    ] = 0
    tls: Annotated[
        bool,
        msgspec.Meta(description="With sentinel or cluster: TLS to all servers and sentinels."),
    ] = False
    timeout: Timeout = 2.0
    ca_file: CaFile = ""
    cert_file: CertFile = ""
    key_file: KeyFile = ""

    def __post_init__(self) -> None:
        """Refuse keys that contradict each other."""
        ways = {"url": self.url != DEFAULT_URL, "sentinel": self.sentinel, "cluster": self.cluster}
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            msg = f"{' and '.join(given)} are given: name the server in one of them"
            raise ValueError(msg)
        if self.sentinel is None and self.cluster is None:
            for name in ("user", "password", "db", "tls"):
                if getattr(self, name):
                    right = (
                        "goes with sentinel or cluster: with url it is a part of that "
                        "(rediss://user:password@host:port/number)"
                    )
                    raise Mistake(name, right)
        if self.cluster is not None and self.db:
            raise Mistake("db", "can't be chosen in a cluster, which has number 0 only: remove it")
        _check_login(self)
        tls = taken_apart(self.url).tls or self.tls
        for name in TLS_FILES:
            if getattr(self, name) and not tls:
                right = "is for TLS: redis.url must begin with rediss://, or redis.tls be true"
                raise Mistake(name, right)
        if self.key_file and not self.cert_file:
            raise Mistake("key_file", "is the key of redis.cert_file: set both or none")

    def __rich_repr__(self) -> Any:
        """The fields with passwords blotted out, for rich and for `__repr__`."""
        if self.sentinel is None and self.cluster is None and self.url == DEFAULT_URL:
            yield "url", self.url
        yield from Private.__rich_repr__(self)

    def blotted(self, name: str, value: Any) -> Any:
        return redacted(value) if name == "url" else Private.blotted(self, name, value)


class RedisRecipe(RedisSettings, frozen=True, kw_only=True):
    """The same for a program that makes redis-py's clients itself: what no settings file can hold.

    For credentials of a cloud (IAM), TLS of another kind, proxies:

        Settings(backend="redis", section=RedisRecipe(url=..., make=my_client))
    """

    make: Callable[[Any, dict[str, Any]], Any] | None = None
    """(the module `redis`, or `redis.asyncio` for an asyncio client; keyword arguments of its
    `Redis`, as the settings give them) -> a new client of it. Called once for each server, for
    sentinels and nodes of a cluster, too. Its connections are used and it is closed in the end."""


def _check_login(section: RedisSettings | SentinelSettings) -> None:
    if section.user and not section.password:
        raise Mistake("user", "is given without password")


def address(host: str, port: int) -> tuple[str, int]:
    """One of ``hosts`` in two; ``port`` if none is given. Raises `Mistake`."""
    return host_and_port(host, port, "hosts")


def redacted(url: str) -> str:
    """``url`` with its password, wherever it stands, blotted out."""
    return _SECRETS.sub(lambda found: f"{found['user'] or found['key']}***", url)
