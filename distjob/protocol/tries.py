"""What follows when a commit is not made: the next try, a pause, an error; and how doubt ends.

A commit is in doubt if its reply was lost, or if whoever sent it was cancelled. It may be applied
much later, when the VM is idle again and the expected version matches by chance. So nothing is
decided about a VM in doubt before the session was settled: then its commit was made, and the
record says so, or it never will be. A session's end settles it, too.
"""

from __future__ import annotations

import zlib
from typing import Generic, TypeVar

from distjob.errors import BackendUnavailable, ClientClosed, OutcomeUnknown, RecordError
from distjob.protocol.controller import Controller
from distjob.protocol.effects import Commit, Op, Settle, Wait, ask
from distjob.protocol.parts import Session
from distjob.store import Reply

R = TypeVar("R")

HERD = 8
"""So many get in line, or out of it, during one change: a herd. Of a crowd in which each waits for
its turn none meets that many; of hundreds who ask at one moment each would try hundreds of times.
"""
LONGEST = 1.0
"""Seconds of a pause, at most: a process that was suspended measures a long try."""


def settle(session: Session) -> Op[None]:
    """Bring all commits that are in doubt to an end. Raises BackendUnavailable."""
    doubted = session.doubted
    yield from ask(Settle(session.id))
    session.settled(doubted)


class Tries(Generic[R]):
    """How often a change has failed, and what follows: the next try, a pause, or an error."""

    __slots__ = (
        *("doubted", "failures", "first", "line", "me", "pauses", "session", "tried"),
        *("unheard", "until", "vm", "_expected", "_found"),
    )
    _found: R

    def __init__(self, me: Controller, session: Session, vm: str, until: float) -> None:
        self.me = me
        self.session = session
        self.vm = vm
        self.until = until
        self.failures = 0
        self.doubted = False
        """The last commit was not answered, and the record was not read since it was settled."""
        self.unheard: tuple[R, ...] = ()
        """As `Changed.unheard`."""
        self.tried = 0.0
        """When another was first, the last time."""
        self.line: int | None = None
        """How many waited when another was first, the first time since the last pause."""
        self.first = 0
        """The same, before the first pause."""
        self.pauses = 0

    def send(self, commit: Commit, found: R) -> Op[Reply]:
        """Send what the edit has made of a record in which it found that."""
        try:
            return (yield from ask(commit))
        except (ClientClosed, RecordError):
            raise
        except BackendUnavailable as error:
            if error.unanswered:
                self.doubted, self._expected, self._found = True, commit.expected, found
                self.session.doubt(self.vm)
            raise
        except BaseException:  # cancelled while it was under way
            self.session.doubt(self.vm)
            raise

    def looked(self, version: int) -> None:
        """The record was read. If it has changed, a commit that was in doubt may have done it."""
        if self.doubted and version != self._expected:
            self.unheard += (self._found,)
        self.doubted = False

    def failed(self, error: BackendUnavailable | ClientClosed) -> Op[None]:
        """The store did not answer. At least one more try, as a pooled connection may be dead.

        No more, if the store was closed with its client.
        """
        if isinstance(error, BackendUnavailable):
            self.failures += 1
            if self.failures == 1:
                return
            if self.me.clock.monotonic() < self.until:
                yield from ask(Wait(min(0.02 * 2.0**self.failures, 0.5)))
                return
        if self.doubted or self.unheard:
            raise OutcomeUnknown(f"VM {self.vm!r}: {error}", vm=self.vm) from error
        raise error

    def collided(self, line: int) -> Op[bool]:
        """Another was first, and ``line`` wait now. True after a pause: look before the next try.

        Without a pause the next try follows at once, on the record that the refusal brought: each
        refusal is another's success. A pause in between would let that record grow old, so that
        whoever pauses is refused until all others have finished. Only a herd spreads out: as many
        again as have come are taken to be on their way, and each to need the time of a try.
        """
        now = self.me.clock.monotonic()
        took, self.tried = now - self.tried, now
        if self.line is None:
            self.line = line
            if not self.pauses:
                self.first = line
        elif abs(line - self.line) > HERD and now < self.until:
            self.line = None
            self.pauses += 1
            share = zlib.crc32(f"{self.session.id}{self.vm}{self.pauses}".encode()) / 2**32
            span = min(abs(line - self.first) * took, LONGEST, self.until - now)
            yield from ask(Wait(share * span))
            return True
        return False
