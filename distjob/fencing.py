"""The guard for the side of the resource: refuses a holder whose job was passed on.

Held: a token is admitted only if no larger one of the same VM *and slot* ever was. The mark is on
the disk (WAL, synchronous=FULL) before `Guard.admit` returns or the body of `Guard.exclusively`
runs, and stays there through kill -9 and power loss; any number of threads and processes of one
host may share the file. On any error nothing is admitted.
Not held: marks in a deleted or restored file, files on a network filesystem, resources that are
reached past the guard, and (with `admit` alone) acts still under way when a larger token comes.
Why per slot: an async job with token 10 goes on while its nested step has 12; compared per VM, the
async owner's own calls would be stale.
Knows nothing of stores, sessions and leases; the only file of distjob that may use sqlite3.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from distjob import clock
from distjob.errors import BackendUnavailable, BadRequest, ClientClosed, RecordError, StaleToken
from distjob.jobs import Slot
from distjob.names import check_vm, check_wait

MAX_TOKEN = 2**63 - 1


class Guard:
    """The highest token seen for each (VM, slot), kept in the SQLite file ``path``.

    Args:
        path: the file; made if it is missing. Its folder must exist, on a local filesystem.
        wait: seconds that a call waits for other threads, and again for other processes, that
            use the file, above all for the body of an `exclusively`. 30 by default.

    Raises BackendUnavailable if the file can't be opened, RecordError if it is corrupt or not a
    guard's. Safe to share between threads. A forked child may go on using it, unless the fork
    happened inside `exclusively` or while a call was under way: then the child is refused with
    ClientClosed, for every Guard of this file, until it execs.
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: float = 30.0) -> None:
        self._file = _File(Path(os.path.realpath(path)), check_wait(wait))
        with self._file.exclusion(), self._file.translated():
            self._file.open()

    def admit(self, vm: str, slot: Slot | str, token: int) -> None:
        """Raise the mark of ``vm`` and ``slot`` to ``token``, or refuse it; one atomic step.

        Returns when the mark is durable; an equal token is admitted again. Costs one fsync, or
        none for an equal token. What is done afterwards may overlap with a newer holder's acts:
        where that matters use `exclusively`.

        Raises StaleToken if a larger one was admitted before; BadRequest for a VM, slot or token
        that can't be; BackendUnavailable if the file can't be used or stays busy; RecordError if
        it is corrupt or was replaced. After any of them: not admitted.
        """
        key = _key(vm, slot, token)
        with self._file.exclusion(), self._file.admitted(*key):
            pass

    @contextmanager
    def exclusively(self, vm: str, slot: Slot | str, token: int) -> Iterator[None]:
        """Admit ``token`` durably, then run the body while nobody else is admitted.

        So check and act are one step: no newer holder can begin to act until the body has ended.
        The cost: *every* admission of this file, of all VMs and slots, waits for the body. Keep
        it short, or give each VM a file. If the process dies in the body the others go on at once.

        Raises what `admit` raises, and then the body did not run. In the body, calls of this
        guard by the same thread raise BadRequest, as they would wait for themselves.
        """
        key = _key(vm, slot, token)
        with self._file.exclusion(), self._file.admitted(*key):
            yield

    def highest(self, vm: str, slot: Slot | str) -> int:
        """The largest token admitted for ``vm`` and ``slot``; 0 if none was.

        Raises as `admit` does, but never StaleToken. Waits for bodies of `exclusively` of this
        Guard, not for those of other processes.
        """
        name, where, _ = _key(vm, slot, 1)
        with self._file.exclusion(), self._file.translated():
            return self._file.mark(self._file.open(), name, where)

    def close(self) -> None:
        """Close the file; later calls raise ClientClosed. Closing twice is no error."""
        self._file.close()

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Guard({str(self._file.path)!r})"


def _key(vm: str, slot: Slot | str, token: int) -> tuple[bytes, str, int]:
    try:
        where = Slot(slot)
    except ValueError:
        raise BadRequest(f"slot {slot!r:.40} is none of {', '.join(Slot)}") from None
    if type(token) is not int or not 1 <= token <= MAX_TOKEN:
        shown = type(token).__name__
        if type(token) is int:  # one of thousands of digits can't even be printed
            shown = str(token) if token.bit_length() <= 80 else f"one of {token.bit_length()} bits"
        raise BadRequest(f"a token is an int from 1 to 2**63-1 (lease.token), not {shown}")
    return check_vm(vm).encode(), where.value, token


def _stale(vm: bytes, slot: str, token: int, highest: int) -> StaleToken:
    name = vm.decode()
    return StaleToken(
        f"token {token} of VM {name!r} ({slot} slot) is stale: {highest} was admitted before, so"
        " the job was passed on to another holder. Nothing was done; stop, and begin a new job"
        " instead of trying again with this token",
        vm=name,
        slot=slot,
        token=token,
        highest=highest,
    )


# --- the file -----------------------------------------------------------------------------------

_APPLICATION_ID = 0x646A6764  # "djgd", in the file's header
_SCHEMA = """
CREATE TABLE marks (
    vm BLOB NOT NULL,
    slot TEXT NOT NULL,
    token INTEGER NOT NULL CHECK (typeof(token) = 'integer' AND token > 0),
    PRIMARY KEY (vm, slot)
) WITHOUT ROWID
"""
_RAISE = """
INSERT INTO marks (vm, slot, token) VALUES (?, ?, ?)
ON CONFLICT (vm, slot) DO UPDATE SET token = excluded.token WHERE excluded.token > token
"""


class _File:
    """One connection for all threads of a process, used by one at a time."""

    def __init__(self, path: Path, wait: float) -> None:
        self.path = path
        self._wait = wait
        self._lock = threading.RLock()
        self._entered = False
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        self._opened_as: tuple[int, int] | None = None
        self._pid = os.getpid()
        _files.add(self)

    @contextmanager
    def exclusion(self) -> Iterator[None]:
        """This file for this thread alone; refuses where SQLite's own locks can't be trusted."""
        self._check_usable()
        if not self._lock.acquire(timeout=self._wait):
            raise self._busy()
        try:
            if self._entered:  # by this very thread: waiting would be for ever
                raise BadRequest(f"guard {self.path} was called in the body of its exclusively()")
            self._check_usable()  # again: another thread may have closed it meanwhile
            self._entered = True
            try:
                yield
            finally:
                self._entered = False
        finally:
            self._lock.release()

    @contextmanager
    def admitted(self, vm: bytes, slot: str, token: int) -> Iterator[None]:
        """Hold SQLite's write lock while ``token`` is the mark, and is *already* durable."""
        with self.translated():
            connection = self.open()
            while True:
                connection.execute("BEGIN IMMEDIATE")
                self._check_same()
                highest = self.mark(connection, vm, slot)
                if highest >= token:
                    break
                connection.execute(_RAISE, (vm, slot, token))
                connection.execute("COMMIT")
                # The lock was let go: look again, under a new one, before anybody acts.
        try:
            if highest > token:
                raise _stale(vm, slot, token, highest)
            yield
        finally:
            self._end(connection)

    def mark(self, connection: sqlite3.Connection, vm: bytes, slot: str) -> int:
        """The highest token, 0 for none."""
        query = "SELECT token FROM marks WHERE vm = ? AND slot = ?"
        row = connection.execute(query, (vm, slot)).fetchone()
        if row is None:
            return 0
        if not isinstance(row[0], int) or row[0] < 1:
            raise RecordError(f"guard file {self.path} holds a mark that is no token")
        return row[0]

    def open(self) -> sqlite3.Connection:
        """The connection; a new one is made at first, after an error and after a fork."""
        deadline = clock.monotonic() + self._wait
        while self._connection is None:
            if self._opened_as is not None:
                self._check_same()
            self._connection = sqlite3.connect(
                self.path, timeout=self._wait, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(self._connection, self.path)
            except sqlite3.OperationalError as error:
                # Switching to WAL, or racing with the last to close, is not waited for by SQLite.
                if not _is_busy(error) or clock.monotonic() >= deadline:
                    raise
                self._drop()
                time.sleep(0.01)
            else:
                self._opened_as = self._opened_as or self._identity()
        return self._connection

    def close(self) -> None:
        """Close it for good."""
        if self._is_foreign():
            self._closed = True  # the connection is the parent's: closing it here would harm it
        if not self._closed:
            with self.exclusion():
                self._closed = True
                self._drop()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """SQLite's errors in distjob's terms; any failure ends the transaction."""
        ended_well = False
        try:
            yield
            ended_well = True
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                raise self._busy() from error
            raise BackendUnavailable(f"guard file {self.path}: {error}; not admitted") from error
        except sqlite3.DatabaseError as error:
            raise RecordError(
                f"guard file {self.path} is corrupt or no SQLite file ({error}); nothing is"
                " admitted until it is restored, or removed when no old holder is at work"
            ) from error
        except OSError as error:
            raise BackendUnavailable(f"guard file {self.path}: {error}; not admitted") from error
        finally:
            if not ended_well:
                self._drop()

    def rest(self) -> bool:
        """Before a fork: close the connection; False if it is in use. `wake` must follow."""
        if not self._lock.acquire(timeout=_FORK_WAIT):
            return False
        if self._entered:
            self._lock.release()
            return False
        self._drop()
        return True

    def wake(self) -> None:
        """After a fork, in parent and child: what `rest` closed may be opened again."""
        self._pid = os.getpid()
        self._lock.release()

    def abandon(self) -> None:
        """In a forked child: it was in use, so this process must never touch the file again."""
        if self._connection is not None:
            _inherited.append(self._connection)
        _untrusted.add(self.path)

    def _end(self, connection: sqlite3.Connection) -> None:
        if self._is_foreign():
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop()  # lets the lock go, too; what the body did stands

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_usable(self) -> None:
        if self._closed:
            raise ClientClosed(f"guard {self.path} was closed; make a new Guard")
        if self._is_foreign():
            raise ClientClosed(
                f"guard {self.path}: this process was forked while the guard was in use, so its"
                " locks can't be trusted here; fork outside of the guard, or exec after the fork"
            )

    def _is_foreign(self) -> bool:
        return self._pid != os.getpid() or self.path in _untrusted

    def _identity(self) -> tuple[int, int]:
        found = self.path.stat()
        return found.st_dev, found.st_ino

    def _check_same(self) -> None:
        """A file that was swapped has other marks, or none: nothing may be admitted by it."""
        try:
            same = self._identity() == self._opened_as
        except FileNotFoundError:
            same = False
        if not same:
            raise RecordError(
                f"guard file {self.path} was deleted or replaced while in use, its marks are lost;"
                " make sure that no old holder is at work, then make a new Guard"
            )

    def _busy(self) -> BackendUnavailable:
        return BackendUnavailable(
            f"guard file {self.path} was in use by others for {self._wait:g} s; not admitted."
            " Is the body of an exclusively() too long?"
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check whose file it is, make it if it is new, and force what stands in it to the disk."""
    _check_owner(connection, path)  # before anything is written to another program's file
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise sqlite3.OperationalError("this filesystem can't do SQLite's WAL mode")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    if _check_owner(connection, path):
        connection.execute(_SCHEMA)
    # Written each time: a writer that was killed between its write and its fsync leaves a mark
    # that can be read and is not durable; this commit's fsync makes it so.
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute("COMMIT")
    if connection.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
        raise sqlite3.DatabaseError("integrity_check failed")


def _check_owner(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is new; RecordError if it is neither that nor a guard's."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if (owner, tables) not in ((0, []), (_APPLICATION_ID, ["marks"])):
        raise RecordError(f"{path} is not the file of a guard; name another one, or a new one")
    return not tables


def _is_busy(error: sqlite3.OperationalError) -> bool:
    # The low byte is the code, the rest says which kind of busy. Errors made here have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


# --- forks --------------------------------------------------------------------------------------
# SQLite remembers per process which locks it holds on a file. A forked child inherits the memory
# but not the locks: it would skip locking, and its commits would be lost when the parent closes
# the file (sqlite.org/howtocorrupt.html, 2.6). So no file is left open across a fork.

_FORK_WAIT = 0.25
"""Seconds that a fork waits for a call in another thread; most take a few milliseconds."""
_files: weakref.WeakSet[_File] = weakref.WeakSet()
_untrusted: set[Path] = set()
_inherited: list[sqlite3.Connection] = []
"""Kept, since collecting one would close it, and with it the parent's view of the file."""
_forking = threading.Lock()
_resting: list[_File] = []


def _before_fork() -> None:
    _forking.acquire()
    _resting.extend(file for file in list(_files) if file.rest())


def _after_fork_in_parent() -> None:
    while _resting:
        _resting.pop().wake()
    _forking.release()


def _after_fork_in_child() -> None:
    for file in set(_files).difference(_resting):
        file.abandon()
    _after_fork_in_parent()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
