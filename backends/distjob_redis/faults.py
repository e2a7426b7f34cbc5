"""What redis-py's errors mean: what was certainly not done, whose fault it is, what helps.

Tells, too, what only the backend itself has to know of a refusal: that another server is to be
asked, or that the script is not known there. Knows no connection.
"""

from __future__ import annotations

import ssl
from enum import Enum, auto
from typing import Literal, NamedTuple, TypeAlias

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from distjob.backend.source import Fault

Address: TypeAlias = tuple[str, int]


class Why(Enum):
    """What a fault is to the backend itself."""

    OTHER = auto()
    LOST = auto()
    """The server did not answer, or is not the one to ask any more."""
    MOVED = auto()
    """Another node has the slot now; nothing was done."""
    ASK = auto()
    """The same for this one command, as the slot is about to move."""
    NO_SCRIPT = auto()
    """The server has not seen the script yet, or has forgotten it."""
    DAMAGED = auto()
    """Under a key of ours stands what is not ours."""


class RedisFault(Fault):
    """A `Fault` that still knows what it is to the backend."""

    def __init__(
        self,
        text: str,
        advice: str = "",
        *,
        why: Why = Why.OTHER,
        made: Literal["no", "unknown"] = "no",
        unfit: bool = False,
        to: Address = ("", 0),
    ) -> None:
        super().__init__(text, advice, made=made, unfit=unfit)
        self.why = why
        self.to = to
        """Where a redirection leads; an empty host: to that of the node which said so."""


_DENIED = (
    "the user or password was refused: set them in redis.url, or redis.user and redis.password; "
    "those of sentinels in redis.sentinel"
)
_FORBIDDEN = "the ACL user may not do this: grant what deploy/redis/users.acl lists"
_REPLICA = "this is a read-only replica: point redis.url at the primary, or use redis.sentinel"
_FULL = "it is out of memory: raise maxmemory or free some"
_LOADING = "it is still loading its data: wait until it has"
_NO_DB = (
    "it has no database of that number: name one below the `databases` of its configuration, 16 "
    "unless set, in redis.url (redis://host:port/number) or redis.db"
)
_NAMELESS = (
    "no sentinel knows a primary of this name: redis.sentinel.name is that of the sentinels' "
    "configuration (sentinel monitor NAME)"
)
_NO_NODE = "it is not a node of a cluster: name it in redis.url, not in redis.cluster"
_NO_SENTINEL = (
    "it is not a sentinel: redis.sentinel.hosts names sentinels, not the servers they watch"
)
_FEW = "too few replicas follow it (min-replicas-to-write)"
_DISK = "it can't write to its disk and refuses changes: see its log"
_STRANGE = (
    "what listens there does not speak the protocol of Redis: check host and port, and whether it "
    "expects TLS (rediss://, or redis.tls)"
)
_UNTRUSTED = (
    "its certificate is not to be trusted: set redis.ca_file to the CA that signed it, and name "
    "the host as the certificate does"
)
_DAMAGE = "it holds other data under a key of ours"


class _Answer(NamedTuple):
    """What an answer of the server means; ``sort``: its class, where a script hides none."""

    sort: type[RedisError] | None
    code: str
    """Or else what stands in its text."""
    advice: str
    why: Why = Why.OTHER
    unfit: bool = False


_ANSWERS = (
    _Answer(AuthenticationError, "NOAUTH", _DENIED, unfit=True),
    _Answer(NoPermissionError, "ACL failure", _FORBIDDEN, unfit=True),
    _Answer(None, "can't run this command", _FORBIDDEN, unfit=True),
    _Answer(ReadOnlyError, "READONLY", _REPLICA, Why.LOST),
    _Answer(OutOfMemoryError, "OOM", _FULL),
    _Answer(BusyLoadingError, "LOADING", _LOADING, Why.LOST),
    _Answer(None, "NOREPLICAS", _FEW),
    _Answer(None, "MISCONF", _DISK),
    _Answer(TryAgainError, "TRYAGAIN", "the slot is being moved: wait until it has"),
    _Answer(ClusterDownError, "CLUSTERDOWN", "see CLUSTER INFO", Why.LOST),
    _Answer(None, "WRONGTYPE", _DAMAGE, Why.DAMAGED),
    _Answer(None, "DAMAGED", _DAMAGE, Why.DAMAGED),
    _Answer(None, "cluster support disabled", _NO_NODE, unfit=True),
    _Answer(None, "unknown command 'SENTINEL'", _NO_SENTINEL, unfit=True),
    _Answer(None, "DB index is out of range", _NO_DB, unfit=True),
    _Answer(None, "No such master with that name", _NAMELESS, unfit=True),
)


def meaning(error: RedisError | OSError, name: str, *, change: bool = False) -> RedisFault:
    """What ``error`` of the server ``name`` means; ``change``: one had been sent when it came."""
    text = f"Redis at {name}: {error}"
    if isinstance(error, NoScriptError):
        return RedisFault(text, why=Why.NO_SCRIPT)
    if isinstance(error, AskError):  # MovedError, too
        why = Why.MOVED if isinstance(error, MovedError) else Why.ASK
        return RedisFault(text, why=why, to=(error.host, error.port))
    answered = isinstance(error, ResponseError)
    for one in _ANSWERS:
        # Only an answer's text is searched: a lost connection's may hold any host name.
        if (one.sort and isinstance(error, one.sort)) or (answered and one.code in str(error)):
            return RedisFault(text, one.advice, why=one.why, unfit=one.unfit)
    if answered:
        return RedisFault(text, "it refused a command")
    made: Literal["no", "unknown"] = "unknown" if change else "no"
    if isinstance(error, InvalidResponse) or _is_caused_by(error, ssl.SSLError):
        untrusted = _is_caused_by(error, ssl.SSLCertVerificationError)
        return RedisFault(text, _UNTRUSTED if untrusted else _STRANGE, made=made, unfit=True)
    return RedisFault(text, why=Why.LOST, made=made)


def _is_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
