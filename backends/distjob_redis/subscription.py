"""The channels of a client on one server: read by one at a time, and never silently cut.

redis-py reconnects and subscribes again by itself, at moments of its choosing; what was published
meanwhile is lost. The server confirms each subscription, so every confirmation after the first is
taken for a gap. A connection that has died without a word is found by asking it now and then.
Knows nothing of what the messages mean, nor of other servers.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from redis.exceptions import RedisError

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_redis.answers import Lost
from distjob_redis.links import Line
from distjob_redis.server import Server

# redis-py gives this logger a handler on stderr, unless it finds that it exists.
logging.getLogger("push_response")


class Subscription:
    """Messages published to ``channels``, on a ``line`` to ``server`` that is its own."""

    def __init__(
        self, server: Server, channels: Collection[bytes], quiet: float, line: Line
    ) -> None:
        self.server = server
        self.channels = frozenset(channels)
        self.line = line
        self.gap = False
        """Whether messages may have been lost since this was set to False last."""
        self._quiet = quiet
        """Seconds of silence after which the connection is asked, and given up if still silent."""
        self._heard = monotonic()
        self._asked = False
        self._confirmed = 0
        self._taken: list[bytes] = []

    async def open(self, *, sharded: bool) -> None:
        """Connect, and wait until each channel is confirmed. Raises `BackendUnavailable`.

        ``sharded``: they are those of the server's own slots (SSUBSCRIBE, Redis 7).
        """
        intact = False
        try:
            await self._subscribe(monotonic() + max(1.0, self._quiet), sharded=sharded)
            intact = True
        except (RedisError, OSError) as error:
            raise self.server.error(error) from error
        finally:
            if not intact:
                await self.close()
        self.gap = False

    async def take(self) -> list[bytes]:
        """All messages that have arrived; never waits.

        Raises `BackendUnavailable` when the connection is lost, or a channel has moved away: then
        this is of no use any more.
        """
        try:
            while (message := await self._read(0.0)) is not None:
                if message:
                    self._taken.append(message)
            await self._look_after()
        except (RedisError, OSError) as error:
            raise self.server.error(error) from error
        messages, self._taken = self._taken, []
        return messages

    def due(self) -> float:
        """Seconds until it should be looked after, though it be silent."""
        return max(0.0, self._heard + self._quiet - monotonic())

    async def close(self) -> None:
        """Let go of the connection."""
        await self.line.close()

    async def _subscribe(self, until: float, *, sharded: bool) -> None:
        await self.line.subscribe(self.channels, sharded=sharded)
        while self._confirmed < len(self.channels):
            if (left := until - monotonic()) <= 0:
                msg = f"Redis at {self.server.name} does not confirm a subscription"
                raise BackendUnavailable(msg)
            if message := await self._read(left):
                self._taken.append(message)

    async def _read(self, timeout: float) -> bytes | None:
        """A message; empty: something else has come; None: nothing."""
        read = await self.line.read(timeout)
        if read is None:
            return None
        self._heard = monotonic()
        self._asked = False
        kind, data = read
        if kind in ("subscribe", "ssubscribe"):
            self._confirmed += 1
            self.gap = True
        elif kind == "sunsubscribe":
            msg = f"Redis at {self.server.name} has a channel of ours no more: its slot has moved"
            raise Lost(msg)
        return data if kind in ("message", "smessage") else b""

    async def _look_after(self) -> None:
        """Ask a silent connection whether it lives; give it up if it does not answer."""
        now = monotonic()
        if now - self._heard < self._quiet:
            return
        if self._asked:
            msg = f"Redis at {self.server.name} has been silent for {2 * self._quiet:.1f} seconds"
            raise Lost(msg)
        await self.line.ping()
        self._asked = True
        self._heard = now  # the answer has as long as the silence had
