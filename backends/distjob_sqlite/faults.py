"""What it means for a controller that the file can't be used, and what a person should do.

The one place where a fault of the file, or an error of SQLite's, becomes a `Fault` of the boundary;
rows that make no sense are a `RecordError`.
"""

from __future__ import annotations

from pathlib import Path

from distjob.backend.source import Fault
from distjob.errors import RecordError
from distjob.files.faults import FileFault

_REMEDIES = {
    FileFault.BUSY: "look for a backup tool or a shell with an open transaction",
    FileFault.DISK: "look at the disk, its free space and the file's owner",
    FileFault.UNUSABLE: "look at the disk, its free space and the file's owner",
    FileFault.LOST: "restart all controllers of this host",
    FileFault.CLOSED: "this store was closed, connect a new one",
    FileFault.FORKED: "fork again, or exec after the fork",
    FileFault.REENTERED: "a signal handler must not use the store",
}
"""For people, once the store is connected. What isn't named here is damage."""


def meaning(
    path: Path, fault: FileFault, what: str, *, connecting: bool, unanswered: bool
) -> Fault | RecordError:
    """``what`` has happened to the file; ``unanswered``: to a commit that may have been made."""
    if connecting and fault in (FileFault.UNUSABLE, FileFault.NOT_SQLITE):
        return Fault(f"sqlite.path {path}: {what}", _advice(path), unfit=True)
    if connecting and fault is FileFault.FOREIGN:
        return Fault(f"{path}: {what}", "set sqlite.path to a file of its own", unfit=True)
    if fault in _REMEDIES:
        return Fault(f"{path}: {what}", _REMEDIES[fault], made="unknown" if unanswered else "no")
    return broken(path, what)


def broken(path: Path, what: str) -> RecordError:
    """The error for rows that make no sense."""
    return RecordError(
        f"{path} is damaged: {what}. Stop all controllers of this host, move the file "
        "away with its -wal and -shm, and start them again: jobs that were held are forgotten"
    )


def _advice(path: Path) -> str:
    try:
        if not path.parent.is_dir():
            return (
                f"make the directory {path.parent}, writable for this user, or change sqlite.path"
            )
        if path.exists() and not path.is_file():
            return "set sqlite.path to a regular file, or to none yet"
    except OSError as error:
        return f"{error.strerror}; let this user into {path.parent}, or change sqlite.path"
    return "it must be a writable SQLite file in a writable directory, or not exist yet"
