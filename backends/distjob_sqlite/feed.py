"""Mail in the file: who looks when, since SQLite tells nobody of a change.

It says in microseconds whether there was one (PRAGMA data_version). It is asked every millisecond
while things happen, down to 40 times a second when all is quiet: the pause is a twentieth of the
time since the last change. Rows stay until a renewal after they were taken: looking never writes,
and an error on the way loses nothing, which is why nothing is ever missed here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from distjob.backend.world import World
from distjob.store import ABSENT, Event, Woken
from distjob_sqlite.database import Database
from distjob_sqlite.faults import broken

_FASTEST, _SLOWEST = 0.001, 0.025
"""Seconds between two looks."""
_LANE = "mail"

_MAIL = """
    SELECT mail.vm, mail.version, record.value
    FROM mail LEFT JOIN record
      ON record.namespace = ? AND record.vm = mail.vm AND record.version = mail.version
    WHERE mail.session = ? AND mail.version > ? ORDER BY mail.version"""


class SqliteFeed:
    """The mail of our sessions. ``database`` is its own: of its own changes a connection is silent.

    See `distjob.backend.source.Feed`.
    """

    vital = True

    def __init__(self, database: Database, namespace: str, world: World) -> None:
        self._database = database
        self._namespace = namespace
        self._world = world
        self._lock = threading.Lock()
        """Guards what follows; it is held for moments."""
        self._taken: dict[str, int] = {}
        """By session: all its mail up to this version was taken."""
        self._change: tuple[int, int] | None = None
        """The last one that was looked at."""
        self._changed_at = world.monotonic()

    # -- what the source asks, from any thread or task ------------------------------------------

    def listen(self, session: str) -> None:
        """Take the mail of ``session``, which nobody knows of yet."""
        with self._lock:
            self._taken[session] = ABSENT

    def deafen(self, session: str) -> None:
        """``session`` has ended."""
        with self._lock:
            self._taken.pop(session, None)

    def taken(self, session: str) -> int:
        """All mail of ``session`` up to this version need not be kept."""
        return self._taken.get(session, ABSENT)

    # -- what whoever receives asks -------------------------------------------------------------

    async def open(self) -> bool:
        self._change = None
        await self._world.aside(self._database.changes, lane=_LANE)
        return False

    async def take(self) -> Sequence[tuple[str, Event]]:
        change, mail = await self._world.aside(self._look, lane=_LANE)
        if change != self._change:
            self._change, self._changed_at = change, self._world.monotonic()
        with self._lock:
            for session, woken in mail:
                if session in self._taken:
                    self._taken[session] = woken.version
        return mail

    async def prod(self) -> None:
        """Each look is answered."""

    def when_readable(self) -> int | None:
        return None

    def pause(self) -> float:
        quiet = self._world.monotonic() - self._changed_at
        return min(max(quiet / 20, _FASTEST), _SLOWEST)

    async def close(self) -> None:
        """The connection stays, for the next time: its file may not be opened twice."""

    async def let_go(self) -> None:
        """Close the connection for good."""
        await self._world.aside(self._database.close, lane=_LANE)

    def _look(self) -> tuple[tuple[int, int], list[tuple[str, Woken]]]:
        # Asked before the mail is read: a change in between is found the next time.
        if (change := self._database.changes()) == self._change:
            return change, []
        with self._lock:
            taken = list(self._taken.items())
        return change, [
            (session, Woken(vm=text(self._database, name), version=version, value=value))
            for session, last in taken
            for name, version, value in self._database.query(
                _MAIL, (self._namespace, session, last)
            )
        ]


def text(database: Database, name: bytes) -> str:
    """The name of a VM."""
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise broken(database.path, f"{name!r} is no name of a VM") from error
