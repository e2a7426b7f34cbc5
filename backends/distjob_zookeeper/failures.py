"""What kazoo's errors mean: whether something may have been changed, and what is to be done.

Knows neither connections nor nodes.
"""

from __future__ import annotations

import struct

from kazoo.exceptions import (
    AuthFailedError,
    BadArgumentsError,
    ConnectionClosedError,
    InvalidACLError,
    KazooException,
    NoAuthError,
    NotReadOnlyCallError,
    QuotaExceededError,
    RolledBackError,
    SessionExpiredError,
    SessionMovedError,
    ThrottledOpError,
    UnimplementedError,
)
from kazoo.handlers.threading import KazooTimeoutError

from distjob.errors import BackendUnavailable

_DENIED = (NoAuthError, AuthFailedError, InvalidACLError)
_UNCHANGED = (
    # Certainly nothing was carried out. ConnectionClosedError is not: its request may be queued.
    *_DENIED, BadArgumentsError, NotReadOnlyCallError, QuotaExceededError,
    RolledBackError, SessionExpiredError, SessionMovedError, ThrottledOpError, UnimplementedError,
)  # fmt: skip
FAILURES = (KazooException, KazooTimeoutError, RuntimeError, struct.error)
"""All that a request of kazoo's may raise; the last two if it can't read an answer."""


class NotAllowed(BackendUnavailable):
    """Our credentials were refused, or lack a permission; in connecting that is a `ConfigError`."""


def meaning(
    error: BaseException, where: str, reason: str, timeout: float, *, unanswered: bool
) -> BackendUnavailable:
    """What ``error`` means; ``unanswered`` if a change had been asked for when it came."""
    if isinstance(error, KazooTimeoutError):
        msg = f"{where} did not answer within {timeout:g} s{reason}"
        return BackendUnavailable(msg, unanswered=unanswered)
    if isinstance(error, AuthFailedError):
        return NotAllowed(f"{where}: the user or password was refused")
    if isinstance(error, _DENIED):
        return NotAllowed(
            f"{where}: the user may not do this ({type(error).__name__}): set user and "
            "password as for the other controllers of this namespace, or mend the nodes' ACL"
        )
    said = f"{type(error).__name__} {error}".strip()
    surely_unchanged = isinstance(error, _UNCHANGED) and not isinstance(
        error, ConnectionClosedError
    )
    return BackendUnavailable(
        f"{where}: {said}{reason}", unanswered=unanswered and not surely_unchanged
    )
