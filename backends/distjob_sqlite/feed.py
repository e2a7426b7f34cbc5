"""Mail in the file: who looks when, since SQLite tells nobody of a change.

Who sends mail rings the receiver's bell (see `bell`), and the receiver sleeps on it, looking twice
a second all the same. Where no bell could be hung up, or mail was found without a ring, it asks
the file whether it has changed (PRAGMA data_version, microseconds): every millisecond while things
happen, down to 40 times a second when all is quiet, as the pause is a twentieth of the time since
the last change. Rows stay until a renewal after they were taken: looking never writes, and an error
on the way loses nothing, which is why nothing is ever missed here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from distjob.backend.world import World
from distjob.store import ABSENT, Event, Woken
from distjob_sqlite.bell import Bell
from distjob_sqlite.database import Database
from distjob_sqlite.faults import broken

_FASTEST, _SLOWEST = 0.001, 0.025
"""Seconds between two looks without a bell."""
_ASLEEP = 0.5
"""The same with one."""
_RINGS_NOT = 3
"""So often mail has to come without a ring: somebody rings no bells."""
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
        self._bells: dict[str, Bell] = {}
        self._unrung = 0
        """How often mail came without a ring, which may be on its way still."""
        self._change: tuple[int, int] | None = None
        """The last one that was looked at."""
        self._changed_at = world.monotonic()

    # -- what the source asks, from any thread or task ------------------------------------------

    def listen(self, session: str) -> None:
        """Take the mail of ``session``, which nobody knows of yet."""
        with self._lock:
            self._taken[session] = ABSENT
            self._bells[session] = Bell(self._database.path, session)

    def deafen(self, session: str) -> None:
        """``session`` has ended."""
        with self._lock:
            self._taken.pop(session, None)
            if (bell := self._bells.pop(session, None)) is not None:
                bell.take_down()

    def taken(self, session: str) -> int:
        """All mail of ``session`` up to this version need not be kept."""
        return self._taken.get(session, ABSENT)

    # -- what whoever receives asks -------------------------------------------------------------

    async def open(self) -> bool:
        self._change = None
        await self._world.aside(self._database.changes, lane=_LANE)
        return False

    async def take(self) -> Sequence[tuple[str, Event]]:
        with self._lock:
            rung = sum(bell.rung() for bell in self._bells.values()) > 0  # all of them are emptied
        change, mail = await self._world.aside(self._look, lane=_LANE)
        if change != self._change:
            self._change, self._changed_at = change, self._world.monotonic()
        with self._lock:
            for session, woken in mail:
                if session in self._taken:
                    self._taken[session] = woken.version
        if bool(mail) is not rung and self._unrung < _RINGS_NOT:
            self._unrung = max(0, self._unrung + (-1 if rung else 1))
        return mail

    async def prod(self) -> None:
        """Each look is answered."""

    def when_readable(self) -> int | None:
        """The bell of the newest session; those before it have ended, or end unheard."""
        bells = list(self._bells.values())
        return bells[-1].number if bells else None

    def pause(self) -> float:
        if self.when_readable() is not None and self._unrung < _RINGS_NOT:
            return _ASLEEP
        quiet = self._world.monotonic() - self._changed_at
        return min(max(quiet / 20, _FASTEST), _SLOWEST)

    async def close(self) -> None:
        """The connection stays, for the next time: its file may not be opened twice."""

    async def let_go(self) -> None:
        """Close the connection for good."""
        with self._lock:
            for bell in self._bells.values():
                bell.take_down()
            self._bells.clear()
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
