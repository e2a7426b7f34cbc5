"""Tells, when the interpreter ends, of clients that nobody closed, as Python tells of open files.

Their jobs are held until the TTL has passed: nobody can know that what they stood for has ended.
"""

from __future__ import annotations

import atexit
import os
import warnings
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from distjob.protocol.state import ClientState

_all: WeakSet[ClientState] = WeakSet()


def watch(client: ClientState) -> None:
    """From now on, until it is closed."""
    _all.add(client)


@atexit.register
def _tell() -> None:
    for client in list(_all):
        owner, session = client.owner, client.session
        if session is None or client.closing or owner.pid != os.getpid():
            continue
        text = (
            f"the client of {owner.controller} (pid {owner.pid}) was never closed: what it holds"
            f" stays held until its session ends, {client.ttl:g} s after the last renewal"
        )
        warnings.warn(text, ResourceWarning, stacklevel=1)
