"""A server that is asked, and subscribed to, in the caller's thread."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Any

from redis.exceptions import RedisError, ResponseError

from distjob.backend.world import World
from distjob_redis.client.server import Command, Server
from distjob_redis.client.wire import packed, socket_of
from distjob_redis.feed import Channel, Ear

POLL = 0.01
"""Seconds between looks at a subscription whose socket redis-py does not show."""


class BlockingServer(Server):
    """Callable from any thread. Connections stay at hand, the one used last being taken first.

    redis-py's pool makes and ends them only: what it looks at each time would take a third of a
    command's time.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._kept: deque[Any] = deque()

    async def exchange(self, commands: Sequence[Command], *, change: bool = False) -> list[Any]:
        connection = await self._take()
        intact = False
        try:
            connection.send_packed_command([b"".join(map(packed, commands))])
            replies = [_reply(connection) for _ in commands]
            intact = True
        except (RedisError, OSError) as error:
            raise self.fault(error, change=change) from error
        finally:
            if intact:
                self._kept.append(connection)
            else:  # what may still arrive must not answer the next command
                self.give_up(connection)
        return self.replies(replies)

    def channel(self, ear: Ear, world: World, command: Command) -> Channel:
        return BlockingChannel(self, ear, world, command)

    async def let_go(self) -> None:
        with contextlib.suppress(IndexError):  # another thread may be quicker
            while True:
                self.give_up(self._kept.pop())

    async def close(self) -> None:
        await self.let_go()
        self._pool.disconnect()

    async def connected(self) -> Any:
        """A new connection. Raises `RedisFault`."""
        connection = None
        intact = False
        try:
            connection = self._pool.get_connection()

            async def ask(*command: Any) -> Any:
                connection.send_packed_command([packed(command)])
                return connection.read_response(disable_decoding=True)

            if self._greet is not None:
                await self._greet(self.address, ask)
            intact = True
        except (RedisError, OSError) as error:
            raise self.fault(error) from error
        except Exception as error:
            if connection is not None:
                raise
            # Of a recipe of the user's: credentials that could not be had, and the like.
            raise self.fault(ConnectionError(f"{type(error).__name__}: {error}")) from error
        finally:
            if connection is not None and not intact:
                self.give_up(connection)
        return connection

    def give_up(self, connection: Any) -> None:
        """End one that `connected` has made."""
        connection.disconnect()
        self._pool.release(connection)

    async def _take(self) -> Any:
        with contextlib.suppress(IndexError):  # then there is none, or no more
            while not _is_usable(connection := self._kept.pop()):
                self.give_up(connection)
            return connection
        return await self.connected()


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


def _is_usable(connection: Any) -> bool:
    """Whether nothing waits to be read, which would be the end; it logs in anew if it is time."""
    try:
        if connection.can_read(timeout=0):
            return False
        connection.re_auth()  # does nothing unless redis-py was given new credentials
    except (RedisError, OSError):
        return False
    return True


class BlockingChannel(Channel):
    """A channel whose socket is read by whoever takes."""

    def __init__(self, server: BlockingServer, *given: Any) -> None:
        super().__init__(*given)
        self._server = server
        self._connection: Any = None
        self._failure: RedisError | OSError | None = None
        """Why nothing comes any more: redis-py would connect anew, and not subscribe."""

    async def prod(self) -> None:
        self._send(("PING",))

    def when_readable(self) -> int | None:
        return socket_of(self._connection)

    def pause(self) -> float:
        if self._failure is not None:
            return 0.0
        return inf if self.when_readable() is not None else POLL

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        self._messages = []
        if connection is not None:
            self._server.give_up(connection)

    async def _connect(self) -> None:
        self._connection, self._failure = await self._server.connected(), None
        self._send(self._command)

    def _read(self) -> list[Any]:
        come: list[Any] = []
        if (connection := self._connection) is None:
            return come
        try:
            while self._failure is None and connection.can_read(timeout=0):
                come.append(connection.read_response(disable_decoding=True, push_request=True))
        except (RedisError, OSError) as error:
            self._failure = error
        if self._failure is not None and not come:  # else the next time
            raise self._server.fault(self._failure) from self._failure
        return come

    def _send(self, command: Command) -> None:
        if (connection := self._connection) is None:
            return
        try:
            connection.send_packed_command([packed(command)], check_health=False)
        except (RedisError, OSError) as error:
            raise self._server.fault(error) from error
