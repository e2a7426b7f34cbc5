"""The cluster: which member is asked, for how long, with which token, and when the next one is.

Nothing that may have been applied is sent twice, unless the caller says that it may be. A member
that has not answered is asked for its state before it is given a change, if there are others: a
state that is not told costs nothing, a change that is not answered may have been made. Knows
neither keys nor values. Callable from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import AuthOff, Failure, NotAllowed
from distjob_etcd.members import AUTHENTICATE, STATUS, Member, Metadata, member_of, members_of
from distjob_etcd.settings import EtcdSettings

log = logging.getLogger("distjob.etcd")

_WITH_LEADER: Metadata = (("hasleader", "true"),)
"""A member that has lost the others refuses at once, and ends its streams."""
_LITTLE = 0.005
"""Seconds in which nothing can be had from another member."""


class Server:
    """Asks the members one after the other until one answers; remembers which did."""

    def __init__(
        self,
        members: Sequence[Member],
        timeout: float,
        *,
        login: tuple[str, str] | None = None,
        metadata: Callable[[], Metadata] = tuple,
        secure: bool | None = None,
        owned: bool,
    ) -> None:
        self.members = members
        self.timeout = timeout
        """Seconds for one request, all members together."""
        self.left: Callable[[Member], None] = lambda _: None
        """Called with a member that did not answer."""
        self.secure = secure
        """Whether TLS is used; None if only the user knows."""
        self._at = 0
        self._login = login
        self._metadata = metadata
        self._token = ""
        self._renewing = threading.Lock()
        self._owned = owned

    @classmethod
    def by(cls, settings: EtcdSettings) -> Server:
        """With channels of its own. Raises `ConfigError`; nothing is sent yet."""
        login = (settings.user, settings.password) if settings.user else None
        secure = settings.endpoints[0].startswith("https://")
        members = members_of(settings)
        return cls(members, settings.timeout, login=login, secure=secure, owned=True)

    @classmethod
    def of(cls, client: Any, timeout: float) -> Server:
        """By a channel or client that the user has, and goes on to own."""
        member, metadata = member_of(client)
        return cls([member], timeout, metadata=metadata, owned=False)

    @property
    def name(self) -> str:
        """The member that is asked next, for messages."""
        return self.members[self._at].name

    def log_in(self, until: float) -> None:
        """Get a token, if there is a password; a server that gives none is told of in the log."""
        if self._login is not None:
            self._renew("", until)

    def ask(
        self,
        method: str,
        request: Any,
        *,
        change: bool = False,
        again: bool = False,
        until: float = 0.0,
    ) -> Any:
        """The answer to one request.

        ``change`` if it changes something: then it is sent once, unless ``again`` says that twice
        is the same as once. Raises by `until` (default: `timeout` from now).
        """
        return self._exchange(method, request, change, again or not change, until)

    def watch(self, requests: Iterator[rpc.WatchRequest]) -> tuple[Member, Any]:
        """A watch stream at the member that answered last; its errors are the caller's."""
        member = self.members[self._at]
        try:
            return member, member.watch(requests, metadata=self._words())
        except ValueError as error:
            raise self._closed(error) from error

    def renew_token(self) -> None:
        """Get another token, as the one in use was refused. Raises `NotAllowed` if there is none"""
        if self._login is None:
            msg = f"etcd at {self.name}: the token was refused, and there is no password for a new"
            raise NotAllowed(msg)
        self._renew(self._token, monotonic() + self.timeout)

    def leave(self, member: Member) -> None:
        """``member`` did not answer: ask another first."""
        member.trusted = False
        if self.members[self._at] is member and len(self.members) > 1:
            self._at = (self._at + 1) % len(self.members)
            log.info("etcd at %s does not answer: going on with %s", member.name, self.name)
            self.left(member)

    def close(self) -> None:
        """Close the channels, if they are our own."""
        if self._owned:
            for member in self.members:
                member.channel.close()

    def _exchange(
        self,
        method: str,
        request: Any,
        change: bool,
        again: bool,
        until: float,
        *,
        with_token: bool = True,
    ) -> Any:
        until = until or monotonic() + self.timeout
        untried, renewed, repeated = len(self.members), False, False
        while True:
            member, token = self.members[self._at], self._token
            left = max(until - monotonic(), _LITTLE)
            share = left / untried
            sent = again or member.trusted or untried == 1
            if not sent:
                answer = self._look(member, share)
            else:
                words = self._words() if with_token else _WITH_LEADER
                answer = self._send(member, method, request, share if again else left, words)
            if not isinstance(answer, Failure):
                member.trusted = True
                if sent:
                    return answer
                continue
            failure = answer
            if sent and failure.stale_token and with_token and self._login and not renewed:
                self._renew(token, until)
                renewed = True
                continue
            if failure.elsewhere:
                self.leave(member)
                untried -= 1
                unmade = not sent or again or failure.unsent or failure.answered
                if unmade and untried > 0 and until - monotonic() > _LITTLE:
                    continue
                if not change and failure.cut and not repeated:
                    repeated, untried = True, 1  # on a connection that was ending; now on a new one
                    continue
            raise failure.error(member.name, change=change and sent)

    def _send(
        self, member: Member, method: str, request: Any, seconds: float, words: Metadata
    ) -> Any:
        """The answer, or the `Failure`."""
        try:
            return member.calls[method](request, timeout=seconds, metadata=words)
        except grpc.RpcError as error:
            return Failure.of(error)
        except ValueError as error:
            raise self._closed(error) from error

    def _look(self, member: Member, seconds: float) -> Failure | None:
        """Why a member that has not answered yet should be given no change; None if it may."""
        answer = self._send(member, STATUS, rpc.StatusRequest(), seconds, ())
        if isinstance(answer, Failure):
            return answer if answer.elsewhere else None
        if not answer.leader:
            return Failure(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")
        return None

    def _renew(self, used: str, until: float) -> None:
        if self._login is None:
            return
        with self._renewing:
            if self._token != used:  # another thread was quicker
                return
            user, password = self._login
            request = rpc.AuthenticateRequest(name=user, password=password)
            try:
                answer = self._exchange(
                    AUTHENTICATE,
                    request,
                    change=False,
                    again=True,
                    until=until,
                    with_token=False,
                )
            except AuthOff:
                log.warning("etcd at %s asks nobody for a password: etcd.user is unused", self.name)
                return
            self._token = answer.token

    def _words(self) -> Metadata:
        if self._token:
            return (*_WITH_LEADER, ("token", self._token))
        return (*_WITH_LEADER, *self._metadata())

    def _closed(self, error: ValueError) -> BackendUnavailable:
        """GRPC refuses a closed channel by ValueError."""
        return BackendUnavailable(f"etcd at {self.name}: the channel was closed: {error}")
