"""What a backend's author writes: a `Source`, the verbs of one server, and a `Feed`.

A source says what to ask, what the answer means, where to listen and how to log in. Everything
that waits, receives, listens, lives and fails is written once, in this package: ``OpenStore`` makes
of a source the store that a client uses (`distjob.store`), blocking or on asyncio.

What holds for every verb of a source:

- It sends what it has to send **once**. Who may send again is the caller, who knows how.
- It is a coroutine that awaits only what its `World` gives, and so runs in threads, in tasks and
  in simulated time. Verbs are called side by side, from any thread or task.
- It is atomic and linearizable for one VM. What the servers can't promise, its guarantees say.
- It fails by `Fault`, which says whether a change may have been made; by `RecordError` for data of
  ours that make no sense; in opening, by `ConfigError` for what only a person can mend. A fault of
  a client library is turned into a `Fault` in the backend's file ``faults.py``, and nowhere else.
- It knows nothing of jobs: values are opaque. VM names come checked (see `distjob.store`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Literal, Protocol

from distjob.store import Event, Guarantees, Reply, Versioned, Void

EVERYBODY = ""
"""The session under which a `Feed` tells an event that concerns all sessions of its source."""


class Fault(Exception):
    """A server, or the way to it, did not do what was asked."""

    def __init__(
        self,
        text: str,
        advice: str = "",
        *,
        made: Literal["no", "unknown"] = "no",
        unfit: bool = False,
    ) -> None:
        super().__init__(text)
        self.text = text
        """What happened, and at which server."""
        self.advice = advice
        """What a person should do about it."""
        self.made = made
        """Whether the change that was asked for may have been made, or be made yet."""
        self.unfit = unfit
        """Trying again will not help: while connecting that is a mistake in the settings."""

    def __str__(self) -> str:
        return f"{self.text}: {self.advice}" if self.advice else self.text


class Source(Protocol):
    """One server (a cluster that keeps one order of versions is one, too), for one client."""

    guarantees: Guarantees

    async def open(self, ttl: float, owner: str) -> str:
        """Begin a session that ends ``ttl`` seconds after its last renewal; returns its id.

        Ids are never used twice. What is sent to the session from the moment this returns reaches
        a feed that is open, or else a later `Feed.open` says that something may be missed.
        """

    async def renew(self, session: str) -> bool | Void:
        """Renew for the full TTL; False if it has ended. Never revives one.

        `Void` if it can't be relied upon, for a reason of the servers': then it was ended.
        """

    async def end(self, session: str) -> None:
        """End it now; no error if it has ended already."""

    async def settle(self, session: str) -> None:
        """Bring every commit of ``session`` that was sent before to an end.

        When this returns, each of them has been applied, or never will be: one that arrives later
        is answered `Settled`. No error if the session has ended, which settles them, too.
        """

    async def read(self, vm: str) -> Versioned:
        """The value of ``vm`` and its version."""

    async def commit(
        self,
        vm: str,
        expected: int,
        value: bytes | None,
        author: str,
        wake: Collection[str],
    ) -> Reply:
        """One compare-and-set with its wake-ups, all or nothing, in one round trip.

        See `distjob.store.Store.commit`, which this is. ``expected`` is a version as it was given
        out: what else the servers compare by may be carried along in a subclass of int.
        """

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """Seconds until each of ``sessions`` ends. See `distjob.store.Store.remaining`."""

    def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        """All VMs of the namespace that have a value, some at a time, in no order."""

    async def feeds(self) -> Collection[Feed]:
        """Where to listen now. Asked at first, and again whenever a feed was cut.

        The same objects as before where nothing has changed.
        """

    async def let_go(self) -> None:
        """Give up all connections; the feeds are closed already. Sessions are not ended."""


class Feed(Protocol):
    """One subscription on one server: no thread that decides, no retry, no clock.

    Its methods are called by one caller at a time. After `close` it may be
    opened again. A feed that reads in a thread or task of its own rings the world's bell when
    something has come, and keeps it until `take`.
    """

    vital: bool
    """Wake-ups come here. Of a feed that is not, nothing is missed while it is closed."""

    async def open(self) -> bool:
        """Connect, and have the subscription confirmed. Raises `Fault`.

        Whether something that was sent before may be missed: True unless it resumes without loss.
        """

    async def take(self) -> Sequence[tuple[str, Event]] | None:
        """What has come, as (session, event); None if nothing has. Never waits for the server.

        Something may have come that is no event: then an empty sequence. Raises `Fault` if the
        subscription was cut, or does not serve any more; a feed that resumes without loss gives
        first what had come. Nothing is awaited once an event was taken out, or a caller that is
        cancelled would lose it.
        """

    async def prod(self) -> None:
        """Make the server say something, which `take` will give. Raises `Fault`."""

    def when_readable(self) -> int | None:
        """A file number that becomes readable when something comes; None: the bell is rung."""

    def pause(self) -> float:
        """Seconds after which `take` is to be called though nothing has rung; infinite: never.

        For a server that tells nobody of anything and has to be looked at.
        """

    async def close(self) -> None:
        """Let go of the connection. Never raises."""
