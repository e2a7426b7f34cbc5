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

from distjob.rules.ticket import Owner

How = Literal["session", "force", "closed"]
Fate = Literal["ended", "orphaned", "force"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happened."""

    @property
    def grave(self) -> bool:
        """Whether it is logged as a warning though nobody asked for it."""
        return False


class _OfJob(Event, frozen=True, kw_only=True):
    vm: str
    job: str
    """``modify``, ``agent query``, ``async migration out``, ``nested step of backup``, ..."""


class Waiting(_OfJob, frozen=True, kw_only=True):
    """A begin has got in line. One of Begun, TimedOut and GaveUp follows."""

    depth: int
    """How many hold or wait before it."""


class Begun(_OfJob, frozen=True, kw_only=True):
    """A job was granted, at once or after waiting; or an async job was adopted.

    One of Ended and Lost follows.
    """

    token: int
    waited: float
    """Seconds from the call of begin."""
    queued: bool
    """Whether it had to get in line."""


class TimedOut(_OfJob, frozen=True, kw_only=True):
    """A begin was not granted its job in time (`JobTimeout`)."""

    waited: float
    """Seconds from the call of begin."""
    blockers: tuple[Owner, ...]
    """Who was in the way."""


class GaveUp(_OfJob, frozen=True, kw_only=True):
    """A begin that had got in line was cancelled, or failed; or its session has ended, and it asks
    again with the next.
    """

    waited: float
    """Seconds from the call of begin."""


class Refused(_OfJob, frozen=True, kw_only=True):
    """A begin was refused because ``max_queued`` jobs were held or waited for (`QueueFull`)."""

    depth: int
    """How many."""


class Ended(_OfJob, frozen=True, kw_only=True):
    """A job was ended, or detached, by its holder."""

    token: int
    held: float
    """Seconds since it began, or was adopted, here."""


class Lost(_OfJob, frozen=True, kw_only=True):
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


class Evicted(_OfJob, frozen=True, kw_only=True):
    """This client took out another's job, or found that it is an orphan."""

    token: int
    """0: it waited."""
    ticket: str
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


class Renewed(Event, frozen=True, kw_only=True):
    """The session was renewed: a keep-alive came through."""

    late: float
    """Seconds past the moment at which it was due, a third of the TTL after the one before. At
    0.57 of the TTL all leases are lost."""
    ttl: float

    @property
    def grave(self) -> bool:
        """Half the TTL has passed since the renewal before."""
        return self.late > self.ttl / 6


class Hook(Protocol):
    def __call__(self, event: Event, /) -> None: ...
