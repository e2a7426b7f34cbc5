"""The cluster: which member is asked, for how long, with which token, and when the next one is.

Nothing that may have been applied is sent twice, unless the caller says that it may be. A member
that has not answered is asked for its state before it is given a change, if there are others: a
state that is not told costs nothing, a change that is not answered may have been made. Knows
neither keys nor values. Callable by as many tasks, or from as many threads, as there are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from distjob.backend.world import World
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.client.calls import AioCalls, BlockingCalls, Calls
from distjob_etcd.client.members import (
    AUTHENTICATE,
    RANGE,
    STATUS,
    TXN,
    Member,
    Metadata,
    member_of,
    members_of,
)
from distjob_etcd.faults import NO_LEADER, PREFIX, EtcdFault, Failure
from distjob_etcd.settings import EtcdRecipe, EtcdSettings

log = logging.getLogger("distjob.etcd")

_WITH_LEADER: Metadata = (("hasleader", "true"),)
"""A member that has lost the others refuses at once, and ends its streams."""
_LITTLE = 0.005
"""Seconds in which nothing can be had from another member."""


class Cluster:
    """Asks the members one after the other until one answers; remembers which did."""

    def __init__(
        self, members: Sequence[Member], calls: Calls, settings: EtcdSettings, world: World
    ) -> None:
        self.members = members
        self.timeout = settings.timeout
        """Seconds for one request, all members together."""
        self.secure: bool | None = settings.secure
        """Whether TLS is used; None if only the user knows."""
        self.prefix = PREFIX
        """Of the keys, for messages: what the user's role must be allowed to change."""
        self.left: Callable[[Member], None] = lambda _: None
        """Called with a member that did not answer."""
        self.revision = 0
        """The latest that a majority has told."""
        self.fell: Callable[[], None] = lambda: None
        """Called when a majority has told an earlier one, as one that was restored does."""
        self._calls = calls
        self._world = world
        self._at = 0
        self._login = (settings.user, settings.password) if settings.user else None
        self._metadata: Callable[[], Metadata] = tuple
        self._token = ""
        self._renewing = world.lock()

    @classmethod
    def of(cls, settings: EtcdSettings, world: World) -> Cluster:
        """Nothing is sent yet. Raises `ConfigError`, `Fault`."""
        recipe = settings if isinstance(settings, EtcdRecipe) else EtcdRecipe()
        if recipe.client is not None:
            member, metadata = member_of(recipe.client, world)
            cluster = cls([member], BlockingCalls(owned=False), settings, world)
            cluster._metadata = metadata
        elif world.kind == "tasks":
            calls = AioCalls()
            cluster = cls(members_of(settings, grpc.aio), calls, settings, world)
        else:
            cluster = cls(members_of(settings, grpc), BlockingCalls(), settings, world)
        if recipe.client is not None or recipe.make is not None:
            cluster.secure = None
        return cluster

    def until(self) -> float:
        """When a request that begins now must have been answered."""
        return self._world.monotonic() + self.timeout

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
        with_token: bool = True,
    ) -> Any:
        """The answer to one request. Raises `EtcdFault`.

        ``change`` if it changes something: then it is sent once, unless ``again`` says that twice
        is the same as once. Raises by ``until`` (default: `timeout` from now).
        """
        again = again or not change
        until = until or self.until()
        untried, renewed, repeated = len(self.members), False, False
        while True:
            member, token, known = self.members[self._at], self._token, self.revision
            left = max(until - self._world.monotonic(), _LITTLE)
            share = left / untried
            sent = again or member.trusted or untried == 1
            answer: Any
            if not sent:
                answer = await self._look(member, share)
            else:
                words = self._words() if with_token else _WITH_LEADER
                seconds = share if again else left
                answer = await self._calls.call(member, method, request, seconds, words)
            if not isinstance(answer, Failure):
                member.trusted = True
                if sent and method in (RANGE, TXN):  # others are answered by one member alone
                    self._look_back(known, answer.header.revision)
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
                if unmade and untried > 0 and until - self._world.monotonic() > _LITTLE:
                    continue
                if not change and failure.cut and not repeated:
                    repeated, untried = True, 1  # on a connection that was ending; now on a new one
                    continue
            raise failure.fault(member.name, change=change and sent, prefix=self.prefix)

    def here(self) -> tuple[Member, Metadata]:
        """The member that answered last, and what a stream with it begins with."""
        return self.members[self._at], self._words()

    async def state(self, member: Member, seconds: float) -> Any:
        """What ``member`` says of itself, or the `Failure`.

        With the token: from 3.5.28 on etcd tells users only, and up to 3.5.31 the user root only.
        """
        return await self._calls.call(member, STATUS, rpc.StatusRequest(), seconds, self._who())

    def leave(self, member: Member) -> None:
        """``member`` did not answer: ask another first."""
        member.trusted = False
        if self.members[self._at] is member and len(self.members) > 1:
            self._at = (self._at + 1) % len(self.members)
            log.info("etcd at %s does not answer: going on with %s", member.name, self.name)
            self.left(member)

    async def close(self) -> None:
        """End what is under way; our own channels are closed."""
        await self._calls.close(self.members)

    def _look_back(self, known: int, revision: int) -> None:
        """An answer tells a ``revision``; at its sending one was ``known``, by another answer."""
        if revision >= min(known, self.revision):
            self.revision = max(self.revision, revision)
            return
        log.warning(
            "etcd at %s has fallen back from revision %d to %d: was it restored from a backup "
            "while controllers ran? All leases of before are lost",
            self.name,
            known,
            revision,
        )
        self.revision = revision
        self.fell()

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
                answer = await self.ask(AUTHENTICATE, request, until=until, with_token=False)
            except EtcdFault as fault:
                if not fault.failure.auth_off:
                    raise
                log.warning("etcd at %s asks nobody for a password: etcd.user is unused", self.name)
                return
            self._token = answer.token

    def _words(self) -> Metadata:
        return (*_WITH_LEADER, *self._who())

    def _who(self) -> Metadata:
        return (("token", self._token),) if self._token else self._metadata()
