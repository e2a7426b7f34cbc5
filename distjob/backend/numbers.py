"""By which commits are told from those that were sent before a settling.

Each session has a number in the store. Its commits name the number that was last known; settling
raises it. So a commit that was sent before, and arrives later, names one that is not the session's
any more, and changes nothing.
"""

from __future__ import annotations

import threading

FIRST = 1
"""The number of a session that was never settled."""


class Numbers:
    """What is known of each session's number. It never falls, whoever learns it last.

    Else a commit could be under way that names a larger one than a later settling knows of. So the
    lock, which is held for moments.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}

    def of(self, session: str) -> int:
        """What is to be named by a commit of ``session``."""
        return self._known.get(session, FIRST)

    def learn(self, session: str, number: int) -> None:
        """The store has told it; 0: the session has ended."""
        with self._lock:
            if number:
                self._known[session] = max(number, self.of(session))
            else:
                self._known.pop(session, None)
