"""What redis-py's errors mean, in the errors of the boundary.

Tells what was certainly not carried out from what may have been, and what a caller of this
package must do about it: follow a redirection, or look for the primary anew. Knows no connection.
"""

from __future__ import annotations

import ssl

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

from distjob.errors import BackendUnavailable, DistjobError, RecordError


class ScriptUnknown(BackendUnavailable):
    """The server has not seen the script yet, or has forgotten it. Never leaves the backend."""


class Unfit(BackendUnavailable):
    """Not a server that can be used so; in connecting that is a `ConfigError`."""


class NotAllowed(Unfit):
    """The user is unknown or lacks a permission."""


class Lost(BackendUnavailable):
    """The server did not answer, or is not the one to ask any more."""


class Moved(BackendUnavailable):
    """Another node has the slot now; nothing was done. Never leaves the backend."""

    def __init__(self, message: str, host: str, port: int) -> None:
        super().__init__(message)
        self.host = host
        """Empty: the same as that of the node which said so."""
        self.port = port


class Asked(Moved):
    """As `Moved`, for this one command: the slot is about to move. Never leaves the backend."""


class Between(BackendUnavailable):
    """A slot's keys are partly here, partly at the node that it moves to; nothing was done."""


_DENIED = (
    "the user or password was refused: set them in redis.url, or redis.user and redis.password; "
    "those of sentinels in redis.sentinel"
)
_FORBIDDEN = "the ACL user may not do this: grant what deploy/redis/users.acl lists"
_REPLICA = "this is a read-only replica: point redis.url at the primary, or use redis.sentinel"
_FULL = "it is out of memory: raise maxmemory or free some"
_NAMELESS = (
    "no sentinel knows a primary of this name: redis.sentinel.name is that of the sentinels' "
    "configuration (sentinel monitor NAME)"
)
_NO_DB = (
    "it has no database of that number: name one below the `databases` of its configuration, 16 "
    "unless set, in redis.url (redis://host:port/number) or redis.db"
)
_ANSWERS: tuple[tuple[type[RedisError] | None, str, type[BackendUnavailable], str], ...] = (
    # An answer's class; or, where a script or redis-py hides that, what stands in its text.
    (AuthenticationError, "", NotAllowed, _DENIED),
    (None, "NOAUTH", NotAllowed, _DENIED),
    (NoPermissionError, "", NotAllowed, _FORBIDDEN),
    (None, "ACL failure", NotAllowed, _FORBIDDEN),
    (None, "can't run this command", NotAllowed, _FORBIDDEN),
    (ReadOnlyError, "", Lost, _REPLICA),
    (None, "READONLY", Lost, _REPLICA),
    (OutOfMemoryError, "", BackendUnavailable, _FULL),
    (None, "OOM", BackendUnavailable, _FULL),
    (BusyLoadingError, "", Lost, "it is still loading its data: wait until it has"),
    (None, "NOREPLICAS", BackendUnavailable, "too few replicas follow it (min-replicas-to-write)"),
    (
        None,
        "MISCONF",
        BackendUnavailable,
        "it can't write to its disk and refuses changes: see its log",
    ),
    (TryAgainError, "", Between, "the slot is being moved: wait until it has"),
    (ClusterDownError, "", Lost, "the cluster is down, or a part of it: see CLUSTER INFO"),
    (
        None,
        "cluster support disabled",
        Unfit,
        "it is not a node of a cluster: name it in redis.url, not in redis.cluster",
    ),
    (
        None,
        "unknown command 'SENTINEL'",
        Unfit,
        "it is not a sentinel: redis.sentinel.hosts names sentinels, not the servers they watch",
    ),
    (None, "DB index is out of range", Unfit, _NO_DB),
    (
        None,
        "No such master with that name",
        Unfit,
        _NAMELESS,
    ),
)
_OTHER = (
    "what listens there does not speak the protocol of Redis: check host and port, and whether it "
    "expects TLS (rediss://, or redis.tls)"
)
_STRANGER = (
    "its certificate is not to be trusted: set redis.ca_file to the CA that signed it, and name "
    "the host as the certificate does"
)


def meaning(error: RedisError | OSError, name: str, *, unanswered: bool = False) -> DistjobError:
    """What ``error`` of the server ``name`` means; ``unanswered`` if a change had been sent."""
    text = str(error)
    if isinstance(error, NoScriptError):
        return ScriptUnknown(text)
    if isinstance(error, AskError):  # MovedError, too
        kind = Moved if isinstance(error, MovedError) else Asked
        return kind(f"Redis at {name} redirects: {text}", error.host, error.port)
    answered = isinstance(error, ResponseError)
    if answered and "WRONGTYPE" in text:
        return RecordError(f"Redis at {name} holds other data under a key of ours: {text}")
    for sort, code, refusal, advice in _ANSWERS:
        # Only an answer's text is searched: a lost connection's may hold any host name.
        if isinstance(error, sort) if sort else answered and code in text:
            return refusal(f"Redis at {name}: {advice} ({text})")
    if answered:
        return BackendUnavailable(f"Redis at {name} refused a command: {text}")
    if isinstance(error, InvalidResponse) or _is_caused_by(error, ssl.SSLError):
        advice = _STRANGER if _is_caused_by(error, ssl.SSLCertVerificationError) else _OTHER
        return Unfit(f"Redis at {name}: {advice} ({text})", unanswered=unanswered)
    return Lost(f"Redis at {name}: {text}", unanswered=unanswered)


def _is_caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
