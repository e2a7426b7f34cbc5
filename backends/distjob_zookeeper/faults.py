"""What kazoo's and the servers' errors mean: whether a change may have been made, and the advice.

Knows neither connections nor nodes.
"""

from __future__ import annotations

import struct

from kazoo.exceptions import (
    AuthFailedError,
    BadArgumentsError,
    BadVersionError,
    ConnectionClosedError,
    InvalidACLError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    NotReadOnlyCallError,
    QuotaExceededError,
    RolledBackError,
    SessionExpiredError,
    SessionMovedError,
    ThrottledOpError,
    UnimplementedError,
)
from kazoo.handlers.threading import KazooTimeoutError

from distjob.backend.source import Fault

ANSWERS = (NoNodeError, NodeExistsError, BadVersionError, NotEmptyError)
"""Errors that are an answer, to be judged by who has asked."""
ERRORS = (KazooException, KazooTimeoutError, RuntimeError, struct.error)
"""All that a request of kazoo's may raise; the last two if it can't read an answer."""
_DENIED = (NoAuthError, AuthFailedError, InvalidACLError)
_UNCHANGED = (
    # Certainly nothing was carried out. ConnectionClosedError is not: its request may be queued.
    *_DENIED, *ANSWERS, BadArgumentsError, NotReadOnlyCallError, QuotaExceededError,
    RolledBackError, SessionExpiredError, SessionMovedError, ThrottledOpError, UnimplementedError,
)  # fmt: skip


def meaning(
    error: BaseException, where: str, reason: str, timeout: float, *, change: bool
) -> Fault:
    """What ``error`` means; ``change`` if a change had been asked for when it came.

    Our credentials refused, or lacking a permission, is in connecting a mistake in the settings.
    """
    if isinstance(error, KazooTimeoutError):
        text = f"{where} did not answer within {timeout:g} s{reason}"
        return Fault(text, made="unknown" if change else "no")
    if isinstance(error, AuthFailedError):
        return Fault(f"{where}: the user or password was refused", unfit=True)
    if isinstance(error, _DENIED):
        return Fault(
            f"{where}: the user may not do this ({type(error).__name__})",
            "set user and password as for the other controllers of this namespace, or mend the "
            "nodes' ACL",
            unfit=True,
        )
    surely_unchanged = isinstance(error, _UNCHANGED) and not isinstance(
        error, ConnectionClosedError
    )
    said = f"{type(error).__name__} {error}".strip()
    unknown = change and not surely_unchanged
    return Fault(f"{where}: {said}{reason}", made="unknown" if unknown else "no")
