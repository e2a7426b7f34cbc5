"""Which commits were overtaken by a settling, for stores that carry commits out by themselves.

Where a server does that, which may hear of one late, the server has to be told.
"""

from __future__ import annotations


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
