"""Clients that nobody closed: when the interpreter ends they are told, and closed if they can be.

Else their jobs would be held until the TTL has passed. The event loop of an asyncio client is gone
by then; `asyncio.run` cancels the client's tasks before, which closes it.
"""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from distjob.errors import DistjobError

if TYPE_CHECKING:
    from distjob.protocol.state import ClientState

_open: dict[ClientState, Callable[[], None] | None] = {}


def watch(client: ClientState, close: Callable[[], None] | None) -> None:
    """From now on; ``close`` ends its session, if that can be done when the interpreter ends."""
    _open[client] = close


def forget(client: ClientState) -> None:
    """It is being closed."""
    _open.pop(client, None)


@atexit.register
def _tell() -> None:
    for client, close in list(_open.items()):
        if client.session is None or client.closing or client.owner.pid != os.getpid():
            continue
        if close is not None:
            what = "it is closed now"
            try:
                close()
            except DistjobError as error:
                what = f"closing it now has failed: {error}"
        else:
            what = f"what it holds stays held until its session ends, {client.ttl:g} s at most"
        owner = client.owner
        text = f"the client of {owner.controller} (pid {owner.pid}) was never closed: {what}"
        warnings.warn(text, ResourceWarning, stacklevel=1)
