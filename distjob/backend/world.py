"""How it is waited: the one thing that differs between threads, tasks of a loop and simulated time.

Everything in this package, and every source, is written once, as coroutines that await nothing but
a `World`. In `distjob.backend.threads` such a coroutine never suspends, and is run to its end in
the caller's thread (`now`); in `distjob.backend.tasks` it suspends the caller's task; in
`distjob.testing` time itself is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import Any, Literal, Protocol, Self, TypeVar

T = TypeVar("T")


def now(steps: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result."""
    try:
        steps.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    steps.close()
    raise AssertionError("a coroutine of the blocking world has suspended")


class Lock(Protocol):
    """Held by one at a time, also over an await; in an ``async with``, or by `take`."""

    async def take(self, seconds: float | None = None) -> bool:
        """Whether it came free within ``seconds``; None: however long it takes; 0: at once."""

    def leave(self) -> None:
        """Let the next one have it."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *raised: object) -> None: ...


class Bell(Protocol):
    """Wakes one who waits. Rung while nobody does, it ends the next wait at once."""

    def ring(self) -> None:
        """From any thread. No error if it is closed."""

    async def wait(self, seconds: float, files: Collection[int] = ()) -> None:
        """Until it is rung, or one of ``files`` is readable; at most ``seconds``.

        Cancelled, it loses no ring.
        """

    def close(self) -> None: ...


class Running(Protocol):
    """Something that was spawned."""

    async def stop(self, seconds: float) -> None:
        """Return when it has ended, to which it was told otherwise, or after ``seconds``.

        A task is cancelled. Called by what is running itself, returns at once.
        """


class World(Protocol):
    """How the one store waits that this was made for."""

    bell: Bell
    """Of the store: rung by its feeds, waited for by whoever receives."""

    @property
    def kind(self) -> Literal["threads", "tasks", "simulated"]:
        """For a source that has to do a thing in another way in each."""

    def check(self) -> None:
        """Raises `BackendUnavailable` if the caller is not in this world: in another event loop."""

    def monotonic(self) -> float:
        """Seconds, for deadlines."""

    def lock(self) -> Lock: ...

    def spawn(self, steps: Coroutine[Any, Any, None], name: str) -> Running:
        """Run ``steps`` beside the caller. They outlive their errors, or are reported."""

    async def aside(
        self, call: Callable[[], T], undo: Callable[[], object] | None = None, lane: str = ""
    ) -> T:
        """What ``call`` returns, which blocks; ``undo`` follows it if nobody waits any more.

        Calls of one ``lane`` are carried out one by one, in the order in which they were made,
        those also that nobody waits for any more; without one, at once.
        """

    async def answered(self, start: Callable[[Callable[[], None]], object], seconds: float) -> bool:
        """Call ``start`` with a callback, and wait until that is called, by whatever thread.

        False if it was not within ``seconds``; what comes later is nobody's.
        """

    def close(self) -> None:
        """Let go of the bell and the lanes; what was put in a lane is still carried out."""
