"""Where the file is, and why there.

Decides the path that is used if none is configured, once, when settings are read; and makes that
path's folder when a store is opened. The folder of a path that somebody has configured is never
made: if it is missing, its disk may not be mounted. Knows nothing of what is in the file.
"""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path

from distjob.errors import ConfigError

ROOTS = Path("/var/lib/distjob")
_NAME = "jobs.db"
_ROOTS_MODE, _USERS_MODE = 0o750, 0o700  # the latter is the XDG Base Directory Specification's


class Standard(str):
    """The path for whoever has configured none. Settings hold it in place of a plain text."""

    why: str
    mode: int
    """Of the folder, if it has to be made."""

    @classmethod
    def at(cls, folder: Path, mode: int, why: str) -> Standard:
        """The file in ``folder``."""
        path = cls(folder / _NAME)
        path.mode, path.why = mode, why
        return path


def standard() -> Standard:
    """For the user that this process acts as. Raises ConfigError: it has no home."""
    if os.geteuid() == 0:
        return Standard.at(ROOTS, _ROOTS_MODE, "this is root's default")
    given, home = os.environ.get("XDG_STATE_HOME", ""), os.environ.get("HOME", "")
    if Path(given).is_absolute():
        return Standard.at(
            Path(given) / "distjob",
            _USERS_MODE,
            "this is the default of a user who is not root: $XDG_STATE_HOME/distjob",
        )
    found = "holds no absolute path, which XDG tells to ignore" if given else "is not set"
    if not Path(home).is_absolute():
        raise ConfigError(
            "no path is given, and the default of a user who is not root is in $XDG_STATE_HOME or"
            " $HOME/.local/state, but neither variable holds an absolute path;"
            " set sqlite.path, or HOME"
        )
    return Standard.at(
        Path(home) / ".local" / "state" / "distjob",
        _USERS_MODE,
        "this is the default of a user who is not root: $HOME/.local/state/distjob,"
        f" as XDG_STATE_HOME {found}",
    )


def located(path: str) -> Path:
    """The file that ``path`` names: absolute, ``~`` filled in."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"sqlite.path {path}: whose home is meant can't be found out") from error


def reasons(path: str) -> str:
    """Why the file is where ``path`` says, for people."""
    if not isinstance(path, Standard):
        return "sqlite.path says so"
    folder = Path(path).parent
    later = "" if folder.is_dir() else f"; {folder} is missing, and made when it is first needed"
    return f"sqlite.path is not set; {path.why}{later}"


def make_folder(path: str) -> None:
    """Make the folder of a `Standard` path if it is missing. Raises ConfigError."""
    if not isinstance(path, Standard):
        return
    folder = Path(path).parent
    ours = (folder,) if folder == ROOTS else (folder, *folder.parents)
    try:
        for one in reversed(list(takewhile(lambda one: not one.is_dir(), ours))):
            one.mkdir(path.mode, exist_ok=True)  # others may be making it, too
    except OSError as error:
        raise _unusable(path, f"can't be made: {error.filename}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise _unusable(path, "can't be written to by this user")


def _unusable(path: Standard, what: str) -> ConfigError:
    return ConfigError(
        f"sqlite.path is not set ({path.why}), and the folder {Path(path).parent} {what};"
        " give this user a folder to write to there, or set sqlite.path"
    )
