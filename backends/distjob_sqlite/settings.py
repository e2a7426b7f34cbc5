"""The keys of the ``sqlite`` section, with their types, bounds and defaults."""

from __future__ import annotations

from typing import Annotated

import msgspec

from distjob.backend.sections import Mistake
from distjob.drive.names import check_path
from distjob.errors import BadRequest
from distjob_sqlite.place import standard


class SqliteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the SQLite file is. Every controller of the host must name the same file."""

    path: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=4096,
            pattern=r"^[^\x00]+\Z",
            extra={"right": "a path of 1 to 4096 characters, none of them NUL"},
            description="The file; made if missing, its directory is not. On a local disk: "
            "network file systems are refused. Beside it SQLite keeps `-wal` and `-shm`. Left "
            "out: for root /var/lib/distjob/jobs.db, for others distjob/jobs.db in "
            "$XDG_STATE_HOME (~/.local/state); this directory is made, too.",
        ),
    ] = msgspec.field(default_factory=standard)
    busy_timeout: Annotated[
        float,
        msgspec.Meta(
            ge=0.01,
            le=60.0,
            description="Seconds to wait while another process writes, but never longer than the "
            "session's TTL. A write takes well under a millisecond; only a backup tool or a "
            "shell with an open transaction holds the file for longer.",
        ),
    ] = 5.0

    def __post_init__(self) -> None:
        """Refuse what is no path."""
        try:
            check_path(self.path)
        except BadRequest as error:
            raise Mistake("path", str(error)) from None
