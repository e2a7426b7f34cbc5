"""The links that block: a server asked from any thread, a subscription, and waiting for several.

Takes connections from redis-py's pool and drives them itself. The coroutines here never suspend.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from distjob.both import ThreadLock, now
from distjob.clock import monotonic
from distjob_redis.links import Driver, Then, World
from distjob_redis.server import Server

if TYPE_CHECKING:
    from redis.client import PubSub

FRESH = 0.5
"""Seconds for which a connection is trusted without the pool's look at it."""
MOST_KEPT = 4


class BlockingServer(Server):
    """A connection is kept at hand between commands that follow each other closely.

    A pool that checks it each time takes a third of a command's time.
    """

    def __init__(self, client: redis.Redis, *, owned: bool = False) -> None:
        super().__init__(client, owned=owned)
        self._kept: deque[tuple[float, Any]] = deque()

    async def exchange(self, commands: Sequence[tuple[Any, ...]], *, change: bool) -> list[Any]:
        """See `Server.exchange`."""
        connection = self._take()
        complete = False
        try:
            if len(commands) == 1:
                connection.send_command(*commands[0])
            else:
                connection.send_packed_command(connection.pack_commands(commands))
            replies = [_reply(connection) for _ in commands]
            complete = True
        except (RedisError, OSError) as error:
            raise self.error(error, unanswered=change) from error
        finally:
            if complete and len(self._kept) < MOST_KEPT:
                self._kept.append((monotonic(), connection))
            else:
                if not complete:  # what may still arrive must not answer the next command
                    connection.disconnect()
                self._pool.release(connection)
        return replies

    def line(self, ring: Callable[[], None]) -> PubSubLine:  # noqa: ARG002  the bell looks itself
        """See `Server.line`."""
        return PubSubLine(self.client)

    async def let_go(self) -> None:
        """See `Server.let_go`."""
        self._give_back()
        self._pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """See `Server.close`."""
        self._give_back()
        if self._owned:
            self._pool.disconnect()

    def _give_back(self) -> None:
        while self._kept:
            self._pool.release(self._kept.pop()[1])

    def _take(self) -> Any:
        """The connection used last, or one that the pool has made or looked after."""
        while self._kept:
            try:
                used, connection = self._kept.pop()
            except IndexError:  # another thread was quicker
                break
            if monotonic() - used < FRESH and _is_silent(connection):
                return connection
            self._pool.release(connection)
        try:
            return self._pool.get_connection()
        except (RedisError, OSError) as error:
            raise self.error(error) from error
        except Exception as error:  # of the user's: credentials that could not be had, and the like
            failure = ConnectionError(f"{type(error).__name__}: {error}")
            raise self.error(failure) from error


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _is_silent(connection: Any) -> bool:
    """Whether nothing waits to be read; if something does, it is the end of the connection."""
    try:
        if not connection.can_read(timeout=0):
            return True
    except (RedisError, OSError):
        pass
    connection.disconnect()
    return False


class PubSubLine:
    """`Line` by redis-py, which subscribes anew by itself if the user's client is made so."""

    def __init__(self, client: redis.Redis) -> None:
        self._pubsub: PubSub = client.pubsub()  # type: ignore[no-untyped-call]

    async def subscribe(self, channels: Collection[bytes], *, sharded: bool) -> None:
        """See `Line.subscribe`."""
        if sharded:
            for channel in channels:  # of different slots: a command for each
                self._pubsub.ssubscribe(channel)
        else:
            self._pubsub.subscribe(*channels)

    async def ping(self) -> None:
        """See `Line.ping`."""
        self._pubsub.ping()

    async def read(self, timeout: float) -> tuple[str, bytes] | None:
        """See `Line.read`."""
        message: Any = self._pubsub.get_message(timeout=timeout)
        if message is None:
            return None
        data = message["data"]
        return message["type"], data if isinstance(data, bytes) else b""

    def is_cut(self) -> bool:
        """See `Line.is_cut`."""
        return self.socket is None

    async def close(self) -> None:
        """See `Line.close`."""
        self._pubsub.close()

    @property
    def socket(self) -> Any:
        """What becomes readable when something arrives; None: there is no connection."""
        connection: Any = self._pubsub.connection
        # Private, but there is no public way to wait for several connections at once.
        return connection and connection._sock  # noqa: SLF001


def _poller() -> selectors.BaseSelector:
    """By poll, which takes no descriptor of its own; where eventlet has removed it, eventlet's."""
    kind: type[selectors.BaseSelector] = getattr(
        selectors, "PollSelector", selectors.DefaultSelector
    )
    return kind()


class PollBell:
    """`Bell` that may be rung from any thread."""

    def __init__(self) -> None:
        self._poke, self._poked = socket.socketpair()
        for end in (self._poke, self._poked):
            end.settimeout(0)
        self._poller = _poller()
        self._poller.register(self._poked, selectors.EVENT_READ)
        self._heeded = set[Any]()
        """The lines' sockets that the poller knows."""

    def ring(self) -> None:
        """See `Bell.ring`."""
        with contextlib.suppress(OSError):  # full: it will wake up; closed: nobody hears
            self._poke.send(b"!")

    async def wait(self, lines: Collection[PubSubLine], seconds: float) -> None:
        """See `Bell.wait`."""
        sockets = {line.socket for line in lines}
        if None in sockets:
            return
        if sockets != self._heeded:
            self._heed(sockets)
        for key, _ in self._poller.select(seconds):
            if key.fileobj is self._poked:
                with contextlib.suppress(BlockingIOError):
                    self._poked.recv(4096)

    def _heed(self, sockets: set[Any]) -> None:
        """Those that are gone first: a new one may have got the number of an old one."""
        for one in self._heeded - sockets:
            self._heeded.remove(one)
            self._poller.unregister(one)
        for one in sockets - self._heeded:
            self._poller.register(one, selectors.EVENT_READ)
            self._heeded.add(one)

    def close(self) -> None:
        """See `Bell.close`."""
        self._poller.close()
        self._poke.close()
        self._poked.close()


class ThreadTurn:
    """`Turn` of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def take(self, timeout: float | None) -> bool:
        """See `Turn.take`."""
        return self._lock.acquire(timeout=-1 if timeout is None else timeout)

    def leave(self) -> None:
        """See `Turn.leave`."""
        self._lock.release()

    def is_taken(self) -> bool:
        """Whether somebody has it."""
        return self._lock.locked()


def greeting(greet: Callable[[Any], object] | None, then: Then) -> Callable[[Any], None]:
    """See `World.greeting`."""

    def on_connect(connection: Any) -> None:
        if greet is None:
            connection.on_connect()
        else:
            greet(connection)

        async def ask(*command: Any) -> Any:
            connection.send_command(*command)
            return connection.read_response()

        now(then((connection.host, connection.port), ask))

    return on_connect


THREADS = World(
    driver=Driver(
        client=redis.Redis,
        cluster=redis.RedisCluster,
        sentinel_pool=SentinelConnectionPool,
        pool=redis.ConnectionPool,
        connection=redis.Connection,
        tls_connection=redis.SSLConnection,
        unix_connection=redis.UnixDomainSocketConnection,
        retry=Retry,
    ),
    server=BlockingServer,
    greeting=greeting,
    lock=ThreadLock,
    turn=ThreadTurn,
    bell=PollBell,
)
