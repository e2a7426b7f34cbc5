"""Sessions: a key with a TTL in the home shard, and one more in each other shard they commit in.

The home's key is the authority: a session has ended when that one has. The others are there so
that a commit can check in one step, in its own shard, that author and woken sessions live. Hence:

- A renewal renews the other keys first, the home's last, and succeeds only if all were there. So
  the holder's deadline, counted from before, lies before the end of each. One that is missing has
  been lost with a shard's data: then the session ends as a whole.
- A shard's key is made before the first commit there, and lives no longer than the last renewal
  is good for: a request that arrives late revives nobody for long. Nothing stands in a shard for a
  session that has no key there, so an answer that was lost does no harm.
- A key that is missing in the shard of a woken session proves nothing while its home's lives
  (it came to be woken there in a way of its own): it is given one for the time that is left.

Knows nothing of values.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_redis.keys import Keys, number_of
from distjob_redis.topology import Topology

_NO_KEY, _NO_TTL = -2, -1


class _Own:
    """A session of this client."""

    __slots__ = ("ended", "owner", "ttl_ms", "until", "used")

    def __init__(self, owner: str, ttl_ms: int, until: float, home: int) -> None:
        self.owner = owner
        self.ttl_ms = ttl_ms
        self.until = until
        """On our clock, when the last renewal that was answered is no longer good."""
        self.used = {home}
        """Shards in which it has a key."""
        self.ended = False

    def has_ended(self) -> bool:
        """Whether it has, by now: other threads, or tasks, end it, too."""
        return self.ended


class Sessions:
    """The sessions that ``client`` names; asks about those of others. Callable from any thread."""

    def __init__(
        self, shards: Sequence[Keys], topology: Topology, client: str, ttl: float, first: int
    ) -> None:
        self._shards = shards
        self._topology = topology
        self._client = client
        self._ttl_ms = milliseconds(ttl)
        self._numbers = itertools.count(first)
        self._own: dict[str, _Own] = {}
        self._lock = threading.Lock()

    async def open(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`. Where a shard is down, the next has another."""
        session = f"{self._client}.{next(self._numbers)}"
        ttl_ms, sent, home = milliseconds(ttl), monotonic(), self._home(session)
        await home.place.ask("SET", home.session(session), owner, "PX", ttl_ms, change=True)
        with self._lock:
            for name, own in list(self._own.items()):
                if own.until + own.ttl_ms / 1000 < sent:  # its keys are gone, too
                    del self._own[name]
            self._own[session] = _Own(owner, ttl_ms, sent + ttl, home.number)
        return session

    async def enter(self, shard: Keys, session: str) -> bool:
        """Let ``session``, if it is ours, commit in ``shard``; False if it has ended."""
        own = self._own.get(session)
        while own is not None:
            until, now = own.until, monotonic()
            if own.ended or until <= now:
                await self._end(session)
                return False
            if shard.number in own.used:
                return True
            left = milliseconds(until - now)
            try:
                key = shard.session(session)
                await shard.place.ask("SET", key, own.owner, "PX", left, change=True)
            except BackendUnavailable as error:
                error.unanswered = False  # of the commit nothing was sent
                raise
            with self._lock:
                if own.until == until and not own.ended:  # else a renewal did not know of it
                    own.used.add(shard.number)
        return True

    async def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`."""
        await self._topology.confirm()
        sent, home, own = monotonic(), self._home(session), self._own.get(session)
        if own is None:
            return await self._keep_others(session, home)
        if own.ended:
            return False
        renewed = {home.number}
        while True:
            there = await self._renew(session, own.ttl_ms, own.used - renewed)
            renewed |= there.keys()
            if (
                not all(there.values())
                or not (await self._renew(session, own.ttl_ms, (home.number,)))[home.number]
            ):
                await self._end(session)
                return False
            with self._lock:
                if own.has_ended():
                    return False
                if own.used <= renewed:
                    own.until = max(own.until, sent + own.ttl_ms / 1000)
                    return True

    async def close(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        self._mark(session)
        home = self._home(session)
        await home.place.ask("DEL", home.session(session), change=True)
        await self._leave(session, home)

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`."""
        if not sessions:
            return {}
        homes = [(self._home(name), name) for name in sessions]
        left = await self._topology.ask_each(
            [(home.place, ("PTTL", home.session(name))) for home, name in homes]
        )
        return dict(zip(sessions, map(_seconds_left, left), strict=True))

    async def without_key(self, shard: Keys, sessions: Collection[str]) -> frozenset[str]:
        """Which of ``sessions``, whose keys ``shard`` has not, have ended; the others get one."""
        ended = {name for name in sessions if self._home(name) is shard}
        for name in sessions:
            own = self._own.get(name)
            if own is not None and (own.ended or shard.number in own.used):
                await self._end(name)  # the shard has lost its data
                ended.add(name)
        left = await self.remaining([name for name in sessions if name not in ended])
        for name, seconds in left.items():
            if seconds > 0:
                px = milliseconds(min(seconds, self._ttl_ms / 1000))
                key = shard.session(name)
                await shard.place.ask("SET", key, b"", "PX", px, "NX", change=True)
            else:
                ended.add(name)
        return frozenset(ended)

    async def _keep_others(self, session: str, home: Keys) -> bool:
        """Renew a session that was opened elsewhere, wherever it has a key."""
        others = [number for number in range(len(self._shards)) if number != home.number]
        await self._renew(session, self._ttl_ms, others)
        return (await self._renew(session, self._ttl_ms, (home.number,)))[home.number]

    async def _renew(self, session: str, ttl_ms: int, numbers: Collection[int]) -> dict[int, bool]:
        """Renew the keys of ``session`` in some shards; where there was one."""
        asked = [
            (shard.place, ("PEXPIRE", shard.session(session), ttl_ms))
            for shard in (self._shards[number] for number in numbers)
        ]
        replies = await self._topology.ask_each(asked, change=True) if asked else []
        return dict(zip(numbers, map(bool, replies), strict=True))

    async def _end(self, session: str) -> None:
        """It has ended somewhere: end it everywhere, as far as can be reached."""
        self._mark(session)
        if len(self._shards) > 1:
            await self._leave(session)

    def _mark(self, session: str) -> None:
        """Nothing is asked for it any more, whatever of it still stands in a shard."""
        with self._lock:
            own = self._own.get(session)
            if own is not None:
                own.ended = True
                own.until = max(own.until, monotonic())

    async def _leave(self, session: str, but: Keys | None = None) -> None:
        """Remove its keys, those it was given by others among them, but one."""
        for shard in self._shards:
            if shard is not but:
                # What can't be reached ends by itself, within the TTL.
                with contextlib.suppress(BackendUnavailable):
                    await shard.place.ask("DEL", shard.session(session), change=True)

    def _home(self, session: str) -> Keys:
        return self._shards[number_of(session) % len(self._shards)]


def milliseconds(seconds: float) -> int:
    """Rounded up, and at least one."""
    return max(1, math.ceil(seconds * 1000))


def _seconds_left(ttl_ms: Any) -> float:
    """PTTL's answer; in its last millisecond a session still lives, though Redis says 0."""
    if ttl_ms == _NO_KEY:
        return 0.0
    return math.inf if ttl_ms == _NO_TTL else max(1, ttl_ms) / 1000
