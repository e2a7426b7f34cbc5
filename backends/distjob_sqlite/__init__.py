"""distjob on one SQLite file: for the controllers of one host, with nothing to install or run.

settings.py   the keys of the ``sqlite`` section
place.py      where the file is if none is configured, and why
guarantees.py what the store promises, as data
store.py      the verbs of `distjob.store.Store`
examine.py    what ``distjob doctor`` says of the file
database.py   the layout, and what a fault of the file means for a controller
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distjob.offloop import OffLoop
from distjob.store import Backend, Finding, Store
from distjob_sqlite.guarantees import FILE
from distjob_sqlite.place import located, reasons
from distjob_sqlite.settings import SqliteSettings

__all__ = ["SqliteSettings", "backend"]


def _connect(settings: SqliteSettings, namespace: str, ttl: float) -> Store:
    from distjob_sqlite.store import SqliteStore  # some builds of Python have no sqlite3

    return SqliteStore(settings, namespace, ttl)


async def _connect_async(settings: SqliteSettings, namespace: str, ttl: float) -> OffLoop:
    return await OffLoop.connect(lambda: _connect(settings, namespace, ttl))


def _where(settings: SqliteSettings) -> tuple[str, str]:
    return str(located(settings.path)), reasons(settings.path)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_sqlite.examine import examine

    return examine(store.path)


backend = Backend(
    settings=SqliteSettings,
    connect=_connect,
    connect_async=_connect_async,
    promises={"file": FILE},
    where=_where,
    examine=_examine,
)
