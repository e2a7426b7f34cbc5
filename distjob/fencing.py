"""The guard for the side of the resource: refuses a holder whose job was passed on.

Held: a fence is admitted only if no fence ever was that makes it void (see `distjob.rules.fence`),
of a job in whatever slot of the VM. The marks are on the disk (WAL, synchronous=FULL) before
`Guard.admit` returns or the body of `Guard.exclusively` runs, and stay there through kill -9 and
power loss; any number of threads and processes of one host may share the file. On any error
nothing is admitted.
Not held: marks in a deleted or restored file, resources that are reached past the guard, and (with
`admit` alone) acts still under way when a newer fence comes.
Knows nothing of stores, sessions and leases, nor how a file is shared: that is `files.sqlite`'s.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from distjob.drive.choices import chosen
from distjob.drive.names import check_vm, check_wait
from distjob.errors import (
    BackendUnavailable,
    BadRequest,
    ClientClosed,
    DistjobError,
    RecordError,
    StaleToken,
)
from distjob.files.faults import FileFault
from distjob.files.filesystems import IN_MEMORY, NETWORK, filesystems
from distjob.files.sqlite import SqliteFile
from distjob.rules.fence import Fence
from distjob.rules.jobs import Slot

if TYPE_CHECKING:
    from sqlite3 import Connection

__all__ = ["Fence", "Guard"]


class Guard:
    """The highest floor admitted for each (VM, slot), kept in the SQLite file ``path``.

    ``path``: made if it is missing; its folder must exist, on a local disk. ``wait``: seconds that
    a call waits for other threads, and again for other processes, that use the file, above all for
    the body of an `exclusively`; 30 by default. ``volatile``: accept a file in memory (tmpfs),
    which a reboot empties: for tests, and for a resource that a reboot resets, too.

    Raises BackendUnavailable if the file can't be opened, RecordError if it is corrupt or not a
    guard's, BadRequest for ``:memory:``, a network file system and, if not ``volatile``, tmpfs.
    Safe to share between threads. A forked child may go on using it, unless the fork happened
    inside `exclusively` or while a call was under way: then the child is refused with ClientClosed,
    for every Guard of this file, until it execs.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, wait: float = 30.0, volatile: bool = False
    ) -> None:
        real = Path(os.path.realpath(path))
        _refuse_place(real, volatile=volatile)
        self._file = _Marks(real, check_wait(wait))

    def admit(self, vm: str, fence: Fence) -> None:
        """Raise the marks of ``vm`` to the floors of ``lease.fence``, or refuse; one atomic step.

        Returns when the marks are durable; a fence is admitted again. Costs one fsync, or none if
        no mark rises. What is done afterwards may overlap with a newer holder's acts: where that
        matters use `exclusively`, or admit before each part of a long change.

        Raises StaleToken if a fence was admitted before that makes this one void; BadRequest for a
        VM or fence that can't be; BackendUnavailable if the file can't be used or stays busy;
        RecordError if it is corrupt or was replaced. After any of them: not admitted.
        """
        with self.exclusively(vm, fence):
            pass

    @contextmanager
    def exclusively(self, vm: str, fence: Fence) -> Iterator[None]:
        """Admit ``fence`` durably, then run the body while nobody else is admitted.

        So check and act are one step: no newer holder can begin to act until the body has ended.
        The cost: *every* admission of this file, of all VMs and slots, waits for the body. Keep
        it short, or give each VM a file. If the process dies in the body the others go on at once.

        Not around an ``await``: the other tasks of the loop run in the body then, and their calls
        are refused. Run it with what it protects in a thread (`asyncio.to_thread`).

        Raises what `admit` raises, and then the body did not run. In the body, calls of this
        guard by the same thread raise BadRequest, as they would wait for themselves.
        """
        name = check_vm(vm).encode()
        if not isinstance(fence, Fence):
            raise BadRequest(f"a guard admits a fence (lease.fence), not {type(fence).__name__}")
        raised = True
        while raised:  # after new marks were committed: look again, under a new lock
            with self._file.transaction() as sql:
                raised = self._file.raise_to(sql, name, fence)
                if not raised:
                    yield

    def highest(self, vm: str, slot: Slot | str) -> int:
        """The mark of ``vm`` and ``slot``: smaller tokens are void. 0 if nothing was admitted.

        Raises as `admit` does, but never StaleToken. Waits for bodies of `exclusively` of this
        Guard, not for those of other processes.
        """
        name, where = check_vm(vm).encode(), chosen(Slot, slot, vm)
        return self._file.marks(self._file.query(_MARKS, (name,))).get(where, 0)

    def forget(self, vm: str) -> None:
        """Remove the marks of ``vm``, durably: its next fence is admitted, whatever it is.

        For marks that no holder can reach any more: a fence that was made by hand, or a store
        whose tokens began anew. Whoever was refused is admitted, too, if it comes first: make sure
        that no old holder is at work. Raises as `admit` does, but never StaleToken.
        """
        name = check_vm(vm).encode()
        with self._file.transaction() as sql, self._file.translated():
            sql.execute("DELETE FROM marks WHERE vm = ?", (name,))

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


def _refuse_place(path: Path, *, volatile: bool) -> None:
    try:
        found = filesystems(path.parent)
    except OSError:
        return  # what is wrong with the folder, opening the file tells better
    if kinds := found & NETWORK:
        why = "a guard's file serves one host, whose processes share memory"
    elif not volatile and (kinds := found & IN_MEMORY):
        why = "a reboot would forget the marks, and admit old holders"
    else:
        return
    where = f"guard file {path}: it is on {', '.join(sorted(kinds))}"
    raise BadRequest(f"{where}: {why}. Name a file on a local disk")


def _stale(vm: bytes, slot: Slot, fence: Fence, highest: int) -> StaleToken:
    name = vm.decode()
    return StaleToken(
        f"token {fence.token} of VM {name!r} ({slot} slot) is stale: a job was admitted before, to"
        f" which all below {highest} are void, so this one was passed on to another holder. Nothing"
        " was done; stop, and begin a new job instead of trying again with this fence",
        vm=name,
        slot=slot.value,
        token=fence.token,
        highest=highest,
    )


_MARKS = "SELECT slot, token FROM marks WHERE vm = ?"
_RAISE = """
INSERT INTO marks (vm, slot, token) VALUES (?, ?, ?)
ON CONFLICT (vm, slot) DO UPDATE SET token = excluded.token WHERE excluded.token > token
"""
_SLOTS: dict[object, Slot] = {slot.value: slot for slot in Slot}
_ERRORS: dict[FileFault, tuple[Callable[[str], DistjobError], str]] = {
    FileFault.BUSY: (BackendUnavailable, "Is the body of an exclusively() too long?"),
    FileFault.DISK: (BackendUnavailable, "Look at the disk, its free space and the file's owner"),
    FileFault.UNUSABLE: (
        BackendUnavailable,
        "It must be a file, or not exist yet, and writable, in a writable folder that exists",
    ),
    FileFault.NOT_SQLITE: (RecordError, "Name another file, or a new one"),
    FileFault.FOREIGN: (RecordError, "It is not the file of a guard: name another, or a new one"),
    FileFault.DAMAGED: (RecordError, "Restore it, or remove it when no old holder is at work"),
    FileFault.LOST: (
        RecordError,
        "A deleted or replaced file's marks are lost: end all old holders, then make a new Guard",
    ),
    FileFault.CLOSED: (ClientClosed, "Make a new Guard"),
    FileFault.FORKED: (ClientClosed, "Fork outside of the guard, or exec after the fork"),
    FileFault.REENTERED: (
        BadRequest,
        (
            "Call the guard outside of the body of its exclusively(). "
            "In an event loop: no await in that body, run it in a thread (asyncio.to_thread)"
        ),
    ),
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

    def raise_to(self, sql: Connection, vm: bytes, fence: Fence) -> bool:
        """Raise what is lower than the fence's floors; False if nothing was. Raises StaleToken."""
        with self.translated():
            marks = self.marks(sql.execute(_MARKS, (vm,)).fetchall())
        if slot := fence.passed(marks):
            raise _stale(vm, slot, fence, marks[slot])
        lower = [(vm, s.value, t) for s, t in fence.floors.items() if marks.get(s, 0) < t]
        with self.translated():
            sql.executemany(_RAISE, lower)
        return bool(lower)

    def marks(self, rows: list[tuple[object, object]]) -> Mapping[Slot, int]:
        """By slot; rows of a guard that knew no fences are like others."""
        found = {}
        for slot, token in rows:
            if slot not in _SLOTS or type(token) is not int or token < 1:
                raise self.explain(FileFault.DAMAGED, "corrupt, it holds a mark that is none")
            found[_SLOTS[slot]] = token
        return found

    def check(self, sql: Connection) -> None:
        """Forces what stands in the file to the disk.

        A writer that was killed between its write and its fsync leaves a mark that can be read and
        is not durable; the fsync of this commit makes it so.
        """
        sql.execute("BEGIN IMMEDIATE")
        sql.execute(f"PRAGMA application_id = {self.application_id}")
        sql.execute("COMMIT")
        if sql.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            raise self.explain(FileFault.DAMAGED, "corrupt, its integrity_check failed")
        sql.execute("SELECT count(*) FROM marks").fetchone()

    def explain(self, fault: FileFault, what: str, *, unanswered: bool = False) -> DistjobError:
        """No commit is in doubt here: a mark that may be is no harm."""
        del unanswered
        kind, advice = _ERRORS[fault]
        return kind(f"guard file {self.path}: {what}; not admitted. {advice}")
