"""The verbs of `distjob.store.Store`, each one transaction or one query on the file.

Decides what each verb does to the rows. How the file is opened, locked and found broken is
`database`'s. Knows nothing of jobs.

- *Version*: the last one + 1, or the wall clock in microseconds if that is more, kept in a row and
  raised in the same transaction; so it goes on rising when the file is lost, as long as the wall
  clock is not set back by more than has passed since.
- *Session*: a row with a deadline on the clock that counts from boot. A row from another boot has
  ended, whatever its deadline says. Ended rows, with their mail, are deleted by the next
  open_session or keep_alive of anyone; ids are random, so that ended is for ever all the same.
- *Wake-up*: a row for (session, VM) that a later wake-up overwrites, so that a client which does
  not look grows no heap. Rows stay until a keep_alive after they were received: receiving never
  writes, and an error on the way loses nothing, which is why `Missed` is never sent here.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence

from distjob import clock
from distjob.errors import ConfigError
from distjob.store import (
    ABSENT,
    Committed,
    Event,
    Gone,
    Reply,
    Stale,
    Versioned,
    Woken,
)
from distjob_sqlite.database import Database
from distjob_sqlite.guarantees import FILE
from distjob_sqlite.place import located, make_folder
from distjob_sqlite.settings import SqliteSettings

_FASTEST_POLL = 0.001
_SLOWEST_POLL = 0.025
_PAGE = 200

_PURGE = "DELETE FROM session WHERE boot <> ? OR deadline <= ?"
_STATE = """
    SELECT EXISTS (SELECT 1 FROM session WHERE id = ? AND boot = ? AND deadline > ?),
           meta.version,
           record.version,
           CASE WHEN record.version <> ? THEN record.value END
    FROM meta LEFT JOIN record ON record.namespace = ? AND record.vm = ?"""
_WAKE = """
    INSERT OR REPLACE INTO mail (session, vm, version)
    SELECT id, ?, ? FROM session WHERE id = ? AND boot = ? AND deadline > ?"""
_WRITE = """
    INSERT INTO record (namespace, vm, version, value) VALUES (?, ?, ?, ?)
    ON CONFLICT (namespace, vm) DO UPDATE SET version = excluded.version, value = excluded.value"""
_MAIL = """
    SELECT mail.vm, mail.version, record.value
    FROM mail LEFT JOIN record
      ON record.namespace = ? AND record.vm = mail.vm AND record.version = mail.version
    WHERE mail.session = ? AND mail.version > ? ORDER BY mail.version"""


class SqliteStore:
    """A `distjob.store.Store` on one SQLite file. ``ttl`` bounds the wait for other writers."""

    guarantees = FILE

    def __init__(self, settings: SqliteSettings, namespace: str, ttl: float) -> None:
        path = located(settings.path)
        patience = min(settings.busy_timeout, ttl)
        self._namespace = namespace
        try:
            self._boot = clock.boot_id()
        except OSError as error:
            msg = "the SQLite backend needs Linux: it can't tell when this host was booted"
            raise ConfigError(msg) from error
        make_folder(settings.path)
        self.path = path
        self._database = Database(path, patience)
        try:
            self._inbox = _Inbox(Database(path, patience), namespace)
        except BaseException:
            self._database.close()
            raise

    def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`."""
        session = secrets.token_hex(16)
        with self._database.transaction() as sql:
            now = clock.monotonic()
            sql.execute(_PURGE, (self._boot, now))
            sql.execute(
                "INSERT INTO session (id, namespace, owner, boot, ttl, deadline)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (session, self._namespace, owner, self._boot, ttl, now + ttl),
            )
        return session

    def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`."""
        with self._database.transaction() as sql:
            now = clock.monotonic()
            sql.execute(_PURGE, (self._boot, now))
            renewed = sql.execute(
                "UPDATE session SET deadline = ? + ttl WHERE id = ?", (now, session)
            ).rowcount
            sql.execute(
                "DELETE FROM mail WHERE session = ? AND version <= ?",
                (session, self._inbox.received(session)),
            )
        return renewed == 1

    def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        with self._database.transaction() as sql:
            sql.execute("DELETE FROM session WHERE id = ?", (session,))

    def settle(self, session: str) -> None:
        """See `distjob.store.Store.settle`. Whoever has the lock has made no commit, or all."""
        del session
        with self._database.transaction():
            pass

    def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        rows = self._database.query(
            "SELECT version, value FROM record WHERE namespace = ? AND vm = ?",
            (self._namespace, vm.encode()),
        )
        version, value = rows[0] if rows else (ABSENT, None)
        return Versioned(version=version, value=value)

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`."""
        name = vm.encode()
        with self._database.transaction() as sql:
            now = clock.monotonic()  # only here: the transaction may have waited for its turn
            row = sql.execute(
                _STATE, (author, self._boot, now, expected, self._namespace, name)
            ).fetchone()
            if row is None:
                raise self._database.broken("the table meta is empty")
            author_alive, last, current, current_value = row
            if not author_alive:
                return Gone(sessions=frozenset({author}))
            if (current or ABSENT) != expected:
                return Stale(version=current or ABSENT, value=current_value)

            version: int = max(last + 1, int(clock.wall() * 1e6))
            gone = frozenset(
                session
                for session in wake
                if not sql.execute(_WAKE, (name, version, session, self._boot, now)).rowcount
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

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`."""
        left = {}
        for session in sessions:
            rows = self._database.query(
                "SELECT deadline FROM session WHERE id = ? AND boot = ?", (session, self._boot)
            )
            left[session] = max(0.0, rows[0][0] - clock.monotonic()) if rows else 0.0
        return left

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        return self._inbox.receive(session, timeout)

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        self._inbox.interrupt()

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`. Reads a page at a time and holds nothing in between."""
        after: bytes | str = ""  # SQLite sorts every BLOB, even an empty one, behind every TEXT
        while page := self._database.query(
            "SELECT vm, version, value FROM record WHERE namespace = ? AND vm > ?"
            " ORDER BY vm LIMIT ?",
            (self._namespace, after, _PAGE),
        ):
            for name, version, value in page:
                yield _text(self._database, name), Versioned(version=version, value=value)
            after = page[-1][0]

    def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way raises."""
        self._inbox.close()
        self._database.close()


class _Inbox:
    """Waits for mail on a connection of its own, so that no verb waits for a waiting one.

    SQLite tells nobody of a change, but says in microseconds whether there was one (PRAGMA
    data_version). It is asked every millisecond while things happen, down to 40 times a second
    when all is quiet: the pause is a twentieth of the time since the last change.
    """

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database
        self._namespace = namespace
        self._interrupted = threading.Event()
        self._session = ""
        self._received = ABSENT
        self._seen_change: tuple[int, int] | None = None
        self._changed_at = clock.monotonic()

    def received(self, session: str) -> int:
        """All mail of ``session`` up to this version was returned by `receive`."""
        return self._received if session == self._session else ABSENT

    def receive(self, session: str, timeout: float) -> list[Event]:
        until = clock.monotonic() + timeout
        if session != self._session:
            self._received = ABSENT
            self._session = session
            self._seen_change = None
        while not (mail := self._new_mail()):
            now = clock.monotonic()
            if now >= until:
                return []
            pause = min(max((now - self._changed_at) / 20, _FASTEST_POLL), _SLOWEST_POLL)
            if self._interrupted.wait(min(pause, until - now)):
                self._interrupted.clear()
                return []
        return mail

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        self._database.close()
        self._interrupted.set()

    def _new_mail(self) -> list[Event]:
        # Asked before the mail is read: a change in between is found the next time.
        change = self._database.changes()
        if change == self._seen_change:
            return []
        self._changed_at = clock.monotonic()
        rows = self._database.query(_MAIL, (self._namespace, self._session, self._received))
        self._seen_change = change
        if rows:
            self._received = rows[-1][1]
        return [
            Woken(vm=_text(self._database, name), version=version, value=value)
            for name, version, value in rows
        ]


def _text(database: Database, name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise database.broken(f"{name!r} is no name of a VM") from error
