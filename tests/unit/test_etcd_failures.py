"""What errors of gRPC and etcd mean: above all, whether a change may have been made."""

from __future__ import annotations

import grpc
import pytest

from distjob.errors import BackendUnavailable, RecordError
from distjob_etcd.failures import (
    AuthOff,
    Failure,
    Forbidden,
    NoSuchLease,
    NotAllowed,
    NotTrusted,
    TooLargeForUs,
    forbidden,
)

Code = grpc.StatusCode

MADE_PERHAPS = (
    (Code.DEADLINE_EXCEEDED, "Deadline Exceeded"),
    (Code.UNAVAILABLE, "Socket closed"),
    (Code.UNAVAILABLE, "recvmsg:Connection reset by peer"),
    (Code.UNAVAILABLE, "etcdserver: request timed out"),
    (Code.UNAVAILABLE, "etcdserver: leader changed"),
    (Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"),
    (Code.UNAVAILABLE, "etcdserver: server stopped"),
    (Code.CANCELLED, "Channel closed!"),
    (Code.UNKNOWN, "etcdserver: something new"),
    (Code.INTERNAL, "Received RST_STREAM with error code 2"),
    (Code.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (5 vs. 4)"),
    (Code.DATA_LOSS, "etcdserver: corrupt cluster"),
)
NOT_MADE = (
    (Code.UNAVAILABLE, "failed to connect to all addresses; last error: UNKNOWN: refused"),
    (Code.UNAVAILABLE, "DNS resolution failed for nowhere:2379"),
    (Code.UNAVAILABLE, "etcdserver: no leader"),
    (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
    (Code.PERMISSION_DENIED, "etcdserver: permission denied"),
    (Code.UNAUTHENTICATED, "etcdserver: invalid auth token"),
    (Code.INVALID_ARGUMENT, "etcdserver: user name is empty"),
    (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request"),
    (Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old"),
)


@pytest.mark.parametrize(("code", "text"), MADE_PERHAPS)
def test_what_may_have_been_made(code: Code, text: str) -> None:
    error = Failure(code, text).error("here:1", change=True)
    assert isinstance(error, BackendUnavailable)
    assert error.unanswered
    assert "here:1" in str(error)
    assert text in str(error)
    again = Failure(code, text).error("here:1", change=False)
    assert isinstance(again, BackendUnavailable)
    assert not again.unanswered


@pytest.mark.parametrize(("code", "text"), NOT_MADE)
def test_what_was_surely_not_made(code: Code, text: str) -> None:
    error = Failure(code, text).error("here:1", change=True)
    assert isinstance(error, BackendUnavailable)
    assert not error.unanswered
    assert text in str(error)


def test_what_finds_the_server_full_may_have_been_made() -> None:
    """And no other member does better: the alarm is all the members'."""
    full = Failure(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    made, asked = (full.error("here:1", change=change) for change in (True, False))
    assert isinstance(made, BackendUnavailable)
    assert made.unanswered
    assert isinstance(asked, BackendUnavailable)
    assert not asked.unanswered
    assert "NOSPACE" in str(made)
    assert not full.unchanged
    assert not full.elsewhere


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", Forbidden),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", NotAllowed),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            NotAllowed,
        ),
        (Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", AuthOff),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", NoSuchLease),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", RecordError),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)", TooLargeForUs),
        (
            Code.UNAVAILABLE,
            "failed to connect to all addresses; SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED",
            NotTrusted,
        ),
    ],
)
def test_kinds(code: Code, text: str, kind: type[Exception]) -> None:
    assert type(Failure(code, text).error("here:1", change=True)) is kind


def test_where_another_member_may_do_better() -> None:
    for code, text in MADE_PERHAPS:
        assert Failure(code, text).elsewhere
    better = [text for code, text in NOT_MADE if Failure(code, text).elsewhere]
    assert better == [NOT_MADE[0][1], NOT_MADE[1][1], NOT_MADE[2][1]]


def test_what_the_role_lacks_is_named() -> None:
    """With the prefix of the namespace, if it is known."""
    denied = Failure(Code.PERMISSION_DENIED, "etcdserver: permission denied")
    assert denied.forbidden
    assert not Failure(Code.UNAUTHENTICATED, "etcdserver: invalid auth token").forbidden
    wanted = "readwrite --prefix=true distjob/prod/)"
    assert wanted in str(denied.error("here:1", change=True, prefix="distjob/prod/"))
    assert wanted in str(forbidden("here:1", "etcdserver: permission denied", "distjob/prod/"))
    assert "prefix distjob/<namespace>/ " in str(denied.error("here:1", change=True))
