"""What the protocol may ask of the world, one small value each; a driver performs them.

An operation is a generator: it yields an effect, is sent the reply (or thrown the error), and
returns its result. **The steps between two yields are atomic**: drivers run them one at a time
for each controller, so that operations share state without locks. Nothing here waits or sends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from distjob.store import Event, Reply, Versioned

T = TypeVar("T")
R = TypeVar("R")


class Signal(Protocol):
    """A sticky flag that an operation can wait for: threading.Event, asyncio.Event, simulated."""

    def set(self) -> None: ...

    def clear(self) -> None: ...


class Clock(Protocol):
    """``monotonic`` for deadlines, ``wall`` for people. Reading it is not an effect."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class IO(Protocol):
    """What a driver offers to the effects, beside the store.

    On asyncio the store's verbs, ``scan`` and ``wait`` return what has to be awaited.
    """

    @property
    def store(self) -> Any:
        """A `distjob.store.Store`, or an `AsyncStore`."""

    def scan(self) -> Sequence[tuple[str, Versioned]]: ...

    def wait(self, signal: Any, seconds: float) -> Any: ...

    def call(self, callbacks: Sequence[Callable[[], None]]) -> None: ...


class Effect(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """``perform`` does it, or on asyncio returns what does it when awaited."""

    def perform(self, io: IO) -> Any:
        raise NotImplementedError


Op: TypeAlias = Generator[Effect[Any], Any, T]


def ask(effect: Effect[T]) -> Op[T]:
    """Yield ``effect`` and return its reply, typed."""
    reply: T = yield effect
    return reply


class OpenSession(Effect[str], frozen=True):
    ttl: float
    owner: str

    def perform(self, io: IO) -> Any:
        return io.store.open_session(self.ttl, self.owner)


class KeepAlive(Effect[bool], frozen=True):
    session: str

    def perform(self, io: IO) -> Any:
        return io.store.keep_alive(self.session)


class CloseSession(Effect[None], frozen=True):
    session: str

    def perform(self, io: IO) -> Any:
        return io.store.close_session(self.session)


class Settle(Effect[None], frozen=True):
    session: str

    def perform(self, io: IO) -> Any:
        return io.store.settle(self.session)


class Read(Effect[Versioned], frozen=True):
    vm: str

    def perform(self, io: IO) -> Any:
        return io.store.read(self.vm)


class Commit(Effect[Reply], frozen=True):
    vm: str
    expected: int
    value: bytes | None
    author: str
    wake: frozenset[str]

    def perform(self, io: IO) -> Any:
        return io.store.commit(self.vm, self.expected, self.value, self.author, self.wake)


class Remaining(Effect[Mapping[str, float]], frozen=True):
    sessions: frozenset[str]

    def perform(self, io: IO) -> Any:
        return io.store.remaining(self.sessions)


class Receive(Effect[Sequence[Event]], frozen=True):
    session: str
    timeout: float

    def perform(self, io: IO) -> Any:
        return io.store.receive(self.session, self.timeout)


class Scan(Effect[Sequence[tuple[str, Versioned]]], frozen=True):
    def perform(self, io: IO) -> Any:
        return io.scan()


class Interrupt(Effect[None], frozen=True):
    """Let the keeper, which may be in `Receive`, look at what has changed."""

    def perform(self, io: IO) -> Any:
        io.store.interrupt()


class Wait(Effect[None], frozen=True):
    """Until ``signal`` is set, at most ``seconds``; without a signal a pause."""

    seconds: float
    signal: Any = None

    def perform(self, io: IO) -> Any:
        return io.wait(self.signal, self.seconds)


class Call(Effect[None], frozen=True):
    """The user's callbacks, outside the atomic steps."""

    callbacks: tuple[Callable[[], None], ...]

    def perform(self, io: IO) -> Any:
        io.call(self.callbacks)
