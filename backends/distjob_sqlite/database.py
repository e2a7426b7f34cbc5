"""The database: its layout, and what is refused at connect.

Decides which files are refused: other programs', other layouts, on network file systems. How the
file is shared is `distjob.files.sqlite`'s, what its faults mean is in `faults`; what the rows are
for only `source` and `feed` know.

A file that was deleted or replaced while it was open would split the controllers into two worlds
that each grant the same job; whoever still has the old file gets `BackendUnavailable` for good,
until its controller is restarted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distjob.backend.source import Fault
from distjob.errors import ConfigError
from distjob.files.faults import FileFault
from distjob.files.filesystems import NETWORK, filesystems
from distjob.files.sqlite import SqliteFile
from distjob_sqlite.faults import broken, meaning

SCHEMA = 1
"""The number of this layout, kept in the file. Raise it with every change to the tables."""

# WITHOUT ROWID: one b-tree to write for each row. BLOB names: a NUL is a character like others.
_LAYOUT = (
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
    f"INSERT INTO meta VALUES (1, {SCHEMA}, 0)",  # noqa: S608  a number of ours
)


class Database(SqliteFile):
    """One connection to the file, for one thread at a time; the others wait.

    ``patience``: seconds to wait for other writers. Raises `distjob.backend.source.Fault`,
    `RecordError`; as it is made, `ConfigError`, too.
    """

    application_id = 0x446A6F62  # "Djob"
    # A killed process loses nothing with NORMAL: what it wrote is the kernel's. A host that goes
    # down may lose the last commits, but it also ends all sessions, as the boot id changes, and
    # later versions are larger still, by the wall clock.
    synchronous = "NORMAL"
    layout = _LAYOUT

    def __init__(self, path: Path, patience: float) -> None:
        _refuse_network(path)
        super().__init__(path, patience)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """As `SqliteFile.transaction`; errors in the body become faults."""
        with super().transaction() as sql:
            try:
                yield sql
            except sqlite3.Error as error:
                raise self.failed(error) from error

    def changes(self) -> tuple[int, int]:
        """Another one than before if others may have changed the file in between."""
        version = self.query("PRAGMA data_version")[0][0]
        return self.openings, version  # each connection counts by itself

    def check(self, sql: sqlite3.Connection) -> None:
        sql.execute("PRAGMA foreign_keys = ON")
        row = sql.execute("SELECT schema FROM meta").fetchone()
        if row is None:
            raise broken(self.path, "the table meta is empty")
        if row[0] != SCHEMA:
            what = (
                f"{self.path} has layout {row[0]}, this distjob uses layout {SCHEMA}; "
                "all controllers of a host must run versions of distjob with the same layout"
            )
            raise Fault(what, unfit=True)

    def explain(self, fault: FileFault, what: str, *, unanswered: bool = False) -> Exception:
        connecting = not self.openings
        return meaning(self.path, fault, what, connecting=connecting, unanswered=unanswered)


def _refuse_network(path: Path) -> None:
    try:
        found = filesystems(path.parent) & NETWORK  # and deadlines need one clock
    except OSError:
        return  # what is wrong with the directory, opening the file tells better
    if found:
        kind = ", ".join(found)
        msg = f"{path} is on {kind}: SQLite serves one host; set sqlite.path to a local disk"
        raise ConfigError(msg)
