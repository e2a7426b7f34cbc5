"""The verbs on SQLite, each one transaction or one query: `distjob.backend.source.Source`.

Decides what each verb does to the rows. How the file is opened, locked and found broken is
`database`'s; who looks for mail, and when, `feed`'s.

- *Version*: the last one + 1, or the wall clock in microseconds if that is more, kept in a row and
  raised in the same transaction; so it goes on rising when the file is lost, as long as the wall
  clock is not set back by more than has passed since.
- *Session*: a row with a deadline on the clock that counts from boot. What rows of another clock
  mean, of before a reboot or of a container that has its own, `elsewhere` says. Ended rows, with
  their mail, are deleted by the next opening or renewal of anyone; ids are random, so that ended
  is for ever all the same.
- *Wake-up*: a row for (session, VM) that a later wake-up overwrites, so that a client which does
  not look grows no heap.
- *Settling*: a commit ends where it was begun, in this process. One that still waits for its turn
  is refused when that comes.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

from distjob import clock
from distjob.backend.settling import Settling
from distjob.backend.source import Feed
from distjob.backend.world import World
from distjob.errors import ConfigError
from distjob.store import ABSENT, Committed, Gone, Reply, Settled, Stale, Versioned
from distjob_sqlite.database import Database
from distjob_sqlite.elsewhere import Elsewhere, clock_name
from distjob_sqlite.faults import broken
from distjob_sqlite.feed import SqliteFeed, text
from distjob_sqlite.guarantees import FILE
from distjob_sqlite.place import located, make_folder
from distjob_sqlite.settings import SqliteSettings

_VALUES, _SESSIONS = "values", "sessions"
"""Lanes: a crowd's commits must not hold up a renewal."""
_PAGE = 200

_PURGE = "DELETE FROM session WHERE boot = ? AND deadline <= ?"
_STATE = """
    SELECT EXISTS (SELECT 1 FROM session WHERE id = ? AND boot = ? AND deadline > ?),
           meta.version,
           record.version,
           CASE WHEN record.version <> ? THEN record.value END
    FROM meta LEFT JOIN record ON record.namespace = ? AND record.vm = ?"""
_WAKE = """
    INSERT OR REPLACE INTO mail (session, vm, version)
    SELECT id, ?, ? FROM session WHERE id = ? AND (boot <> ? OR deadline > ?)"""
_WRITE = """
    INSERT INTO record (namespace, vm, version, value) VALUES (?, ?, ?, ?)
    ON CONFLICT (namespace, vm) DO UPDATE SET version = excluded.version, value = excluded.value"""


async def connect(
    settings: SqliteSettings, namespace: str, ttl: float, world: World
) -> SqliteSource:
    """Open the file. ``ttl`` bounds the wait for other writers. See `distjob.store.Backend`."""
    try:
        ours = clock_name()
    except OSError as error:
        msg = "the SQLite backend needs Linux: it can't tell when this host was booted"
        raise ConfigError(msg) from error
    path, patience = located(settings.path), min(settings.busy_timeout, ttl)
    opened: list[Database] = []

    def open_twice() -> None:
        make_folder(settings.path)
        opened.append(Database(path, patience))
        opened.append(Database(path, patience))

    def close() -> None:
        for database in opened:
            database.close()

    try:
        await world.aside(open_twice, lane=_VALUES)
    except BaseException:  # cancelled, too: it is opened all the same, and then closed
        await world.aside(close, lane=_VALUES)
        raise
    verbs, mail = opened
    return SqliteSource(verbs, SqliteFeed(mail, namespace, world), namespace, world, ours)


class SqliteSource:
    """One file, for one client; see `distjob.backend.source.Source`."""

    guarantees = FILE

    def __init__(
        self, database: Database, feed: SqliteFeed, namespace: str, world: World, ours: str
    ) -> None:
        self.database = database
        self._feed = feed
        self._namespace = namespace
        self._world = world
        self._ours = ours
        self._elsewhere = Elsewhere(ours)
        self._settling = Settling()

    # -- sessions --------------------------------------------------------------------------------

    async def open(self, ttl: float, owner: str) -> str:
        session = secrets.token_hex(16)

        def insert() -> None:
            with self.database.transaction() as sql:
                now = clock.monotonic()
                self._purge(sql, now)
                sql.execute(
                    "INSERT INTO session (id, namespace, owner, boot, ttl, deadline)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (session, self._namespace, owner, self._ours, ttl, now + ttl),
                )

        await self._world.aside(insert, lane=_SESSIONS)
        self._settling.begin(session)
        self._feed.listen(session)
        return session

    async def renew(self, session: str) -> bool:
        def update() -> bool:
            with self.database.transaction() as sql:
                now = clock.monotonic()
                self._purge(sql, now)
                renewed = sql.execute(
                    "UPDATE session SET deadline = ? + ttl WHERE id = ? AND boot = ?",
                    (now, session, self._ours),
                ).rowcount
                sql.execute(
                    "DELETE FROM mail WHERE session = ? AND version <= ?",
                    (session, self._feed.taken(session)),
                )
            return bool(renewed)

        alive = await self._world.aside(update, lane=_SESSIONS)
        if not alive:
            self._forget(session)
        return alive

    async def end(self, session: str) -> None:
        def delete() -> None:
            with self.database.transaction() as sql:
                sql.execute("DELETE FROM session WHERE id = ?", (session,))

        await self._world.aside(delete, lane=_SESSIONS)
        self._forget(session)

    async def settle(self, session: str) -> None:
        self._settling.settle(session)
        # A query has its turn on the connection after the commit that has it now.
        await self._world.aside(lambda: self.database.query("SELECT 1"), lane=_SESSIONS)

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        def ask(session: str) -> float:
            rows = self.database.query(
                "SELECT boot, ttl, deadline FROM session WHERE id = ?", (session,)
            )
            if not rows:
                return 0.0
            named: str
            ttl: float
            deadline: float
            named, ttl, deadline = rows[0]
            if named == self._ours:
                return max(0.0, deadline - clock.monotonic())
            if left := self._elsewhere.remaining(session, ttl, deadline):
                return left
            with self.database.transaction() as sql:  # so that it is never renewed any more
                self._elsewhere.purge(sql)
            return ask(session)

        return await self._world.aside(
            lambda: {session: ask(session) for session in sessions}, lane=_SESSIONS
        )

    def _purge(self, sql: sqlite3.Connection, now: float) -> None:
        sql.execute(_PURGE, (self._ours, now))
        self._elsewhere.purge(sql)

    def _forget(self, session: str) -> None:
        self._feed.deafen(session)
        self._settling.end(session)

    # -- values ----------------------------------------------------------------------------------

    async def read(self, vm: str) -> Versioned:
        rows = await self._query(
            "SELECT version, value FROM record WHERE namespace = ? AND vm = ?", vm.encode()
        )
        version, value = rows[0] if rows else (ABSENT, None)
        return Versioned(version=version, value=value)

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        mark = self._settling.mark(author)

        def commit() -> Reply:
            return self._commit(vm.encode(), expected, value, author, wake, mark=mark)

        return await self._world.aside(commit, lane=_VALUES)

    def _commit(
        self,
        name: bytes,
        expected: int,
        value: bytes | None,
        author: str,
        wake: Collection[str],
        *,
        mark: object,
    ) -> Reply:
        with self.database.transaction() as sql:
            now = clock.monotonic()  # only here: the transaction may have waited for its turn
            row = sql.execute(
                _STATE, (author, self._ours, now, expected, self._namespace, name)
            ).fetchone()
            if row is None:
                raise broken(self.database.path, "the table meta is empty")
            author_alive, last, current, current_value = row
            if not author_alive:
                return Gone(sessions=frozenset({author}))
            if mark is not self._settling.mark(author):
                return Settled()
            if (current or ABSENT) != expected:
                return Stale(version=current or ABSENT, value=current_value)

            version: int = max(last + 1, int(clock.wall() * 1e6))
            gone = frozenset(
                session
                for session in wake
                if not sql.execute(_WAKE, (name, version, session, self._ours, now)).rowcount
            )
            if gone:
                sql.execute("ROLLBACK")
                return Gone(sessions=gone)
            if value is not None:
                sql.execute(_WRITE, (self._namespace, name, version, value))
            elif current is not None:
                sql.execute(
                    "DELETE FROM record WHERE namespace = ? AND vm = ?", (self._namespace, name)
                )
            sql.execute("UPDATE meta SET version = ?", (version,))
        return Committed(version=version)

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        """Reads a page at a time, and holds nothing in between."""
        after: bytes | str = ""  # SQLite sorts every BLOB, even an empty one, behind every TEXT
        while page := await self._query(
            "SELECT vm, version, value FROM record WHERE namespace = ? AND vm > ?"
            " ORDER BY vm LIMIT ?",
            after,
            _PAGE,
        ):
            for name, version, value in page:
                yield text(self.database, name), Versioned(version=version, value=value)
            after = page[-1][0]

    async def _query(self, sql: str, *values: object) -> list[Any]:
        """All rows of one SELECT on this namespace."""
        return await self._world.aside(
            lambda: self.database.query(sql, (self._namespace, *values)), lane=_VALUES
        )

    async def feeds(self) -> Collection[Feed]:
        return (self._feed,)

    async def let_go(self) -> None:
        try:
            await self._feed.let_go()
        finally:
            await self._world.aside(self.database.close, lane=_VALUES)
