"""What the protocol may ask of the world, one small value each; a driver performs them.

An operation is a generator: it yields an effect, is sent the reply (or thrown the error), and
returns its result. **The steps between two yields are atomic**: drivers run them one at a time
for each controller, so that operations share state without locks. Nothing here waits or sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from distjob.store import AsyncStore, Event, Reply, Store, Versioned, Void

T = TypeVar("T")
R = TypeVar("R")
S_co = TypeVar("S_co", bound=Store | AsyncStore, covariant=True)


class Signal(Protocol):
    """A sticky flag that an operation can wait for: threading.Event, asyncio.Event, simulated."""

    def set(self) -> None: ...

    def clear(self) -> None: ...


class Clock(Protocol):
    """``monotonic`` for deadlines, ``wall`` for people. Reading it is not an effect."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class IO(Protocol[S_co]):
    """What a driver offers to the effects: a store of its kind, and what a store has not.

    On asyncio the store's verbs, ``scan`` and ``wait`` return what has to be awaited.
    """

    @property
    def store(self) -> S_co: ...

    def scan(self) -> Scanned | Awaitable[Scanned]: ...

    def wait(self, signal: Any, seconds: float) -> Awaitable[None] | None: ...

    def call(self, callbacks: Sequence[Callable[[], None]]) -> None: ...

    def report(self, what: str, error: Exception) -> None: ...


Scanned: TypeAlias = Sequence[tuple[str, Versioned]]
Doer: TypeAlias = IO[Store | AsyncStore]
"""What performs an effect, in threads or on asyncio."""


class Effect(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """``perform`` does it, or on asyncio returns what does it when awaited."""

    def perform(self, io: Doer) -> R | Awaitable[R]:
        raise NotImplementedError


Op: TypeAlias = Generator[Effect[Any], Any, T]


def ask(effect: Effect[T]) -> Op[T]:
    """Yield ``effect`` and return its reply, typed."""
    reply: T = yield effect
    return reply


class OpenSession(Effect[str], frozen=True):
    ttl: float
    owner: str

    def perform(self, io: Doer) -> str | Awaitable[str]:
        return io.store.open_session(self.ttl, self.owner)


class KeepAlive(Effect[bool | Void], frozen=True):
    session: str

    def perform(self, io: Doer) -> bool | Void | Awaitable[bool | Void]:
        return io.store.keep_alive(self.session)


class CloseSession(Effect[None], frozen=True):
    session: str

    def perform(self, io: Doer) -> Awaitable[None] | None:
        return io.store.close_session(self.session)


class Settle(Effect[None], frozen=True):
    session: str

    def perform(self, io: Doer) -> Awaitable[None] | None:
        return io.store.settle(self.session)


class Read(Effect[Versioned], frozen=True):
    vm: str

    def perform(self, io: Doer) -> Versioned | Awaitable[Versioned]:
        return io.store.read(self.vm)


class Commit(Effect[Reply], frozen=True):
    vm: str
    expected: int
    value: bytes | None
    author: str
    wake: frozenset[str]

    def perform(self, io: Doer) -> Reply | Awaitable[Reply]:
        return io.store.commit(self.vm, self.expected, self.value, self.author, self.wake)


class Remaining(Effect[Mapping[str, float]], frozen=True):
    sessions: frozenset[str]

    def perform(self, io: Doer) -> Mapping[str, float] | Awaitable[Mapping[str, float]]:
        return io.store.remaining(self.sessions)


class Receive(Effect[Sequence[Event]], frozen=True):
    session: str
    timeout: float

    def perform(self, io: Doer) -> Sequence[Event] | Awaitable[Sequence[Event]]:
        return io.store.receive(self.session, self.timeout)


class Scan(Effect[Sequence[tuple[str, Versioned]]], frozen=True):
    def perform(
        self, io: Doer
    ) -> Sequence[tuple[str, Versioned]] | Awaitable[Sequence[tuple[str, Versioned]]]:
        return io.scan()


class Interrupt(Effect[None], frozen=True):
    """Let the hands, which may be in `Receive`, look at what has changed."""

    def perform(self, io: Doer) -> None:
        io.store.interrupt()


class Wait(Effect[None], frozen=True):
    """Until ``signal`` is set, at most ``seconds``; without a signal a pause."""

    seconds: float
    signal: Any = None

    def perform(self, io: Doer) -> Awaitable[None] | None:
        return io.wait(self.signal, self.seconds)


class Report(Effect[None], frozen=True):
    """Tell of an error that nobody expected, and that the background outlives."""

    what: str
    error: Exception

    def perform(self, io: Doer) -> None:
        io.report(self.what, self.error)


class Call(Effect[None], frozen=True):
    """The user's callbacks, outside the atomic steps."""

    callbacks: tuple[Callable[[], None], ...]

    def perform(self, io: Doer) -> None:
        io.call(self.callbacks)
