"""What a VM may be called, how long a wait and a TTL may be, what is no path of a file.

The one place that knows these bounds: the client, the guards and the settings all ask here. A VM's
name means nothing to distjob: NUL, '/', newlines and emoji are as good as letters. Knows nothing
of stores, jobs or files.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TypeAlias

from distjob.errors import BadRequest

Seconds: TypeAlias = float | timedelta
"""How a time to wait may be given."""
MAX_VM_BYTES = 255
MAX_LABEL = 255
MAX_WAIT = 31_536_000.0
"""A year, in seconds: longer is a mistake in the unit, and some timers overflow."""
MIN_TTL = 0.1
MAX_TTL = 86_400.0


def check_vm(vm: object) -> str:
    """Return ``vm`` if it can name a VM: a str of 1 to 255 bytes in UTF-8, of any characters.

    Raises BadRequest, which says what it got and what would be right. Thread-safe.
    """
    if type(vm) is str and 0 < len(vm) < 64 and vm.isascii():
        return vm
    if not isinstance(vm, str):
        raise BadRequest(
            f"a VM is named by a str of 1 to {MAX_VM_BYTES} bytes, not by {type(vm).__name__}"
            " (decode bytes; str() a UUID)"
        )
    if not vm:
        raise BadRequest(f"the name of a VM is empty; it takes 1 to {MAX_VM_BYTES} bytes of UTF-8")
    try:
        size = len(vm.encode())
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"the name of VM {_short(vm)} has a lone surrogate at index {error.start}, which UTF-8"
            " can't carry; decode names as UTF-8, without surrogateescape"
        ) from None
    if size > MAX_VM_BYTES:
        raise BadRequest(
            f"the name of VM {_short(vm)} has {size} bytes in UTF-8;"
            f" it may have 1 to {MAX_VM_BYTES}: use the VM's UUID"
        )
    return vm


def check_label(what: str, label: object) -> str:
    """Return ``label`` if it can be shown to people on one line: printable, at most 255 characters.

    ``what`` names it in the error. Raises BadRequest. Thread-safe.
    """
    if isinstance(label, str) and len(label) <= MAX_LABEL and label.isprintable():
        return label
    raise BadRequest(
        f"{what} is a str of at most {MAX_LABEL} printable characters, not {_short(repr(label))}"
    )


def check_wait(seconds: object) -> float:
    """Return ``seconds`` as a float if it can be waited: 0 to a year, finite; or a timedelta.

    Raises BadRequest. Thread-safe.
    """
    return _seconds("a wait", seconds, 0.0, MAX_WAIT)


def check_ttl(seconds: object) -> float:
    """Return ``seconds`` as a float if a session may have it as TTL: 0.1 to 86400, finite.

    Raises BadRequest. Thread-safe.
    """
    return _seconds("a session's TTL", seconds, MIN_TTL, MAX_TTL)


def check_path(path: str) -> str:
    """Return ``path`` if it can be the path of a SQLite file, which others open by it, too.

    Raises BadRequest for what names a database in memory, and for a URL. Thread-safe.
    """
    if path.rpartition("/")[2] == ":memory:":
        raise BadRequest(
            "':memory:' is no file: nobody else would see what is in it; name a file (for tests in"
            " one process there is distjob.testing.memory)"
        )
    if re.match(r"file:|[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise BadRequest("a path is wanted, such as /var/lib/distjob/jobs.db, not a URL")
    return path


def _seconds(what: str, seconds: object, low: float, high: float) -> float:
    right = f"{what} is a number of seconds from {low:g} to {high:.0f}"
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise BadRequest(f"{right}, not {type(seconds).__name__}")
    if not low <= seconds <= high:  # false for NaN, too
        # NaN is neither small nor large; an int of thousands of digits can't even be printed.
        shown = "a number far beyond that" if abs(seconds) > 1e18 else str(seconds)
        raise BadRequest(f"{right}, not {shown}")
    return float(seconds)


def _short(vm: str) -> str:
    return repr(vm) if len(vm) <= 40 else f"{vm[:40]!r}..."
