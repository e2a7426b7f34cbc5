"""A connection of redis-py's on asyncio, taken over: written to at will, read by one task.

redis-py makes it, with the user's settings, TLS and credentials, logs in, and gets it back in the
end; in between it is not asked. Knows what neither commands nor replies mean.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,  # noqa: A004
    InvalidResponse,
    RedisError,
)

try:
    import hiredis
except ImportError:  # then redis-py's own parser reads, more slowly
    hiredis = None  # type: ignore[assignment]

_PUSHES: Any = getattr(hiredis, "PushNotification", ())
_NOTHING = object()
_READ = 1 << 16


class Wire:
    """Use `open`; then `run`, until it raises; then `close`."""

    def __init__(self, pool: Any, connection: Any) -> None:
        self._pool = pool
        self._connection = connection
        self._reader = connection._reader  # noqa: SLF001  it has no public name
        self._writer = connection._writer  # noqa: SLF001
        # A descriptor of its own, as asyncio lends its socket to nobody who reads.
        number = os.dup(self._writer.get_extra_info("socket").fileno())
        self._peephole = socket.socket(fileno=number)
        self._peephole.settimeout(0.0)
        self._failure: Exception | None = None
        self.timeout: float | None = connection.socket_timeout
        """Seconds that the user's client waits for a reply; None: for ever."""

    @classmethod
    async def open(cls, pool: Any) -> Wire:
        """A connection of ``pool``'s. Raises `RedisError` or `OSError`.

        If that fails, or is cancelled, redis-py may put one back that is connected and was not
        greeted: none that lies in the pool is used again.
        """
        try:
            connection = await pool.get_connection()
        except (RedisError, OSError):
            raise
        except Exception as error:  # of the user's: credentials that could not be had, and the like
            await pool.disconnect(inuse_connections=False)
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        except BaseException:
            await pool.disconnect(inuse_connections=False)
            raise
        try:
            return cls(pool, connection)
        except OSError:  # it has just ended, or no descriptor is left
            await connection.disconnect(nowait=True)
            await pool.release(connection)
            raise

    def write(self, data: bytes) -> None:
        """Send ``data``, soon; nothing if the connection has ended, of which `run` tells."""
        if not self.is_closing():
            self._writer.write(data)

    def is_closing(self) -> bool:
        """Whether the connection has ended, though `run` may not have come to see it."""
        closing: bool = self._writer.transport.is_closing()
        return closing

    def stirs(self) -> bool:
        """Whether there is something to be read that has not been: perhaps the end."""
        try:
            self._peephole.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:  # the end
            return True
        return True

    def is_outdated(self) -> bool:
        """Whether redis-py wants it made anew: for new credentials, or as a server moves."""
        told = self._connection
        return getattr(told, "_should_reconnect", False) or told._re_auth_token is not None  # noqa: SLF001

    def fail(self, error: Exception) -> None:
        """Make `run` raise ``error``, if nothing else did before."""
        self._failure = self._failure or error
        self._writer.transport.abort()

    async def run(self, take: Callable[[Any], None], *, pushes: bool = False) -> None:
        """Give each reply to ``take``; one that is an error as an instance of it.

        ``pushes``: what RESP3 sends unasked, too. Ends by raising `RedisError` or `OSError`.
        """
        try:
            if hasattr(self._connection._parser, "_reader"):  # noqa: SLF001  it uses hiredis
                await self._run(take, pushes=pushes)
            else:
                await self._run_slowly(take, pushes=pushes)
        except (ConnectionError, OSError) as error:
            if self._failure is not None:
                raise self._failure from error
            raise

    async def close(self) -> None:
        """End the connection; what redis-py has of it is redis-py's again."""
        self._peephole.close()
        self._writer.transport.abort()
        await self._connection.disconnect(nowait=True)
        self._connection.set_re_auth_token(None)  # the next one logs in anyway
        await self._pool.release(self._connection)

    async def _run(self, take: Callable[[Any], None], *, pushes: bool) -> None:
        parser = self._connection._parser  # noqa: SLF001
        if parser._reader.has_data():  # noqa: SLF001
            raise ConnectionError("something came before it was asked for")
        replies = hiredis.Reader(
            protocolError=InvalidResponse, replyError=parser.parse_error, notEnoughData=_NOTHING
        )
        while data := await self._reader.read(_READ):
            replies.feed(data)
            while (reply := replies.gets()) is not _NOTHING:
                if pushes or not isinstance(reply, _PUSHES):
                    take(reply)
        raise ConnectionError("the server closed the connection")

    async def _run_slowly(self, take: Callable[[Any], None], *, pushes: bool) -> None:
        parser = self._connection._parser  # noqa: SLF001
        more = {"push_request": pushes} if hasattr(parser, "handle_push_response") else {}
        while True:
            try:
                take(await parser.read_response(disable_decoding=True, **more))
            except BusyLoadingError as answer:
                take(answer)
