"""Commands as bytes."""

from __future__ import annotations

import contextlib
from typing import Any

_by_hiredis: Any = None
with contextlib.suppress(ImportError):
    import hiredis

    _by_hiredis = hiredis.pack_command


def packed(command: tuple[Any, ...]) -> bytes:
    """A command of bytes, str and int, in RESP."""
    if _by_hiredis is None:
        return written(command)
    data: bytes = _by_hiredis(command)
    return data


def written(command: tuple[Any, ...]) -> bytes:
    """As `packed`, without hiredis."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
