"""The file: how it is opened and laid out, what a transaction is, what SQLite's errors mean.

Decides what is refused at connect (other programs' files, other layouts, network file systems) and
whether a failed change may have been made. Must not know what the rows are for: `store` does.

The path is looked up again in each transaction and each query. A file that was deleted or replaced
while it was open would split the controllers into two worlds that each grant the same job; whoever
still has the old file gets `BackendUnavailable` for good, until its controller is restarted.

Never open the file by other means in the same process: closing that descriptor would drop SQLite's
locks (sqlite.org/howtocorrupt.html, 2.2). `os.stat` is harmless.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from distjob import clock
from distjob.errors import BackendUnavailable, ConfigError, DistjobError, RecordError

SCHEMA = 1
"""The number of this layout, kept in the file. Raise it with every change to the tables."""
_APPLICATION_ID = 0x446A6F62  # "Djob", in the file's header

# WITHOUT ROWID: one b-tree to write for each row. BLOB names: a NUL is a character like others.
_TABLES = (
    """CREATE TABLE meta (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        schema INTEGER NOT NULL,
        version INTEGER NOT NULL CHECK (typeof(version) = 'integer'))""",
    """CREATE TABLE record (
        namespace TEXT NOT NULL,
        vm BLOB NOT NULL CHECK (typeof(vm) = 'blob'),
        version INTEGER NOT NULL CHECK (typeof(version) = 'integer'),
        value BLOB NOT NULL CHECK (typeof(value) = 'blob'),
        PRIMARY KEY (namespace, vm)) WITHOUT ROWID""",
    """CREATE TABLE session (
        id TEXT PRIMARY KEY,
        namespace TEXT NOT NULL,
        owner TEXT NOT NULL,
        boot TEXT NOT NULL,
        ttl REAL NOT NULL,
        deadline REAL NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE mail (
        session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
        vm BLOB NOT NULL,
        version INTEGER NOT NULL,
        PRIMARY KEY (session, vm)) WITHOUT ROWID""",
)

# WAL needs memory shared between all users of the file, and deadlines need one clock.
_NETWORK_FILESYSTEMS = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "lustre", "gfs2", "ocfs2"),
    *("ceph", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs"),
}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_LONGEST_PAUSE = 0.004

T = TypeVar("T")


class Database:
    """One connection to the file, for one thread at a time; the others wait.

    ``patience``: seconds to wait for other writers. Raises as `distjob.store.Backend.connect` may.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._lock = threading.Lock()
        self._closed = False
        _refuse_network(path)
        try:
            self._sql = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._at_connect(error) from error
        try:
            self._identity = self._find()
            self._patiently(self._prepare)
        except sqlite3.Error as error:
            self.close()
            raise self._at_connect(error) from error
        except DistjobError:
            self.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that the body does, or nothing. The body may roll back itself."""
        with self._using() as sql:
            self._patiently(lambda: sql.execute("BEGIN IMMEDIATE"))
            try:
                self._same_file()
                yield sql
                if sql.in_transaction:
                    self._commit(sql)
            finally:
                _roll_back(sql)

    def query(self, text: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of one SELECT; no read transaction stays open, so the WAL can be reset."""
        with self._using() as sql:
            self._same_file()
            return self._patiently(lambda: sql.execute(text, values).fetchall())

    def close(self) -> None:
        """Close the connection; every call from now on raises."""
        with self._lock:
            self._closed = True
            with suppress(sqlite3.Error):  # what could not be tidied up, the next one recovers
                self._sql.close()

    def broken(self, what: str) -> RecordError:
        """The error for rows that make no sense."""
        return RecordError(
            f"{self._path} is damaged: {what}. Stop all controllers of this host, move the file "
            "away with its -wal and -shm, and start them again: jobs that were held are forgotten"
        )

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                msg = f"{self._path}: this store was closed; connect a new one"
                raise BackendUnavailable(msg)
            try:
                yield self._sql
            except sqlite3.Error as error:
                raise self._explain(error) from error

    def _commit(self, sql: sqlite3.Connection) -> None:
        try:
            sql.execute("COMMIT")
        except sqlite3.Error as error:
            # Still open: certainly not made. Otherwise it was rolled back, or it was made and
            # only the checkpoint after it failed.
            raise self._explain(error, unanswered=not sql.in_transaction) from error

    def _patiently(self, act: Callable[[], T]) -> T:
        """Repeat ``act`` while others write.

        SQLite's own busy handler soon pauses 100 ms, a thousand times longer than a commit takes.
        """
        until = clock.monotonic() + self._patience
        pause = 0.0002
        while True:
            try:
                return act()
            except sqlite3.OperationalError as error:
                if _code(error) not in _BUSY or clock.monotonic() >= until:
                    raise
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311  SQLite tells nobody of an unlock
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _prepare(self) -> None:
        """Make sure that the file is ours and laid out as we expect; several may do so at once."""
        self._check_owner()
        (mode,) = self._sql.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            msg = (
                f"{self._path}: SQLite can't use WAL here ({mode}); set sqlite.path to a local disk"
            )
            raise ConfigError(msg)
        # A killed process loses nothing with NORMAL: what it wrote is the kernel's. A host that
        # goes down may lose the last commits, but it also ends all sessions, as the boot id
        # changes, and later versions are larger still, by the wall clock.
        self._sql.execute("PRAGMA synchronous = NORMAL")
        self._sql.execute("PRAGMA foreign_keys = ON")
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            if not self._check_owner():
                for table in _TABLES:
                    self._sql.execute(table)
                self._sql.execute("INSERT INTO meta VALUES (1, ?, 0)", (SCHEMA,))
                self._sql.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._check_schema()
            self._sql.execute("COMMIT")
        finally:
            _roll_back(self._sql)

    def _check_owner(self) -> bool:
        """Whether the file has our tables; False if it is new."""
        (tables,) = self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (owner,) = self._sql.execute("PRAGMA application_id").fetchone()
        if tables and owner != _APPLICATION_ID:
            msg = (
                f"{self._path} is another program's database; set sqlite.path to a file of its own"
            )
            raise ConfigError(msg)
        return bool(tables)

    def _check_schema(self) -> None:
        row = self._sql.execute("SELECT schema FROM meta").fetchone()
        if row is None:
            raise self.broken("the table meta is empty")
        if row[0] != SCHEMA:
            msg = (
                f"{self._path} has layout {row[0]}, this distjob uses layout {SCHEMA}; "
                "all controllers of a host must run versions of distjob with the same layout"
            )
            raise ConfigError(msg)

    def _find(self) -> tuple[int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            msg = f"{self._path}: {error.strerror}; all controllers of this host must be restarted"
            raise BackendUnavailable(msg) from error
        return status.st_dev, status.st_ino

    def _same_file(self) -> None:
        if self._find() != self._identity:
            msg = (
                f"{self._path} was replaced while it was open; restart all controllers of this host"
            )
            raise BackendUnavailable(msg)

    def _at_connect(self, error: sqlite3.Error) -> DistjobError:
        if _code(error) in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_READONLY,
        ):
            return ConfigError(f"sqlite.path {self._path}: {error}; {_advice(self._path)}")
        return self._explain(error)

    def _explain(self, error: sqlite3.Error, *, unanswered: bool = False) -> DistjobError:
        code = _code(error)
        if code in _BUSY:
            return BackendUnavailable(
                f"{self._path}: another process has been writing for {self._patience:g} s "
                f"({error}); look for a backup tool or a shell with an open transaction",
                unanswered=unanswered,
            )
        if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
            return BackendUnavailable(
                f"{self._path}: {error}; look at the disk, its free space and the file's owner",
                unanswered=unanswered,
            )
        return self.broken(str(error))


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; SQLITE_ERROR where Python itself found the fault."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _roll_back(sql: sqlite3.Connection) -> None:
    if sql.in_transaction:
        with suppress(sqlite3.Error):  # the error that brought us here says more
            sql.execute("ROLLBACK")


def _refuse_network(path: Path) -> None:
    try:
        found = _filesystem(path.parent) & _NETWORK_FILESYSTEMS
    except OSError:
        return  # what is wrong with the directory, opening the file tells better
    if found:
        kind = ", ".join(found)
        msg = f"{path} is on {kind}: SQLite serves one host; set sqlite.path to a local disk"
        raise ConfigError(msg)


def _filesystem(folder: Path) -> set[str]:
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return {line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number}


def _advice(path: Path) -> str:
    try:
        if not path.parent.is_dir():
            return (
                f"make the directory {path.parent}, writable for this user, or change sqlite.path"
            )
        if path.exists() and not path.is_file():
            return "it is not a file; change sqlite.path"
    except OSError as error:
        return f"{error.strerror}; let this user into {path.parent}, or change sqlite.path"
    return "it must be a writable SQLite file in a writable directory, or not exist yet"
