"""What an operator should know of the file, for ``distjob doctor``."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from distjob.store import Finding

_LOW = 100 * 2**20


def examine(path: Path) -> Iterator[Finding]:
    """What is to be said of ``path``; changes nothing."""
    yield Finding("ok", f"SQLite {sqlite3.sqlite_version}, file {path}")
    for place in (path, path.parent):
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield Finding(
                "danger",
                f"{place} can be written to by everybody on this host",
                f"chmod o-w {place}, and give the controllers a group of their own",
            )
    free = shutil.disk_usage(path.parent).free
    if free < _LOW:
        yield Finding(
            "warning",
            f"{free // 2**20} MB are left on the disk of {path}",
            "free some: on a full disk no job can begin",
        )
    else:
        yield Finding("ok", f"{free // 2**20} MB are left on its disk")
