"""Sessions whose deadlines are on another clock than ours: judged by what is seen of them.

A container may have a boot id of its own, or a time namespace; after a reboot all rows are so. Such
a deadline can't be compared with our clock, but it changes with each renewal: a session whose
deadline was seen unchanged for its whole TTL, by our clock, has ended.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from distjob import clock

_OFFSETS = Path("/proc/self/timens_offsets")


def clock_name() -> str:
    """Names the clock of `distjob.clock.monotonic`: processes of equal names read equal times.

    The boot, and the offset of a time namespace if there is one. Raises OSError where the system
    tells no boot id.
    """
    boot = clock.boot_id()
    try:
        lines = [line.split() for line in _OFFSETS.read_text(encoding="ascii").splitlines()]
    except OSError:
        return boot  # a kernel without time namespaces
    offset = next((words[1:] for words in lines if words[0] == "boottime"), ["0", "0"])
    return boot if offset == ["0", "0"] else f"{boot}+{'.'.join(offset)}"


class Elsewhere:
    """What one client has seen of them. Not thread-safe: within one transaction at a time."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._seen: dict[str, tuple[float, float]] = {}
        """By session: its deadline, and when that was seen first, by our clock."""

    def remaining(self, session: str, ttl: float, deadline: float) -> float:
        """Seconds until it has ended for all we know; 0 if it has."""
        now = clock.monotonic()
        seen, since = self._seen.setdefault(session, (deadline, now))
        if seen != deadline:
            self._seen[session] = deadline, now
            return ttl
        return max(0.0, since + ttl - now)

    def purge(self, sql: sqlite3.Connection) -> list[str]:
        """Delete those that have ended, in a transaction: they are never renewed any more.

        Returns which.
        """
        rows = sql.execute(
            "SELECT id, ttl, deadline FROM session WHERE boot <> ?", (self._ours,)
        ).fetchall()
        self._seen = {id_: self._seen[id_] for id_, _, _ in rows if id_ in self._seen}
        dead = [row[0] for row in rows if not self.remaining(*row)]
        sql.executemany("DELETE FROM session WHERE id = ?", [(session,) for session in dead])
        return dead
