"""What a client tells its hooks: one frozen value for each thing that happened to its jobs.

A hook is any callable that takes an `Event`. It is called after the step in which the thing
happened and outside of all locks, so it may ask the client; several threads may call it at once,
and then in any order. It must not block: it holds up a job, or the session's renewal. What it
raises is logged and goes no further. Nothing of what an event holds is secret.

    def hook(event: distjob.hooks.Event) -> None:
        match event:
            case Lost(vm=vm, job=job, how="session" | "force"):
                page_somebody(vm, job)

    jobs = distjob.connect("distjob.yaml", hooks=[hook])

Ready-made: `distjob.hooks.logs.LogHook`, `distjob.hooks.metrics.Metrics`.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from distjob.rules.jobs import Slot
from distjob.rules.ticket import Owner

How = Literal["session", "force", "closed"]
Fate = Literal["ended", "orphaned", "force"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened."""

    @property
    def grave(self) -> bool:
        """Whether it is logged as a warning though nobody asked for it."""
        return False


class Blocker(msgspec.Struct, frozen=True, kw_only=True):
    """Who is in the way of a begin."""

    slot: Slot
    job: str
    owner: Owner
    api: str
    """What its caller said of it."""
    token: int


class JobEvent(Event, frozen=True, kw_only=True):
    """What happened to a job."""

    vm: str
    job: str
    """``modify``, ``agent query``, ``async migration out``, ``nested step of backup``, ..."""
    ticket: str = ""
    """The request's id: the same in all that is told of it, and never another's."""


class Waiting(JobEvent, frozen=True, kw_only=True):
    """A begin has got in line. One of Begun, TimedOut and GaveUp follows."""

    depth: int
    """How many hold or wait before it."""
    blockers: tuple[Blocker, ...] = ()
    """Who holds what it waits for; empty if only others that wait are before it."""


class Begun(JobEvent, frozen=True, kw_only=True):
    """A job was granted, at once or after waiting; or an async job was adopted.

    One of Ended and Lost follows.
    """

    token: int
    waited: float
    """Seconds from the call of begin."""
    queued: bool
    """Whether it had to get in line."""


class TimedOut(JobEvent, frozen=True, kw_only=True):
    """A begin was not granted its job in time (`JobTimeout`)."""

    waited: float
    """Seconds from the call of begin."""
    blockers: tuple[Blocker, ...]
    """Who was in the way."""


class GaveUp(JobEvent, frozen=True, kw_only=True):
    """A begin that had got in line was cancelled, or failed; or its session has ended, and it asks
    again with the next.
    """

    waited: float
    """Seconds from the call of begin."""


class Refused(JobEvent, frozen=True, kw_only=True):
    """A begin was refused because ``max_queued`` jobs were held or waited for (`QueueFull`)."""

    depth: int
    """How many."""


class Ended(JobEvent, frozen=True, kw_only=True):
    """A job was ended, or detached, by its holder."""

    token: int
    held: float
    """Seconds since it began, or was adopted, here."""


class Lost(JobEvent, frozen=True, kw_only=True):
    """A job that was held here is not any more, without having been ended by itself."""

    token: int
    held: float
    """Seconds since it began, or was adopted, here."""
    how: How
    """The session has ended; somebody has evicted it; this client was closed."""
    why: str
    """The same for people."""

    @property
    def grave(self) -> bool:
        return self.how != "closed"


class Evicted(JobEvent, frozen=True, kw_only=True):
    """This client took out another's job, or found that it is an orphan."""

    token: int
    """0: it waited."""
    owner: Owner
    seconds: float
    """Since it was granted or, if it waited, asked for; by the wall clocks involved."""
    how: Fate
    """Its owner's session had ended; so it had, but the job stays, without an owner, to be adopted
    or discarded; by `Client.evict` or `Client.discard`.
    """

    @property
    def grave(self) -> bool:
        return True


class SessionEvent(Event, frozen=True, kw_only=True):
    """What happened to a session of this client; it has one at a time in each shard."""

    session: str


class SessionOpened(SessionEvent, frozen=True, kw_only=True):
    """A session was opened, the first or the next: jobs may be begun."""

    ttl: float
    seconds: float
    """Until its deadline: then all jobs are void, unless it was renewed."""


class SessionLost(SessionEvent, frozen=True, kw_only=True):
    """The session is no more, nor what it held: a `Lost` of each job comes first."""

    how: How
    why: str


class RenewalFailed(SessionEvent, frozen=True, kw_only=True):
    """A keep-alive did not come through. It is tried again until all jobs are void."""

    error: str
    times: int
    """How many have failed, one after the other."""
    seconds: float
    """Until the session's deadline."""

    @property
    def grave(self) -> bool:
        """It is the first: what follows says the same."""
        return self.times == 1


class Renewed(SessionEvent, frozen=True, kw_only=True):
    """The session was renewed: a keep-alive came through."""

    late: float
    """Seconds past the moment at which it was due, a third of the TTL after the one before. At
    0.57 of the TTL all leases are lost."""
    ttl: float
    seconds: float
    """Until its deadline."""

    @property
    def grave(self) -> bool:
        """Half the TTL has passed since the renewal before."""
        return self.late > self.ttl / 6


class StoreFailed(Event, frozen=True, kw_only=True):
    """The store did not do what it was asked for. What comes of it is told by what follows."""

    verb: str
    """``commit``, ``read``, ``keep_alive``, ...: see `distjob.store.Store`."""
    error: str
    unanswered: bool
    """It may have been done all the same."""


class Hook(Protocol):
    def __call__(self, event: Event, /) -> None: ...
