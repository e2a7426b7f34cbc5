"""What the store stands on, in both worlds: what blocks (blocking.py), what awaits (aio.py).

Everything above is written once, as coroutines that await these; see `distjob.both`. Here is what
the links promise; `distjob_redis.server.Server` is the one that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from distjob.both import Lock

if TYPE_CHECKING:
    from distjob_redis.server import Server

Address: TypeAlias = tuple[str, int]
Ask: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]
"""Sends a command, and returns its reply."""
Then: TypeAlias = Callable[[Address, Ask], Coroutine[Any, Any, None]]
"""Looks at a connection that was just made, to this address; an error ends it."""


class Line(Protocol):
    """A connection that subscribes. Raises `RedisError` or `OSError` when it is lost."""

    async def subscribe(self, channels: Collection[bytes], *, sharded: bool) -> None:
        """Connect, and ask for ``channels``; what confirms them is read."""

    async def ping(self) -> None:
        """Ask for an answer, which is read."""

    async def read(self, timeout: float) -> tuple[str, bytes] | None:
        """Kind and content of what has come; None if that is nothing. Takes it without a wait."""

    def is_cut(self) -> bool:
        """Whether it is known to have no connection any more."""

    async def close(self) -> None: ...


class Bell(Protocol):
    """Wakes the one who waits for lines."""

    def ring(self) -> None:
        """Make a `wait` that is under way, or else the next one, return at once."""

    async def wait(self, lines: Collection[Any], seconds: float) -> None:
        """Return when one of ``lines`` has something to be read, or may have, or later."""

    def close(self) -> None: ...


class Turn(Protocol):
    """A lock that one may give up waiting for."""

    async def take(self, timeout: float | None) -> bool:
        """Whether it was free within ``timeout`` seconds; None: however long it takes."""

    def leave(self) -> None: ...


class Driver(NamedTuple):
    """redis-py's classes of one world."""

    client: Any
    cluster: Any
    sentinel_pool: Any
    pool: Any
    connection: Any
    tls_connection: Any
    unix_connection: Any
    retry: Any


class World(NamedTuple):
    """The links of one world."""

    driver: Driver
    server: Callable[..., Server]
    """(client, owned=whether it is ours to close) -> the server that it leads to."""
    greeting: Callable[[Any, Then], Any]
    """A ``redis_connect_func`` that does as the user's, if there is one, and then as we say."""
    lock: Callable[[], Lock]
    turn: Callable[[], Turn]
    bell: Callable[[], Bell]
