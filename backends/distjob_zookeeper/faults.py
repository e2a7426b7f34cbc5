"""What kazoo's and the servers' errors mean: whether a change may have been made, and the advice.

Knows neither connections nor nodes.
"""

from __future__ import annotations

import struct
from typing import Literal

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
    # Certainly nothing was carried out.
    *_DENIED, *ANSWERS, BadArgumentsError, NotReadOnlyCallError, QuotaExceededError,
    RolledBackError, SessionExpiredError, SessionMovedError, ThrottledOpError, UnimplementedError,
)  # fmt: skip
SHUT_OUT = (
    "has this host more connections to it than its maxClientCnxns allows (60 unless set)? Raise "
    "that, or close some; a server without a majority lets nobody in either"
)
"""What to do where a server closes connections without a word."""


def meaning(
    error: BaseException, where: str, reason: str, timeout: float, *, change: bool
) -> Fault:
    """What ``error`` means; ``change`` if a change had been asked for when it came.

    Our credentials refused, or lacking a permission, is in connecting a mistake in the settings.
    """
    said, advice = f"{where}: {type(error).__name__} {error}".rstrip() + reason, ""
    if isinstance(error, KazooTimeoutError):
        said = f"{where} did not answer within {timeout:g} s{reason}"
    elif isinstance(error, AuthFailedError):
        said = f"{where}: the user or password was refused"
    elif isinstance(error, _DENIED):
        said = f"{where}: the user may not do this ({type(error).__name__})"
        advice = (
            "set user and password as for the other controllers of this namespace, or mend the "
            "nodes' ACL"
        )
    elif isinstance(error, QuotaExceededError):
        said = f"{where}: a quota is used up"
        advice = "see zkCli.sh: listquota on /distjob, and on what is above and below it"
    # A request that kazoo had queued may be sent yet, although it is closed.
    unchanged = isinstance(error, _UNCHANGED) and not isinstance(error, ConnectionClosedError)
    made: Literal["no", "unknown"] = "unknown" if change and not unchanged else "no"
    return Fault(said, advice, made=made, unfit=isinstance(error, _DENIED))
