"""What redis-py's errors mean: what was certainly not done, whose fault it is, what helps.

Tells, too, what only the backend itself has to know of a refusal: that another server is to be
asked, or that the script is not known there. Knows no connection.
"""

from __future__ import annotations

import re
import ssl
from enum import Enum, auto
from typing import Literal, NamedTuple, TypeAlias

from redis.exceptions import AskError, InvalidResponse, MovedError, NoScriptError, ResponseError

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
        to: Address | None = None,
    ) -> None:
        super().__init__(text, advice, made=made, unfit=unfit)
        self.why = why
        self.to = to
        """Where a redirection leads."""


class _Answer(NamedTuple):
    """What a refusal means; ``sign``: in the name of redis-py's error, or in the server's text.

    In a script's error redis-py does not know it by its class.
    """

    sign: str
    advice: str
    why: Why = Why.OTHER
    unfit: bool = False


_ANSWERS = (
    _Answer(
        "AuthenticationError|NOAUTH",
        "the user or password was refused: set them in redis.url, or redis.user and "
        "redis.password; those of sentinels in redis.sentinel",
        unfit=True,
    ),
    _Answer(
        "NoPermissionError|ACL failure|can't run this command",
        "the ACL user may not do this: grant what deploy/redis/users.acl lists",
        unfit=True,
    ),
    _Answer(
        "ReadOnlyError|READONLY",
        "this is a read-only replica: point redis.url at the primary, or use redis.sentinel",
        Why.LOST,
    ),
    _Answer("OutOfMemoryError|OOM", "it is out of memory: raise maxmemory or free some"),
    _Answer(
        "BusyLoadingError|LOADING", "it is still loading its data: wait until it has", Why.LOST
    ),
    _Answer("NOREPLICAS", "too few replicas follow it (min-replicas-to-write)"),
    _Answer("MISCONF", "it can't write to its disk and refuses changes: see its log"),
    _Answer("TryAgainError|TRYAGAIN", "the slot is being moved: wait until it has"),
    _Answer("ClusterDownError|CLUSTERDOWN", "see CLUSTER INFO", Why.LOST),
    _Answer("WRONGTYPE|DAMAGED", "it holds other data under a key of ours", Why.DAMAGED),
    _Answer(
        "cluster support disabled",
        "it is not a node of a cluster: name it in redis.url, not in redis.cluster",
        unfit=True,
    ),
    _Answer(
        "unknown command 'SENTINEL'",
        "it is not a sentinel: redis.sentinel.hosts names sentinels, not the servers they watch",
        unfit=True,
    ),
    _Answer(
        "DB index is out of range",
        "it has no database of that number: name one below the `databases` of its configuration, "
        "16 unless set, in redis.url (redis://host:port/number) or redis.db",
        unfit=True,
    ),
    _Answer(
        "No such master with that name",
        "no sentinel knows a primary of this name: redis.sentinel.name is that of the sentinels' "
        "configuration (sentinel monitor NAME)",
        unfit=True,
    ),
)
_STRANGE = (
    "what listens there does not speak the protocol of Redis: check host and port, and whether it "
    "expects TLS (rediss://, or redis.tls)"
)
_UNTRUSTED = (
    "its certificate is not to be trusted: set redis.ca_file to the CA that signed it, and name "
    "the host as the certificate does"
)


def meaning(
    error: Exception, name: str, *, change: bool = False, host: str = "localhost"
) -> RedisFault:
    """What ``error`` of the server ``name`` means; ``change``: one had been sent when it came.

    ``host``: the server's, to which a redirection without one leads.
    """
    text = f"Redis at {name}: {error}"
    if isinstance(error, NoScriptError):
        return RedisFault(text, why=Why.NO_SCRIPT)
    if isinstance(error, AskError):  # MovedError, too
        why = Why.MOVED if isinstance(error, MovedError) else Why.ASK
        return RedisFault(text, why=why, to=(error.host or host, error.port))
    answered = isinstance(error, ResponseError)
    # The text of an answer only: that of a lost connection may hold any host name.
    signs = f"{type(error).__name__} {error if answered else ''}"
    for one in _ANSWERS:
        if re.search(one.sign, signs):
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
