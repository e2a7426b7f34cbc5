"""Why a file that processes share can't be used, and which of SQLite's errors means what."""

from __future__ import annotations

import sqlite3
from enum import Enum


class FileFault(Enum):
    """Why the file can't be used, in words; a subclass makes its error of it."""

    BUSY = "others used it for all of the patience"
    DISK = "the system refused to read or write it"
    UNUSABLE = "it can't be opened, made, written or shared here"
    NOT_SQLITE = "it is no SQLite file"
    FOREIGN = "it is another program's database"
    DAMAGED = "it is corrupt"
    LOST = "it was deleted or replaced while it was open"
    CLOSED = "it was closed"
    FORKED = "this process was forked while it was in use, so its locks can't be trusted here"
    REENTERED = "it was called while this very thread is using it, or is forking"


_FAULTS = {
    sqlite3.SQLITE_BUSY: FileFault.BUSY,
    sqlite3.SQLITE_LOCKED: FileFault.BUSY,
    sqlite3.SQLITE_PROTOCOL: FileFault.BUSY,
    sqlite3.SQLITE_CANTOPEN: FileFault.UNUSABLE,
    sqlite3.SQLITE_PERM: FileFault.UNUSABLE,
    sqlite3.SQLITE_READONLY: FileFault.UNUSABLE,
    sqlite3.SQLITE_NOTADB: FileFault.NOT_SQLITE,
}


def fault_of(error: sqlite3.Error) -> FileFault:
    """What ``error`` means for the file."""
    # The low byte is the code, the rest says which kind of it. Errors of Python itself have none.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _FAULTS:
        return _FAULTS[code]
    if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
        return FileFault.DISK
    return FileFault.DAMAGED
