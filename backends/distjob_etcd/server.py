"""The cluster: which member is asked, for how long, with which token, and when the next one is.

Nothing that may have been applied is sent twice, unless the caller says that it may be. A member
that has not answered is asked for its state before it is given a change, if there are others: a
state that is not told costs nothing, a change that is not answered may have been made. Knows
neither keys nor values. Its links wait or block, see `distjob_etcd.links`; callable by as many
tasks, or from as many threads, as there are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from distjob.clock import monotonic
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import NO_LEADER, PREFIX, AuthOff, Failure, NotAllowed
from distjob_etcd.links import Links, Stream
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
        links: Links,
        timeout: float,
        *,
        login: tuple[str, str] | None = None,
        metadata: Callable[[], Metadata] = tuple,
        secure: bool | None = None,
        owned: bool,
    ) -> None:
        self.members = members
        self.links = links
        self.timeout = timeout
        """Seconds for one request, all members together."""
        self.left: Callable[[Member], None] = lambda _: None
        """Called with a member that did not answer."""
        self.prefix = PREFIX
        """Of the keys, for messages: what the user's role must be allowed to change."""
        self.secure = secure
        """Whether TLS is used; None if only the user knows."""
        self._at = 0
        self._login = login
        self._metadata = metadata
        self._token = ""
        self._renewing = links.lock()
        self._owned = owned

    @classmethod
    def by(cls, settings: EtcdSettings, links: Links) -> Server:
        """With channels of its own. Raises `ConfigError`; nothing is sent yet."""
        login = (settings.user, settings.password) if settings.user else None
        secure = settings.endpoints[0].startswith("https://")
        members = members_of(settings, links.channels)
        return cls(members, links, settings.timeout, login=login, secure=secure, owned=True)

    @classmethod
    def of(cls, client: Any, links: Links, timeout: float) -> Server:
        """By a channel or blocking client that the user has, and goes on to own."""
        member, metadata = member_of(client)
        return cls([member], links, timeout, metadata=metadata, owned=False)

    @property
    def name(self) -> str:
        """The member that is asked next, for messages."""
        return self.members[self._at].name

    async def log_in(self, until: float) -> None:
        """Get a token, if there is a password; a server that gives none is told of in the log."""
        if self._login is not None:
            await self._renew("", until)

    async def ask(
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
        return await self._exchange(method, request, change, again or not change, until)

    def watch(self) -> tuple[Member, Stream]:
        """A watch stream at the member that answered last; its errors are the caller's."""
        member = self.members[self._at]
        return member, self.links.stream(member, self._words())

    async def state(self, member: Member, seconds: float) -> Any:
        """What ``member`` says of itself, or the `Failure`.

        With the token: from 3.5.28 on etcd tells users only, and up to 3.5.31 the user root only.
        """
        return await self.links.call(member, STATUS, rpc.StatusRequest(), seconds, self._who())

    async def renew_token(self) -> None:
        """Get another token, as the one in use was refused. Raises `NotAllowed` if there is none"""
        if self._login is None:
            msg = f"etcd at {self.name}: the token was refused, and there is no password for a new"
            raise NotAllowed(msg)
        await self._renew(self._token, monotonic() + self.timeout)

    def leave(self, member: Member) -> None:
        """``member`` did not answer: ask another first."""
        member.trusted = False
        if self.members[self._at] is member and len(self.members) > 1:
            self._at = (self._at + 1) % len(self.members)
            log.info("etcd at %s does not answer: going on with %s", member.name, self.name)
            self.left(member)

    async def close(self) -> None:
        """Let go of the links; the channels are closed if they are our own."""
        await self.links.close(self.members, owned=self._owned)

    async def _exchange(
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
                answer = await self._look(member, share)
            else:
                words = self._words() if with_token else _WITH_LEADER
                seconds = share if again else left
                answer = await self.links.call(member, method, request, seconds, words)
            if not isinstance(answer, Failure):
                member.trusted = True
                if sent:
                    return answer
                continue
            failure = answer
            if sent and failure.stale_token and with_token and self._login and not renewed:
                await self._renew(token, until)
                renewed = True
                continue
            if failure.elsewhere:
                self.leave(member)
                untried -= 1
                unmade = not sent or again or failure.unchanged
                if unmade and untried > 0 and until - monotonic() > _LITTLE:
                    continue
                if not change and failure.cut and not repeated:
                    repeated, untried = True, 1  # on a connection that was ending; now on a new one
                    continue
            raise failure.error(member.name, change=change and sent, prefix=self.prefix)

    async def _look(self, member: Member, seconds: float) -> Failure | None:
        """Why a member that has not answered yet should be given no change; None if it may.

        One that may not tell us its state has answered: without a leader it refuses the change.
        """
        answer = await self.state(member, seconds)
        if isinstance(answer, Failure):
            return answer if answer.elsewhere else None
        return None if answer.leader else NO_LEADER

    async def _renew(self, used: str, until: float) -> None:
        if self._login is None:
            return
        async with self._renewing:
            if self._token != used:  # another was quicker
                return
            user, password = self._login
            request = rpc.AuthenticateRequest(name=user, password=password)
            try:
                answer = await self._exchange(
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
        return (*_WITH_LEADER, *self._who())

    def _who(self) -> Metadata:
        return (("token", self._token),) if self._token else self._metadata()
