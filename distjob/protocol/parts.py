"""What a client's side of the protocol is made of: its session, what it holds, who of it waits.

Plain state; who changes it, and when, is the controller's and the operations'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from distjob.hooks import How
from distjob.protocol.effects import Signal
from distjob.rules.fence import Fence
from distjob.rules.jobs import AgentJob, AsyncJob, Job, OnOwnerLoss
from distjob.rules.record import JobRecord
from distjob.rules.ticket import AbortRequest, AsyncHolder, Holder, Progress
from distjob.store import ABSENT


class View(NamedTuple):
    """A VM's record as it was at a version."""

    version: int
    record: JobRecord


IDLE = View(ABSENT, JobRecord())


class Wish(NamedTuple):
    """What a begin call asks for, before it has a ticket."""

    api: str
    job: Job | None = None
    agent: AgentJob | None = None
    kind: AsyncJob | None = None
    parent: str = ""
    on_owner_loss: OnOwnerLoss = OnOwnerLoss.RELEASE
    adopts: bool = False
    """It asks for an async job whose owner is gone."""


class Session:
    """A session as its own controller sees it.

    The deadline is counted from before the last successful keep-alive was sent, and lies a tenth
    of the TTL before the moment at which the store could end the session.
    """

    __slots__ = (
        *("_count", "alive", "deadline", "doubted", "doubts", "failures", "how", "id"),
        *("next_beat",),
        *("trouble", "ttl", "why"),
    )

    def __init__(self, session_id: str, ttl: float, sent: float) -> None:
        self.id = session_id
        self.ttl = ttl
        self.alive = True
        self.why = ""
        self.how: How = "session"
        """Why it has ended, and as `distjob.hooks.Lost` says it."""
        self.failures = 0
        """How many renewals have failed, one after the other."""
        self.trouble = ""
        """Why the last renewal has failed, to be said behind the reason of a loss."""
        self.doubts: dict[str, int] = {}
        """VMs of which a commit is in doubt, sent but not known to be made or void; with its
        number.
        """
        self.doubted = 0
        """How many were in doubt until now."""
        self._count = 0
        self.renewed(sent)

    def renewed(self, sent: float) -> None:
        self.deadline = sent + 0.9 * self.ttl
        self.next_beat = sent + self.ttl / 3

    def holds(self, now: float) -> bool:
        """Whether it surely lives at this moment."""
        return self.alive and now < self.deadline

    def doubt(self, vm: str) -> None:
        """A commit of ``vm`` was sent, and nobody knows what became of it."""
        self.doubted += 1
        self.doubts[vm] = self.doubted

    def settled(self, doubted: int) -> None:
        """So many of those in doubt, the first ones, are not any more."""
        self.doubts = {vm: number for vm, number in self.doubts.items() if number > doubted}

    def next_ticket_id(self) -> str:
        self._count += 1
        return f"{self.id}.{self._count}"


class HeldJob:
    """A job that was granted: what a lease is made of."""

    __slots__ = (
        *("abort", "begun", "callbacks", "ended", "fallen", "fence", "gives_back"),
        *("on_abort", "phase", "progress", "progress_due", "session", "taken", "ticket", "token"),
        *("unsaid", "vm", "watchers"),
    )

    def __init__(
        self, vm: str, holder: Holder, fence: Fence, session: Session, begun: float
    ) -> None:
        self.vm = vm
        self.ticket = holder.ticket
        self.token = holder.token
        self.fence = fence
        self.session = session
        self.begun = begun
        """On the local clock."""
        self.ended = False
        """Its end has begun; or its detaching, if ``gives_back``."""
        self.gives_back = False
        self.fallen = False
        """Its loss was told."""
        self.taken = False
        """Somebody took it away by force; the session lives."""
        self.callbacks: tuple[Callable[[], None], ...] = ()
        """Called if the job is lost."""
        self.watchers: tuple[Signal, ...] = ()
        """Set when the job is lost, ends, or is asked to abort."""
        self.on_abort: tuple[Callable[[AbortRequest], None], ...] = ()
        self.phase = ""
        self.progress: Progress | None = None
        self.abort: AbortRequest | None = None
        self.unsaid: Progress | None = None
        """Progress that was made since it was written last."""
        self.progress_due = 0.0
        """When progress may be written again, on the local clock."""
        if isinstance(holder, AsyncHolder):
            self.phase, self.progress, self.abort = holder.phase, holder.progress, holder.abort

    @property
    def long(self) -> bool:
        """Whether it is an async job."""
        return self.ticket.job is Job.ASYNC

    def holds(self, now: float) -> bool:
        """Whether it is surely held at this moment."""
        return not self.ended and not self.taken and self.session.holds(now)

    def stir(self) -> None:
        for signal in self.watchers:
            signal.set()


class Leftover(NamedTuple):
    """A ticket that nobody has any more."""

    due: float
    """When to try, on the local clock; 0: now."""
    gives_back: bool
    """It has adopted an async job, which is left as it was found."""


class Waiter:
    """One begin call that waits, on this side."""

    __slots__ = ("doubts", "missed", "signal", "ticket_id", "woken")

    def __init__(self, ticket_id: str, signal: Signal) -> None:
        self.ticket_id = ticket_id
        self.signal = signal
        self.woken = False
        self.missed = False
        """It must read the record: what it was to be told may be lost."""
        self.doubts = False
        """It must ask whether those it watches live: one of them is said to have ended."""

    def wake(self) -> None:
        self.woken = True
        self.signal.set()

    def rest(self) -> None:
        self.woken = False
        self.signal.clear()

    def look_again(self) -> None:
        self.missed = True
        self.wake()

    def doubt(self) -> None:
        self.doubts = True
        self.wake()
