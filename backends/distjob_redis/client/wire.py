"""Connections of redis-py's, taken over: the one file that uses its private names, and why.

A pipeline on asyncio by public names gave 0.73, 0.61 and 0.71 of the pairs a second with 10, 100
and 1,000 tasks: redis-py waits for each write, and its parser is asked for one reply at a time. So
`Wire` writes to the connection's stream, and reads it by a hiredis parser of its own. And a thread
that waits for a subscription reads its socket itself. Each name has a canary in
tests/unit/test_private_names.py; where one is missing, `PlainWire` serves by public names, and
`socket_of` knows no socket.

redis-py makes the connection, with the user's settings, TLS and credentials, logs in, and gets it
back in the end; in between it is not asked. Knows what neither commands nor replies mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from redis.exceptions import (
    ConnectionError,  # noqa: A004
    InvalidResponse,
    RedisError,
    ResponseError,
)

from distjob_redis.client.server import Command, Greet

hiredis: Any = None
with contextlib.suppress(ImportError):  # else `PlainWire` serves, more slowly
    import hiredis

_PUSHES: Any = getattr(hiredis, "PushNotification", ())
_NOTHING = object()
_READ = 1 << 16
_LONG = 3600.0
"""Seconds after which `PlainWire` asks redis-py again for a reply."""


def written(command: Command) -> bytes:
    """A command of bytes, str and int, in RESP."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


packed: Callable[[Command], bytes] = written if hiredis is None else hiredis.pack_command
"""The same, by hiredis where it is there."""


def socket_of(connection: Any) -> int | None:
    """The socket's number; None if redis-py does not show it, or it has none."""
    try:
        number: int = connection._sock.fileno()  # noqa: SLF001
    except AttributeError:
        return None
    return number


async def wire(pool: Any, address: tuple[str, int], greet: Greet | None) -> PlainWire:
    """A new connection of ``pool``'s. Raises `RedisError`, `OSError`, or the `Fault` of ``greet``.

    If that fails, or is cancelled, redis-py may put one back that is connected and was not
    greeted: none that lies in the pool is used again.
    """
    connection = None
    try:
        connection = await pool.get_connection()
        if greet is not None:

            async def ask(*command: Any) -> Any:
                await connection.send_packed_command(packed(command))
                return await connection.read_response(disable_decoding=True)

            await greet(address, ask)
        if hiredis is None or (shown := _shown(connection)) is None:
            return PlainWire(pool, connection)
        return Wire(pool, connection, *shown)
    except BaseException as error:
        if connection is not None:
            await connection.disconnect(nowait=True)
            await pool.release(connection)
            raise
        if isinstance(error, RedisError | OSError):
            raise
        await pool.disconnect(inuse_connections=False)
        if not isinstance(error, Exception):
            raise
        # Of a recipe of the user's: credentials that could not be had, and the like.
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


class PlainWire:
    """A connection on asyncio by public names: `write` at will, `run` until it raises, `close`."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        self._connection = connection
        self._failure: Exception | None = None
        self._unsent: list[bytes] = []
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.timeout: float | None = connection.socket_timeout
        """Seconds that a reply is waited for; None: for ever."""

    def write(self, data: bytes) -> None:
        """Send ``data``, soon; nothing if the connection has ended, of which `run` tells."""
        self._unsent.append(data)
        self._news.set()

    def is_closing(self) -> bool:
        """Whether the connection has ended, though `run` may not have come to see it."""
        return self._failure is not None or not self._connection.is_connected

    def stirs(self) -> bool:
        """Whether there is something to be read that has not been: perhaps the end."""
        return False

    def is_outdated(self) -> bool:
        """Whether redis-py wants it made anew: for new credentials, or as a server moves."""
        moves: Callable[[], bool] = getattr(self._connection, "should_reconnect", bool)
        try:
            return moves() or self._connection._re_auth_token is not None  # noqa: SLF001
        except AttributeError:
            return False

    def fail(self, error: Exception) -> None:
        """Make `run` raise ``error``, if nothing else did before."""
        self._failure = self._failure or error
        for task in self._tasks:
            task.cancel()

    async def run(self, take: Callable[[Any], None], *, pushes: bool = False) -> None:
        """Give each reply to ``take``; one that is an error as an instance of it.

        ``pushes``: what RESP3 sends unasked, too. Ends by raising `RedisError` or `OSError`.
        """
        self._tasks = [
            asyncio.create_task(steps) for steps in (self._send(), self._read(take, pushes=pushes))
        ]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        failures = [task.exception() for task in self._tasks if not task.cancelled()]
        raise self._failure or next(filter(None, failures))

    async def close(self) -> None:
        """End the connection; what redis-py has of it is redis-py's again."""
        await self._connection.disconnect(nowait=True)
        self._connection.set_re_auth_token(None)  # the next one logs in anyway
        await self._pool.release(self._connection)

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            data, self._unsent = b"".join(self._unsent), []
            await self._connection.send_packed_command(data, check_health=False)

    async def _read(self, take: Callable[[Any], None], *, pushes: bool) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                reply = await self._connection.read_response(
                    disable_decoding=True,
                    timeout=_LONG,
                    disconnect_on_error=False,
                    push_request=pushes,
                )
            except ResponseError as error:
                reply = error
            if reply is not None or clock() - begun < _LONG:  # else nothing has come
                take(reply)


def _shown(connection: Any) -> tuple[Any, Any, Any] | None:
    """The streams of ``connection``, and its parser, if that is hiredis's; else None."""
    try:
        parser = connection._parser  # noqa: SLF001
        if parser._reader.has_data():  # noqa: SLF001
            raise ConnectionError("something came before it was asked for")
        return connection._reader, connection._writer, parser  # noqa: SLF001
    except AttributeError:
        return None


class Wire(PlainWire):
    """The same on the connection's own stream."""

    def __init__(self, pool: Any, connection: Any, reader: Any, writer: Any, parser: Any) -> None:
        super().__init__(pool, connection)
        self._reader = reader
        self._writer = writer
        self._parser = parser
        # A descriptor of its own, as asyncio lends its socket to nobody who reads.
        number = os.dup(self._writer.get_extra_info("socket").fileno())
        self._peephole = socket.socket(fileno=number)
        self._peephole.settimeout(0.0)

    def write(self, data: bytes) -> None:
        if not self.is_closing():
            self._writer.write(data)

    def is_closing(self) -> bool:
        closing: bool = self._writer.transport.is_closing()
        return closing

    def stirs(self) -> bool:
        try:
            self._peephole.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:  # the end
            return True
        return True

    def fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._writer.transport.abort()

    async def run(self, take: Callable[[Any], None], *, pushes: bool = False) -> None:
        replies = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=self._parser.parse_error,
            notEnoughData=_NOTHING,
        )
        try:
            while data := await self._reader.read(_READ):
                replies.feed(data)
                while (reply := replies.gets()) is not _NOTHING:
                    if pushes or not isinstance(reply, _PUSHES):
                        take(reply)
            raise ConnectionError("the server closed the connection")
        except (ConnectionError, OSError) as error:
            if self._failure is not None:
                raise self._failure from error
            raise

    async def close(self) -> None:
        self._peephole.close()
        self._writer.transport.abort()
        await super().close()
