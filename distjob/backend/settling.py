"""Which commits were overtaken by a settling.

`Settling` is for stores that carry commits out by themselves. Where a server does that, which may
hear of one late, the server has to be told: each session has a *number* in the store, its commits
name the one that was last known (`Numbers`), and settling raises it. So a commit that was sent
before, and arrives later, names one that is not the session's any more, and changes nothing.
"""

from __future__ import annotations

import threading

FIRST = 1
"""The number of a session that was never settled."""


class Settling:
    """A mark for each session, another one after each settling, and no mark is used twice.

    Callable from any thread: a commit remembers the mark when it is sent, and looks at it again
    when it is carried out, under the lock that all commits take. Whoever settles sets a new mark
    first, and then takes that lock once: what was under way is over by then.
    """

    def __init__(self) -> None:
        self._marks: dict[str, object] = {}

    def begin(self, session: str) -> None:
        """``session`` is about to be opened."""
        self._marks[session] = object()

    def mark(self, session: str) -> object:
        """None for a session that was not opened here, or has ended."""
        return self._marks.get(session)

    def settle(self, session: str) -> None:
        """Refuse what was sent before."""
        if session in self._marks:
            self._marks[session] = object()

    def end(self, session: str) -> None:
        """``session`` has ended: nothing is committed for it any more."""
        self._marks.pop(session, None)


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
