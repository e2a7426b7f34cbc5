"""distjob on one SQLite file: for the controllers of one host, with nothing to install or run.

settings.py   the keys of the ``sqlite`` section
store.py      the verbs of `distjob.store.Store`
database.py   the layout, and what a fault of the file means for a controller
"""

from __future__ import annotations

from distjob.store import Backend, Store
from distjob_sqlite.settings import SqliteSettings

__all__ = ["SqliteSettings", "backend"]


def _connect(settings: SqliteSettings, namespace: str, ttl: float) -> Store:
    from distjob_sqlite.store import SqliteStore  # some builds of Python have no sqlite3

    return SqliteStore(settings, namespace, ttl)


backend = Backend(settings=SqliteSettings, connect=_connect)
