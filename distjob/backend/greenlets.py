"""Whether eventlet or gevent has made greenlets of this process's threads, and whom that keeps out.

A client library that waits in C, or for threads that it starts itself, then waits for ever. Imports
neither: who has patched the process has imported its own.
"""

from __future__ import annotations

import sys

from distjob.errors import ConfigError

_ASKED = {
    "eventlet": ("eventlet.patcher", "is_monkey_patched", "thread"),
    "gevent": ("gevent.monkey", "is_module_patched", "threading"),
}
"""Module, function, and what that is asked about."""


def refuse(store: str, *hubs: str) -> None:
    """Raise `ConfigError` if one of ``hubs`` has patched this process; ``store``, for the text."""
    for hub in hubs:
        module, function, about = _ASKED[hub]
        if module in sys.modules and getattr(sys.modules[module], function)(about):
            msg = (
                f"{store} can't be used in a process whose threads are greenlets ({hub}): its "
                "client library would wait for ever; use Redis or SQLite, or a process of its own"
            )
            raise ConfigError(msg)
