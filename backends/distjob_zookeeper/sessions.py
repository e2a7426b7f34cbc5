"""Sessions of ours: opened, renewed, settled and ended. What closes each race:

- *A session that is revived.* A renewal checks the node, whose name is never used again.
- *A commit that arrives late.* It checks the data version of its author's node, which a settling
  raises. ZooKeeper's own order of a session's requests is not enough. It refuses what comes by a
  connection to another server than the session's last (SessionMoved), but not what the same
  server reads from the session's former connection a moment late; and it knows nothing of the
  ZooKeeper session that a new client of kazoo's has begun.
- *A session that goes although it was renewed*, since the leader of the servers has not heard of
  its client. ZooKeeper's sessions last for long enough (see `guarantees.needed`), counted from a
  connection that is half a TTL old at most when a session is opened.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from functools import partial
from typing import Any

from distjob.backend.source import Fault
from distjob.backend.world import World
from distjob_zookeeper.beats import Beats
from distjob_zookeeper.client.asking import Refused, data, multi
from distjob_zookeeper.client.connection import Connection
from distjob_zookeeper.connecting import agree, prepare
from distjob_zookeeper.feed import Own, Watches
from distjob_zookeeper.layout import Layout, session_id

ANY = -1
"""The version that matches every node's."""


class Sessions:
    """Those of one source, ``ttl`` seconds long unless they are opened with another TTL."""

    def __init__(
        self, connection: Connection, layout: Layout, ttl: float, world: World, name: str
    ) -> None:
        self.own: dict[str, Own] = {}
        """Sessions that were opened here, and whose nodes may be there."""
        self.beats = Beats()
        self.feed = Watches(connection, layout, self.own, self.beats, world.bell.ring)
        self._connection = connection
        self._layout = layout
        self._ttl = ttl
        self._world = world
        self._name = name
        self._numbers = itertools.count(1)
        self._opening = world.lock()

    async def open(self, ttl: float, owner: str) -> str:
        """A ``ttl`` above that of connecting needs a connection that lasts."""
        async with self._opening:
            await self._freshen(ttl)
            name = session_id(self._name, next(self._numbers), ttl)
            if not await self._open(name, ttl, owner):
                # All was deleted since we connected.
                await prepare(self._connection, self._layout, self._name)
                if not await self._open(name, ttl, owner):
                    msg = f"{self._connection.where}: somebody deletes {self._layout.root}"
                    raise Fault(msg)
            return name

    async def revive(self) -> None:
        """Go on with a new client, if none of ours lives and kazoo does not get on.

        Raises `Fault` if the new one does not connect, either.
        """
        async with self._opening:
            if not self._connection.connected and self.all_over():
                await self._replace(0.0 if self._connection.given_up else self._ttl)

    def all_over(self) -> bool:
        """Whether none of ours lives."""
        now = self._world.monotonic()
        return all(own.over(now) for own in list(self.own.values()))

    async def _freshen(self, ttl: float) -> None:
        """Have a connection that is fresh, unless a session lives on the present one.

        A new ZooKeeper session also takes away what nodes were left of sessions that are over.
        """
        if self.all_over():
            await self._replace(ttl / 2)
        await self.end_over(list(self.own))

    async def _replace(self, age: float) -> None:
        """Go on with a new client, if the connection is older than that."""
        if self._world.monotonic() - self._connection.since >= age:
            await self._connection.replace()
            self.feed.live(self._connection.generation)  # there is nothing to watch yet

    async def _open(self, name: str, ttl: float, owner: str) -> bool:
        """False if there is no place for it."""
        own, era = Own(ttl, owner, self._world.monotonic()), self.beats.era
        own.lost = True  # until it is known; where that stays open, the next `open` ends it
        self.own[name] = own
        first, *others = self._layout.nodes(name)

        def build(steps: Any) -> None:
            steps.check(self._layout.format, ANY)
            steps.create(first, owner.encode(), ephemeral=True)
            for node in others:
                steps.create(node, ephemeral=True)

        try:
            made, told, *answers = await self._connection.ask(
                multi(build), data(self._layout.format), *self.feed.watching(name), change=True
            )
        except Fault as fault:
            if fault.made == "no":
                del self.own[name]
            raise
        if isinstance(made, Refused):
            del self.own[name]
            return False
        agree(self._connection, self._layout, told)
        own.lost = False  # from here on `lost` tells it
        if era != self.beats.era:  # its ZooKeeper session has ended meanwhile
            own.lost = True
        for answer in answers:
            self.feed.arrived(name, answer)
        return True

    async def renew(self, session: str) -> bool:
        """One quorum write. Only what was opened here can be renewed."""
        own = self.own.get(session)
        sent, era = self._world.monotonic(), self.beats.era
        if own is None or own.over(sent):
            return False

        def build(steps: Any) -> None:
            steps.check(self._layout.session(session), ANY)
            steps.set_data(self._layout.beat(session), b"")

        (results,) = await self._connection.ask(multi(build), change=True, urgent=True)
        if isinstance(results, Refused):
            self.feed.gone(session)
        if own.lost:
            return False
        own.sent = max(own.sent, sent)
        self.beats.wrote(era, results[1].mzxid, self._world.monotonic())
        return True

    async def end(self, session: str) -> None:
        if (own := self.own.get(session)) is not None:
            own.lost = True
        nodes = self._layout.nodes(session)
        together = multi(lambda steps: [steps.delete(node) for node in nodes])
        (results,) = await self._connection.ask(together, change=True, urgent=True)
        if isinstance(results, Refused):  # it has ended; or somebody has deleted one of them
            singly = (multi(partial(_delete, node)) for node in nodes)
            await self._connection.ask(*singly, change=True, urgent=True)
        self.own.pop(session, None)

    async def end_over(self, sessions: Collection[str]) -> None:
        """End those of ``sessions`` that are ours and over: they would live as long as kazoo."""
        now = self._world.monotonic()
        for session in sessions:
            if (own := self.own.get(session)) is not None and own.over(now):
                await self.end(session)

    def over(self, session: str) -> bool:
        """Whether it is ours, and not to be used any more."""
        own = self.own.get(session)
        return own is not None and own.over(self._world.monotonic())

    def number(self, session: str) -> int:
        """What its commits check: how often it was settled."""
        own = self.own.get(session)
        return own.number if own else ANY

    def settled(self, session: str, number: int) -> bool:
        """It was settled so often, by a settling whose reply was lost perhaps; False: not ours."""
        own = self.own.get(session)
        if own is not None:
            own.number = max(own.number, number)
        return own is not None

    def lost(self) -> None:
        """The ZooKeeper session has ended, and all nodes with it. In kazoo's thread."""
        self.beats.begin_era()
        for session in list(self.own):
            self.feed.gone(session)

    async def settle(self, session: str) -> None:
        """Raise the data version of its node, which its commits check.

        A commit that is on its way, by whatever connection and of whatever ZooKeeper session,
        either comes before in ZooKeeper's one order of writes, or fails that check.
        """
        own, node = self.own.get(session), self._layout.session(session)
        owner = own.owner.encode() if own else b""
        (results,) = await self._connection.ask(
            multi(lambda steps: steps.set_data(node, owner)), change=True, urgent=True
        )
        if own is not None and not isinstance(results, Refused):  # else it has ended
            own.number = max(own.number, results[0].version)


def _delete(node: str, steps: Any) -> None:
    steps.delete(node)
