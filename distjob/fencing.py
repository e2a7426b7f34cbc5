"""The guard for the side of the resource: refuses a holder whose job was passed on.

Held: a token is admitted only if no larger one of the same VM *and slot* ever was. The mark is on
the disk (WAL, synchronous=FULL) before `Guard.admit` returns or the body of `Guard.exclusively`
runs, and stays there through kill -9 and power loss; any number of threads and processes of one
host may share the file. On any error nothing is admitted.
Not held: marks in a deleted or restored file, files on a network filesystem, resources that are
reached past the guard, and (with `admit` alone) acts still under way when a larger token comes.
Why per slot: an async job with token 10 goes on while its nested step has 12; compared per VM, the
async owner's own calls would be stale.
Knows nothing of stores, sessions and leases, nor how a file is shared: that is `sqlitefile`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from distjob.choices import chosen
from distjob.errors import (
    BackendUnavailable,
    BadRequest,
    ClientClosed,
    DistjobError,
    RecordError,
    StaleToken,
)
from distjob.jobs import Slot
from distjob.names import check_vm, check_wait
from distjob.sqlitefile import Fault, SqliteFile

if TYPE_CHECKING:
    from sqlite3 import Connection

MAX_TOKEN = 2**63 - 1


class Guard:
    """The highest token seen for each (VM, slot), kept in the SQLite file ``path``.

    Args:
        path: the file; made if it is missing. Its folder must exist, on a local filesystem.
        wait: seconds that a call waits for other threads, and again for other processes, that
            use the file, above all for the body of an `exclusively`. 30 by default.

    Raises BackendUnavailable if the file can't be opened, RecordError if it is corrupt or not a
    guard's, BadRequest for ``:memory:``. Safe to share between threads. A forked child may go on
    using it, unless the fork happened inside `exclusively` or while a call was under way: then the
    child is refused with ClientClosed, for every Guard of this file, until it execs.
    """

    def __init__(self, path: str | os.PathLike[str], *, wait: float = 30.0) -> None:
        self._file = _Marks(Path(os.path.realpath(path)), check_wait(wait))

    def admit(self, vm: str, slot: Slot | str, token: int) -> None:
        """Raise the mark of ``vm`` and ``slot`` to ``token``, or refuse it; one atomic step.

        Returns when the mark is durable; an equal token is admitted again. Costs one fsync, or
        none for an equal token. What is done afterwards may overlap with a newer holder's acts:
        where that matters use `exclusively`.

        Raises StaleToken if a larger one was admitted before; BadRequest for a VM, slot or token
        that can't be; BackendUnavailable if the file can't be used or stays busy; RecordError if
        it is corrupt or was replaced. After any of them: not admitted.
        """
        with self.exclusively(vm, slot, token):
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
        highest = -1
        while highest < token:  # after a new mark was committed: look again, under a new lock
            with self._file.transaction() as sql:
                highest = self._file.raise_to(sql, *key)
                if highest > token:
                    raise _stale(*key, highest)
                if highest == token:
                    yield

    def highest(self, vm: str, slot: Slot | str) -> int:
        """The largest token admitted for ``vm`` and ``slot``; 0 if none was.

        Raises as `admit` does, but never StaleToken. Waits for bodies of `exclusively` of this
        Guard, not for those of other processes.
        """
        name, where, _ = _key(vm, slot, 1)
        return self._file.mark(self._file.query(_MARK, (name, where)))

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
    name, where = check_vm(vm), chosen(Slot, slot, vm)
    if type(token) is not int or not 1 <= token <= MAX_TOKEN:
        shown = type(token).__name__
        if type(token) is int:  # one of thousands of digits can't even be printed
            shown = str(token) if token.bit_length() <= 80 else f"one of {token.bit_length()} bits"
        raise BadRequest(f"a token is an int from 1 to 2**63-1 (lease.token), not {shown}")
    return name.encode(), where.value, token


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


_MARK = "SELECT token FROM marks WHERE vm = ? AND slot = ?"
_RAISE = """
INSERT INTO marks (vm, slot, token) VALUES (?, ?, ?)
ON CONFLICT (vm, slot) DO UPDATE SET token = excluded.token WHERE excluded.token > token
"""
_ERRORS: dict[Fault, tuple[Callable[[str], DistjobError], str]] = {
    Fault.BUSY: (BackendUnavailable, "Is the body of an exclusively() too long?"),
    Fault.DISK: (BackendUnavailable, "Look at the disk, its free space and the file's owner"),
    Fault.UNUSABLE: (
        BackendUnavailable,
        "It must be a file, or not exist yet, and writable, in a writable folder that exists",
    ),
    Fault.NOT_SQLITE: (RecordError, "Name another file, or a new one"),
    Fault.FOREIGN: (RecordError, "It is not the file of a guard: name another, or a new one"),
    Fault.DAMAGED: (RecordError, "Restore it, or remove it when no old holder is at work"),
    Fault.LOST: (
        RecordError,
        "A deleted or replaced file's marks are lost: end all old holders, then make a new Guard",
    ),
    Fault.CLOSED: (ClientClosed, "Make a new Guard"),
    Fault.FORKED: (ClientClosed, "Fork outside of the guard, or exec after the fork"),
    Fault.REENTERED: (BadRequest, "Call the guard outside of the body of its exclusively()"),
}


class _Marks(SqliteFile):
    application_id = 0x646A6764  # "djgd"
    synchronous = "FULL"
    layout = (
        """CREATE TABLE marks (
            vm BLOB NOT NULL,
            slot TEXT NOT NULL,
            token INTEGER NOT NULL CHECK (typeof(token) = 'integer' AND token > 0),
            PRIMARY KEY (vm, slot)) WITHOUT ROWID""",
    )

    def raise_to(self, sql: Connection, vm: bytes, slot: str, token: int) -> int:
        """Raise the mark to ``token`` if it is lower; returns what it was."""
        with self.translated():
            highest = self.mark(sql.execute(_MARK, (vm, slot)).fetchall())
            if highest < token:
                sql.execute(_RAISE, (vm, slot, token))
        return highest

    def mark(self, rows: list[tuple[object]]) -> int:
        """The highest token, 0 for none."""
        if not rows:
            return 0
        (token,) = rows[0]
        if not isinstance(token, int) or token < 1:
            raise self.explain(Fault.DAMAGED, "corrupt, it holds a mark that is no token")
        return token

    def check(self, sql: Connection) -> None:
        """Forces what stands in the file to the disk.

        A writer that was killed between its write and its fsync leaves a mark that can be read and
        is not durable; the fsync of this commit makes it so.
        """
        sql.execute("BEGIN IMMEDIATE")
        sql.execute(f"PRAGMA application_id = {self.application_id}")
        sql.execute("COMMIT")
        if sql.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            raise self.explain(Fault.DAMAGED, "corrupt, its integrity_check failed")
        sql.execute("SELECT count(*) FROM marks").fetchone()

    def explain(self, fault: Fault, what: str, *, unanswered: bool = False) -> DistjobError:
        """No commit is in doubt here: a mark that may be is no harm."""
        del unanswered
        kind, advice = _ERRORS[fault]
        return kind(f"guard file {self.path}: {what}; not admitted. {advice}")
