"""A bell for each session: a FIFO beside the file, which a waiter sleeps on.

SQLite tells nobody of a change, and looking for one costs more the more clients there are. So who
writes mail to a session rings its bell. A FIFO is found by its path: it serves containers that
share the folder and nothing else. A ring is a hint and the mail is in the file, so all that fails
here is passed over: a client without a bell looks for its mail as often as it would without bells.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

_MARK = "-bell-"
# readv and writev: eventlet's read and write would wait where the system's say that they would.


class Bell:
    """The bell of ``session``, hung up beside ``file``."""

    def __init__(self, file: Path, session: str) -> None:
        self._path = _bell(file, session)
        self.number: int | None = None
        """Of the file that becomes readable when it is rung; None if it could not be hung up."""
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(file.stat().st_mode) & 0o666
            os.mkfifo(self._path, mode)
            self._path.chmod(mode)  # whatever the umask: who may write the file may ring
            # For writing as well: else it were at its end whenever a ringer has left.
            self.number = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)

    def rung(self) -> bool:
        """Whether it was since the last call."""
        if self.number is None:
            return False
        try:
            return bool(os.readv(self.number, [bytearray(4096)]))
        except BlockingIOError:
            return False

    def take_down(self) -> None:
        """Its session has ended, or nobody listens any more."""
        number, self.number = self.number, None
        if number is not None:
            os.close(number)
        remove(self._path)


def ring(file: Path, sessions: Iterable[str]) -> None:
    """Ring the bells of ``sessions``; those of the deaf and of the dead are passed over."""
    for session in sessions:
        with contextlib.suppress(OSError):  # full: rung already
            number = os.open(_bell(file, session), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                if stat.S_ISFIFO(os.fstat(number).st_mode):
                    os.writev(number, [b"!"])
            finally:
                os.close(number)


def clear(file: Path, sessions: Iterable[str]) -> None:
    """Remove what dead ``sessions`` have left."""
    for session in sessions:
        remove(_bell(file, session))


def remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _bell(file: Path, session: str) -> Path:
    return file.with_name(f"{file.name}{_MARK}{session}")
