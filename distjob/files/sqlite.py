"""A SQLite file that is shared by threads, by processes, and across forks.

Decides who may use the file and when: how it is opened, whose it is, how long to wait for others,
what SQLite's errors mean, and that a file which was deleted or replaced is never used again. Which
files a fork finds closed, and a child may not touch, is decided in forks.py. Must not know what the
rows are for: tables, words and kinds of errors are the subclasses'. They too must open the file by
no other means in this process: closing that descriptor would drop SQLite's locks
(sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from distjob import clock
from distjob.drive.names import check_path
from distjob.files.faults import FileFault, fault_of
from distjob.files.forks import FORKS, Identity, leak

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0002, 0.004

T = TypeVar("T")


class SqliteFile(ABC):
    """One connection to ``path``, for one thread at a time; opened when needed, closed by a fork.

    ``patience``: seconds to wait for other threads, and again for other processes. Raises what
    `explain` makes of a `FileFault`; the constructor opens the file, so that its faults are told
    early, and refuses what is no path (BadRequest).
    """

    application_id: ClassVar[int]
    """In the file's header: whose it is."""
    synchronous: ClassVar[Literal["NORMAL", "FULL"]]
    layout: ClassVar[tuple[str, ...]]
    """What is executed in a new file, in one transaction."""

    def __init__(self, path: Path, patience: float) -> None:
        self.path = path
        self.patience = patience
        self.openings = 0
        """How many connections were made so far."""
        self._name = check_path(os.fspath(path))
        self._lock = threading.RLock()
        self._entered = False
        self._refusal: FileFault | None = None
        self._sql: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        FORKS.add(self)
        self._start(lambda _: None)
        self._leave()

    @abstractmethod
    def explain(self, fault: FileFault, what: str, *, unanswered: bool = False) -> Exception:
        """The error for ``fault``; ``unanswered``: a commit that may have been made."""

    @abstractmethod
    def check(self, sql: sqlite3.Connection) -> None:
        """What a new connection needs before its use, and what the file must be like."""

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that the body does, or nothing. The body may roll back itself.

        Errors in the body are left as they are; `failed` says what SQLite's mean.
        """
        sql = self._start(_begin)
        try:
            yield sql
            if self._sql is sql and sql.in_transaction:  # another: the body was left by a child
                self._commit(sql)
        finally:
            self._leave()

    def query(self, text: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of one SELECT; no read transaction stays open, so the WAL can be reset."""
        rows = self._start(lambda sql: sql.execute(text, values).fetchall())
        self._leave()
        return rows

    def failed(self, error: sqlite3.Error, *, unanswered: bool = False) -> Exception:
        """What ``error`` means. But for a busy file, the next connection checks it anew."""
        fault, what = fault_of(error), str(error)
        if fault is FileFault.BUSY:
            what = f"others have been writing for {self.patience:g} s ({error})"
        else:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                self._make_room()
            self._drop()
        return self.explain(fault, what, unanswered=unanswered)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """For the statements of a transaction: SQLite's errors become `explain`'s."""
        try:
            yield
        except sqlite3.Error as error:
            raise self.failed(error) from error

    def close(self) -> None:
        """Close the file for good; a second call, or one in a refused child, does nothing."""
        if self._refusal is None:
            self._take()
            try:
                self._drop()
                self._refusal = FileFault.CLOSED
            finally:
                self._leave()

    # -- taking turns --------------------------------------------------------------------------

    def _start(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Take the file for this thread and ``act``, again while other processes write.

        In between it is let go, so that neither threads nor forks wait for one that waits. SQLite's
        own busy handler would hold it, and pause a thousand times longer than a commit takes.
        """
        until, pause = 0.0, _SHORTEST_PAUSE
        while True:
            self._take()
            try:
                if self._refusal is not None:  # another thread has closed it meanwhile
                    raise self.explain(self._refusal, self._refusal.value)
                result = act(self._sql or self._open())
                if (found := _identify(self._name)) != self._identity:
                    raise self._lost(found)
            except sqlite3.Error as error:
                failure = self.failed(error)
                self._leave()
                until = until or clock.monotonic() + self.patience
                if fault_of(error) is not FileFault.BUSY or clock.monotonic() >= until:
                    raise failure from error
            except OSError as error:
                self._leave()
                raise self.explain(FileFault.DISK, str(error)) from error
            except BaseException:
                self._leave()
                raise
            else:
                return result
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311  SQLite tells nobody of an unlock
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _take(self) -> None:
        if self._refusal is not None:
            raise self.explain(self._refusal, self._refusal.value)
        if not FORKS.passed():
            raise self.explain(FileFault.REENTERED, FileFault.REENTERED.value)
        if not self._lock.acquire(timeout=self.patience):
            what = f"other threads of this process have used it for {self.patience:g} s"
            raise self.explain(FileFault.BUSY, what)
        if self._entered:  # by this very thread: waiting would be for ever
            self._lock.release()
            raise self.explain(FileFault.REENTERED, FileFault.REENTERED.value)
        self._entered = True

    def _leave(self) -> None:
        if self._sql is not None and self._sql.in_transaction:
            try:
                self._sql.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop()  # ends it, too
        self._entered = False
        self._lock.release()

    def _commit(self, sql: sqlite3.Connection) -> None:
        try:
            sql.execute("COMMIT")
        except sqlite3.Error as error:
            # Still open: certainly not made. Otherwise it was rolled back, or it was made and
            # only the checkpoint after it failed.
            raise self.failed(error, unanswered=not sql.in_transaction) from error

    # -- the connection ------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._identity is not None and (found := _identify(self._name)) != self._identity:
            raise self._lost(found)
        if os.path.exists(self._name) and not os.path.isfile(self._name):  # noqa: PTH110, PTH113
            # SQLite waits for ever at a FIFO that it may only read.
            raise self.explain(FileFault.UNUSABLE, "it is no regular file")
        self._sql = sql = sqlite3.connect(
            self._name, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            found = _identify(self._name)
            if found in FORKS.untrusted:
                raise self.explain(FileFault.FORKED, FileFault.FORKED.value)
            self._prepare(sql)
            self.check(sql)
        except BaseException:
            self._drop()
            raise
        self._identity = self._identity or found
        self.openings += 1
        return sql

    def _prepare(self, sql: sqlite3.Connection) -> None:
        """Make sure that the file is ours, or make it so; several may do this at once."""
        new = self._is_new(sql)  # before anything is written to another program's file
        if new and self._identity is not None:
            raise self.explain(FileFault.LOST, "it was emptied while it was open")
        (mode,) = sql.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            what = f"SQLite can't use its WAL here ({mode}); a local disk is needed"
            raise self.explain(FileFault.UNUSABLE, what)
        sql.execute(f"PRAGMA synchronous = {self.synchronous}")
        if self._identity is None:
            _begin(sql)  # even if there is nothing to do: finds out now that it can't be written
            if self._is_new(sql):
                for statement in self.layout:
                    sql.execute(statement)
                sql.execute(f"PRAGMA application_id = {self.application_id}")
            sql.execute("COMMIT")

    def _is_new(self, sql: sqlite3.Connection) -> bool:
        (tables,) = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (owner,) = sql.execute("PRAGMA application_id").fetchone()
        if owner != self.application_id and (owner or tables):
            raise self.explain(FileFault.FOREIGN, FileFault.FOREIGN.value)
        return bool(owner != self.application_id)

    def _lost(self, found: Identity | None) -> Exception:
        """Looked for each time: two files under one name would be two worlds that both grant."""
        how = "replaced" if found else "deleted"
        return self.explain(FileFault.LOST, f"it was {how} while it was open")

    def _make_room(self) -> None:
        """The disk is full: what the WAL holds goes to the file, so that the next try can begin
        the WAL anew, in the space that it has. So jobs can be ended on a full disk.
        """
        if self._sql is not None:
            with suppress(sqlite3.Error):  # busy, or no room there either: the error is told
                if self._sql.in_transaction:
                    self._sql.execute("ROLLBACK")
                self._sql.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _drop(self) -> None:
        sql, self._sql = self._sql, None
        if sql is not None:
            with suppress(sqlite3.Error):  # what could not be tidied up, the next one recovers
                sql.close()

    # -- forks, see `distjob.files.forks.Forkable` ---------------------------------------------

    def rest(self, seconds: float) -> bool:
        """Before a fork: close the connection, or tell that it is in use."""
        if not self._lock.acquire(timeout=max(seconds, 0)):
            return False
        if self._entered:
            self._lock.release()
            return False
        self._drop()
        return True

    def wake(self) -> None:
        """After a fork: the next use opens it."""
        self._lock.release()

    def abandon(self) -> None:
        """In a child that inherited it in use: refuse every call."""
        self._refusal = FileFault.FORKED
        if self._sql is not None:
            leak(self._sql)  # closing it would write to the memory and the file that others share
            self._sql = None
        FORKS.distrust(self._identity)
        with suppress(OSError):  # the fork may have come while it was opened
            FORKS.distrust(_identify(self._name))


def _begin(sql: sqlite3.Connection) -> sqlite3.Connection:
    sql.execute("BEGIN IMMEDIATE")
    return sql


def _identify(name: str) -> Identity | None:
    """Device and inode; None if there is no file."""
    try:
        found = os.stat(name)  # noqa: PTH116  in each transaction, where a Path would cost more
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
