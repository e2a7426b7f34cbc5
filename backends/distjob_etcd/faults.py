"""What gRPC's and etcd's errors mean: what was done, whose fault it is, what helps.

Decides the one thing that matters most: whether a change that failed may have been made. Only what
is known to be refused, or never sent, is taken for not made. Knows neither keys nor values.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import grpc

from distjob.backend.source import Fault

Code = grpc.StatusCode
Made: TypeAlias = Literal["no", "unknown"]

PREFIX = "distjob/<namespace>/"
"""The prefix of all keys, for errors that do not know the namespace."""
_DENIED = "the user or password was refused: set etcd.user and etcd.password"
_FORBIDDEN = (
    "the user may not do this: its role needs readwrite on the prefix {prefix} "
    "(etcdctl role grant-permission ROLE readwrite --prefix=true {prefix})"
)
_UNTRUSTED = "its certificate is not trusted: check etcd.ca_file and etcd.server_name"
_NO_SPACE = "database space exceeded"
_ANSWERS: tuple[tuple[str, str], ...] = (
    # What etcd says ("etcdserver: ..."), and what that means here.
    ("authentication failed", _DENIED),
    ("user name is empty", _DENIED),
    ("invalid auth token", _DENIED),
    ("invalid auth management", _DENIED),
    ("revision of auth store is old", _DENIED),
    ("user name not found", _DENIED),
    ("permission denied", _FORBIDDEN),
    (_NO_SPACE, "its space is used up (NOSPACE): compact, defragment and disarm the alarm"),
    ("request is too large", "it was started with a smaller --max-request-bytes than 1.5 MiB"),
    ("too many operations", "so many are woken at once: raise its --max-txn-ops"),
    ("too many requests", "it is overloaded"),
    ("no leader", "it has no leader: a majority of the members must run and reach each other"),
    ("not supported for learner", "it is a learner: name voting members in etcd.endpoints"),
)
_STALE_TOKEN = ("invalid auth token", "revision of auth store is old", "user name is empty")
_NEVER_LEFT = ("failed to connect to all addresses", "DNS resolution failed")
_NO_LEADER = "etcdserver: no leader"
_SURELY_REFUSED = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.UNAUTHENTICATED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.RESOURCE_EXHAUSTED,
    }
)


class Failure(NamedTuple):
    """How a request ended that was not answered as it should."""

    code: Code
    text: str

    @classmethod
    def of(cls, error: grpc.RpcError) -> Failure:
        """What gRPC tells of ``error``, of which nothing is kept."""
        error.__traceback__ = None  # it may be the call itself, which would so refer to itself
        told: Any = error  # what is raised is a Call as well, though its class does not say so
        code, text = getattr(told, "code", None), getattr(told, "details", None)
        if code is None or text is None:
            return cls(Code.UNKNOWN, str(error))
        return cls(code() or Code.UNKNOWN, text() or "")

    @property
    def answered(self) -> bool:
        """Whether etcd itself said no."""
        said = self.text.startswith("etcdserver: ") or "etcdserver: " in self.text[:60]
        return said and (self.code in _SURELY_REFUSED or self.text == _NO_LEADER)

    @property
    def unsent(self) -> bool:
        """Whether the request certainly never left: no connection could be made."""
        return self.code is Code.UNAVAILABLE and self.text.startswith(_NEVER_LEFT)

    @property
    def unchanged(self) -> bool:
        """Whether the request certainly changed nothing.

        A Put, Txn or LeaseGrant that finds etcd full is applied first and refused then; those that
        come after it are refused unapplied, in the same words (see `distjob_etcd.full`).
        """
        return self.unsent or (self.answered and not self.full)

    @property
    def full(self) -> bool:
        """Whether etcd has answered that its space is used up."""
        return self.answered and _NO_SPACE in self.text

    @property
    def cut(self) -> bool:
        """Whether the connection ended under the request."""
        return self.code is Code.UNAVAILABLE and not self.answered and not self.unsent

    @property
    def elsewhere(self) -> bool:
        """Whether another member may do better."""
        return not self.answered or self.text == _NO_LEADER or "learner" in self.text

    @property
    def stale_token(self) -> bool:
        """Whether a new token may help."""
        return self.answered and any(words in self.text for words in _STALE_TOKEN)

    @property
    def forbidden(self) -> bool:
        """Whether the user is known, and lacks a permission: on its keys, or the role root."""
        return self.answered and _advice(self.text) == _FORBIDDEN

    @property
    def auth_off(self) -> bool:
        """Whether a token was asked for, and the server gives none."""
        off = "authentication is not enabled"
        return self.code is Code.FAILED_PRECONDITION and off in self.text

    @property
    def lease_ended(self) -> bool:
        """Whether the lease is not there any more."""
        return self.code is Code.NOT_FOUND and "lease not found" in self.text

    @property
    def request_too_large(self) -> bool:
        """Whether this server takes less at once than was sent."""
        return self.answered and "request is too large" in self.text

    @property
    def answer_too_large(self) -> bool:
        """Whether the answer is more than the user's channel takes; nobody knows what it was."""
        return self.code is Code.RESOURCE_EXHAUSTED and "larger than max" in self.text

    @property
    def untrusted(self) -> bool:
        """Whether the server's certificate was refused."""
        return "CERTIFICATE_VERIFY_FAILED" in self.text or "Hostname Verification" in self.text

    def fault(self, where: str, *, change: bool, prefix: str = PREFIX) -> EtcdFault:
        """As a fault of the request; ``change`` if that was to change something.

        ``prefix`` is that of the keys, on which the user's role needs its permissions.
        """
        text, advice = f"etcd at {where}: {self.text}", ""
        if self.answered:
            advice = _advice(self.text).format(prefix=prefix)
        elif self.untrusted:
            advice = _UNTRUSTED
        else:
            text = f"etcd at {where}: {self.code.name.lower().replace('_', ' ')}: {self.text}"
        unfit = self.untrusted or (self.answered and _advice(self.text) in (_DENIED, _FORBIDDEN))
        made: Made = "unknown" if change and not self.unchanged else "no"
        return EtcdFault(self, text, advice, made=made, unfit=unfit)


class EtcdFault(Fault):
    """A `Fault` that still knows the `Failure` it is made of."""

    def __init__(
        self, failure: Failure, text: str, advice: str, *, made: Made, unfit: bool
    ) -> None:
        super().__init__(text, advice, made=made, unfit=unfit)
        self.failure = failure


ENDED = Failure(Code.UNAVAILABLE, "the watch stream ended")
NO_LEADER = Failure(Code.UNAVAILABLE, _NO_LEADER)


def channel_closed(where: str, error: Exception) -> Fault:
    """GRPC refuses to use a closed channel by an error of another kind: nothing was sent."""
    return Fault(f"etcd at {where}: the channel was closed: {error}")


def watch_refused(where: str, reason: str, prefix: str) -> Fault:
    """Etcd refuses a watch in words of another kind, ``reason``: the user may not read there."""
    return Fault(f"etcd at {where}: {reason}", _FORBIDDEN.format(prefix=prefix), unfit=True)


def _advice(text: str) -> str:
    return next((advice for words, advice in _ANSWERS if words in text), "it refused a request")
