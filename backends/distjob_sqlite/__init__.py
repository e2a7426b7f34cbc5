"""distjob on one SQLite file: for the controllers of one host, with nothing to install or run.

settings.py    the keys of the ``sqlite`` section
place.py       where the file is if none is configured, and why
guarantees.py  what is promised, as data
source.py      the verbs; begin here
feed.py        mail: the file is looked at, as it tells nobody
database.py    the layout, and which files are refused
faults.py      what a fault of the file means for a controller
doctor.py      what an operator should know of the file
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from distjob.backend.sections import Mistake, url_parts
from distjob.store import Backend, Finding
from distjob_sqlite.guarantees import FILE
from distjob_sqlite.place import located, reasons
from distjob_sqlite.settings import SqliteSettings

if TYPE_CHECKING:
    from distjob.backend.source import Source
    from distjob.backend.world import World

__all__ = ["SqliteSettings", "backend"]


def _source(
    settings: SqliteSettings, namespace: str, ttl: float, world: World, _shard: int
) -> Coroutine[Any, Any, Source]:
    from distjob_sqlite.source import connect  # some builds of Python have no sqlite3

    return connect(settings, namespace, ttl, world)


def _where(settings: SqliteSettings) -> tuple[str, str]:
    return str(located(settings.path)), reasons(settings.path)


def _examine(store: Any) -> Iterable[Finding]:
    from distjob_sqlite.doctor import examine

    return examine(store.verbs.source.database.path)


def _section(url: str) -> Mapping[str, str]:
    right = "sqlite:///var/lib/distjob/jobs.db: an absolute path, as in file:///"
    parts = url_parts(url, right)
    if parts.hosts or parts.login or len(parts.path) < 2:
        raise Mistake("", f"must be {right}")
    return {"path": f"/{parts.path.lstrip('/')}"}


backend = Backend(
    settings=SqliteSettings,
    source=_source,
    promises={"file": FILE},
    where=_where,
    examine=_examine,
    urls={"sqlite": _section},
)
