"""What errors of gRPC and etcd mean: above all, whether a change may have been made."""

from __future__ import annotations

import grpc
import pytest

from distjob_etcd.faults import EtcdFault, Failure, channel_closed, watch_refused

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


def fault(code: Code, text: str, *, change: bool = True) -> EtcdFault:
    return Failure(code, text).fault("here:1", change=change)


@pytest.mark.parametrize(("code", "text"), MADE_PERHAPS)
def test_what_may_have_been_made(code: Code, text: str) -> None:
    told = fault(code, text)
    assert told.made == "unknown"
    assert "here:1" in str(told)
    assert text in str(told)
    assert fault(code, text, change=False).made == "no"


@pytest.mark.parametrize(("code", "text"), NOT_MADE)
def test_what_was_surely_not_made(code: Code, text: str) -> None:
    told = fault(code, text)
    assert told.made == "no"
    assert text in str(told)


def test_what_finds_the_server_full_may_have_been_made() -> None:
    """And no other member does better: the alarm is all the members'."""
    full = Failure(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    assert full.fault("here:1", change=True).made == "unknown"
    assert full.fault("here:1", change=False).made == "no"
    assert "NOSPACE" in str(full.fault("here:1", change=True))
    assert not full.unchanged
    assert not full.elsewhere


KINDS = ("auth_off", "lease_ended", "request_too_large", "answer_too_large", "untrusted")


@pytest.mark.parametrize(
    ("code", "text", "kind", "unfit"),
    [
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", "", True),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", "", True),
        (
            Code.INVALID_ARGUMENT,
            "etcdserver: authentication failed, invalid user ID or password",
            "",
            True,
        ),
        (
            Code.FAILED_PRECONDITION,
            "etcdserver: authentication is not enabled",
            "auth_off",
            False,
        ),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", "lease_ended", False),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", "request_too_large", False),
        (
            Code.RESOURCE_EXHAUSTED,
            "Received message larger than max (5 vs. 4)",
            "answer_too_large",
            False,
        ),
        (
            Code.UNAVAILABLE,
            "failed to connect to all addresses; SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED",
            "untrusted",
            True,
        ),
        (Code.UNAVAILABLE, "etcdserver: no leader", "", False),
    ],
)
def test_what_a_person_must_mend(code: Code, text: str, kind: str, unfit: bool) -> None:
    failure = Failure(code, text)
    assert [name for name in KINDS if getattr(failure, name)] == [kind][: bool(kind)]
    assert failure.fault("here:1", change=True).unfit == unfit
    assert failure.fault("here:1", change=True).failure is failure


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
    assert wanted in str(denied.fault("here:1", change=True, prefix="distjob/prod/"))
    refused = watch_refused("here:1", "etcdserver: permission denied", "distjob/prod/")
    assert wanted in str(refused)
    assert refused.unfit
    assert "prefix distjob/<namespace>/ " in str(denied.fault("here:1", change=True))


def test_a_closed_channel_has_sent_nothing() -> None:
    assert channel_closed("here:1", ValueError("Cannot invoke RPC on closed channel!")).made == "no"
