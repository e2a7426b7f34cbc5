"""What was seen of other sessions' beats, and so since when each was not renewed.

A session's owner renews it by raising the data version of its beat, a node of its own. Whoever
watches it remembers the version, and on its own clock a moment before which that was written. If
the version is still the same a TTL later, the session is ended, in one step with a check of that
version. So a session that was renewed is never ended, whatever the witness has read, and however
old that was: a stale read makes it wait for longer, and the check compares what a majority of the
servers knows.

A moment before which a beat was written is

- when it was read, since it had been written before; or
- when a write of our own was answered that has a larger zxid: ZooKeeper carries out all writes in
  the order of their zxids, so that the beat came before it. That is what a witness knows of a
  session that it has not watched yet: of one that has died long ago it need not wait for a TTL.

The owner counts its session from *before* it sent the renewal, and gives it up after 0.9 TTL; all
renewals that it was answered were sent before that moment. So it has given up before the witness
acts, as long as both clocks run at the same rate, to a tenth.

Pure: it is told the time. Callable from any thread.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque

MEMORY = 64
"""Writes of our own that are remembered: renewals, three in a TTL."""
PATIENCE = 1.5
"""TTLs for which a beat is followed after it was asked for. A waiter asks once in a TTL."""


class _Seen:
    """One session that somebody has asked for."""

    __slots__ = ("asked", "since", "ttl", "version")

    def __init__(self) -> None:
        self.version: int | None = None
        """Of its beat; None: it was not read yet."""
        self.since = 0.0
        """On our clock: that was written before."""
        self.asked = 0.0
        self.ttl = 0.0


class Beats:
    """What one client has seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}
        self._wrote: deque[tuple[int, float]] = deque(maxlen=MEMORY)
        """Writes of our own: zxid, and when it was answered. Both rise."""
        self.era = 0
        """Counts ZooKeeper sessions: servers that were restored may count zxids anew in another."""
        self._most = 1000

    def wrote(self, era: int, zxid: int, now: float) -> None:
        """A write of our own, sent in ``era``, was answered just now."""
        with self._lock:
            if era == self.era and (not self._wrote or self._wrote[-1][0] < zxid):
                self._wrote.append((zxid, now))

    def begin_era(self) -> None:
        """The ZooKeeper session has ended: what was written in it tells nothing of other zxids."""
        with self._lock:
            self.era += 1
            self._wrote.clear()

    def ask(self, session: str, ttl: float, now: float) -> None:
        """Somebody asks for ``session``: before it is read, so that its end is not missed."""
        with self._lock:
            if len(self._seen) > self._most:
                self._tidy(now)
            seen = self._seen.setdefault(session, _Seen())
            seen.asked, seen.ttl = now, ttl

    def saw(self, session: str, version: int, zxid: int, now: float) -> None:
        """The beat of ``session`` has ``version``, written at ``zxid``, as was answered by now."""
        with self._lock:
            if (seen := self._seen.get(session)) is None:
                return
            place = bisect_right(self._wrote, zxid, key=lambda written: written[0])
            since = self._wrote[place][1] if place < len(self._wrote) else now
            if seen.version != version:
                seen.version, seen.since = version, since
            seen.since = min(seen.since, since)

    def left(self, session: str, now: float) -> tuple[float, int | None]:
        """Seconds until it may be ended, and the version that its beat must have then.

        Both of one moment: a renewal may be heard of at any other. None: it was told that the
        session has ended, or its beat was not read yet.
        """
        with self._lock:
            if (seen := self._seen.get(session)) is None:
                return 0.0, None
            if seen.version is None:
                return seen.ttl, None
            return min(seen.ttl, seen.ttl - (now - seen.since)), seen.version

    def wanted(self, session: str, now: float) -> bool:
        """Whether somebody has asked for it lately, so that its beat is to be followed."""
        with self._lock:
            seen = self._seen.get(session)
            return seen is not None and now - seen.asked <= PATIENCE * seen.ttl

    def ended(self, session: str) -> bool:
        """The servers told that it has ended; whether anybody had asked for it."""
        with self._lock:
            return self._seen.pop(session, None) is not None

    def _tidy(self, now: float) -> None:
        """Forget those that nobody has asked for in a long time."""
        self._seen = {
            name: seen
            for name, seen in self._seen.items()
            if now - seen.asked <= 2 * PATIENCE * seen.ttl
        }
        self._most = max(1000, 2 * len(self._seen))
