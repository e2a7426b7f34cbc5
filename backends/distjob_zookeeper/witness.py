"""Whoever waits for a session ends it, when it was not renewed for its TTL. What closes each race:

- *A session that is ended while it is renewed.* Its end checks the version of the beat that stood
  still for a TTL (see `beats`), in one step with the deletion.
- *A server that answers from the past.* Whether a session's node is there is read after a sync. If
  it is not, that is believed only when a majority has refused to check it: a leader that was
  deposed and does not know it can answer a sync, but not what has to be written. Whoever reads an
  old beat waits for longer.
- *Two witnesses.* One of them ends the session, the other finds it gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

from kazoo.exceptions import BadVersionError, NoNodeError

from distjob.backend.world import World
from distjob_zookeeper.client.asking import Refused, exists, multi, sync
from distjob_zookeeper.client.connection import Connection
from distjob_zookeeper.layout import Layout, ttl_of
from distjob_zookeeper.sessions import ANY, Sessions

AT_ONCE = 250
"""Requests in one batch: enough to hide the round trips, few enough for the servers' queues."""
SOON = 0.001
"""Seconds that are left at least of a session of ours that is not over."""
FEW = 8
"""Who asks for so few sessions waits for them, and follows their beats; the others look around."""


class Witness:
    """Of one client; ``sessions`` are its own. ``ttl``: of those whose id tells none."""

    def __init__(
        self,
        connection: Connection,
        layout: Layout,
        ttl: float,
        world: World,
        sessions: Sessions,
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._ttl = ttl
        self._world = world
        self._sessions = sessions
        self._beats = sessions.beats

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """A session whose beat stood still for a TTL is ended here and now."""
        asked = list(dict.fromkeys(sessions))
        await self._sessions.end_over(asked)
        left: dict[str, float] = {}
        due: dict[str, int] = {}
        for some in chunks(asked, AT_ONCE // 2):
            for session, (seconds, version) in (
                await self._look(some, follow=len(asked) <= FEW)
            ).items():
                if seconds > 0:
                    left[session] = seconds
                elif version is not None:
                    due[session] = version
        for some in chunks(list(due), AT_ONCE):
            left |= await self._end_dead({session: due[session] for session in some})
        for some in chunks([session for session in asked if session not in left], AT_ONCE):
            left |= await self._prove(some)
        return left

    async def _look(
        self, sessions: Sequence[str], *, follow: bool
    ) -> dict[str, tuple[float, int | None]]:
        """By `Beats.left`, for sessions of each of which this server says that it is there."""
        mine = [session for session in sessions if session in self._sessions.own]
        others = [session for session in sessions if session not in self._sessions.own]
        now = self._world.monotonic()
        for session in others:
            self._beats.ask(session, self._ttl_of(session), now)
        asks = [
            ask for session in others for ask in self._sessions.feed.following(session, beat=follow)
        ]
        asks += [exists(self._layout.session(session)) for session in mine]
        _, *answers = await self._connection.ask(sync(self._layout.sessions), *asks)
        now = self._world.monotonic()
        left: dict[str, tuple[float, int | None]] = {}
        for session in others:
            there, beat, *answers = answers
            if isinstance(there, NoNodeError):
                continue
            if not isinstance(beat, NoNodeError):
                self._beats.saw(session, beat[1].version, beat[1].mzxid, now)
            left[session] = self._beats.left(session, now)
        for session, stat in zip(mine, answers, strict=True):
            if stat is not None and (own := self._sessions.own.get(session)) is not None:
                left[session] = max(own.sent + own.ttl - now, SOON), None
        return left

    async def _end_dead(self, due: Mapping[str, int]) -> dict[str, float]:
        """End those whose beats have stood still at these versions.

        What seems to be gone already is left to be proved.
        """

        def build(session: str, steps: Any) -> None:
            steps.check(self._layout.beat(session), due[session])
            for node in self._layout.nodes(session):
                steps.delete(node)

        asks = (multi(partial(build, session)) for session in due)
        results = await self._connection.ask(*asks, change=True, urgent=True)
        found: dict[str, float] = {}
        for session, result in zip(due, results, strict=True):
            if not isinstance(result, Refused):
                found[session] = 0.0
            elif isinstance(result.error, BadVersionError):
                found[session] = self._ttl_of(session)  # it was renewed just now
        return found

    async def _prove(self, sessions: Sequence[str]) -> dict[str, float]:
        """Whether those that seem to be gone are gone, as a majority knows."""

        def build(session: str, steps: Any) -> None:
            steps.check(self._layout.session(session), ANY)

        asks = (multi(partial(build, session)) for session in sessions)
        results = await self._connection.ask(*asks, urgent=True)
        return {
            session: 0.0 if isinstance(result, Refused) else self._ttl_of(session)
            for session, result in zip(sessions, results, strict=True)
        }

    def _ttl_of(self, session: str) -> float:
        return ttl_of(session) or self._ttl


def chunks(items: Sequence[str], size: int) -> Iterator[list[str]]:
    """``items``, at most ``size`` at a time."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
