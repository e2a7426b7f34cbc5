"""The channels of a client on one server: read by one thread, and never silently cut.

redis-py reconnects and subscribes again by itself, at moments of its choosing; what was published
meanwhile is lost. The server confirms each subscription, so every confirmation after the first is
taken for a gap. A connection that has died without a word is found by asking it now and then.
Knows nothing of what the messages mean, nor of other servers.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_redis.answers import Lost
from distjob_redis.server import Server

if TYPE_CHECKING:
    from redis.client import PubSub

# redis-py gives this logger a handler on stderr, unless it finds that it exists.
logging.getLogger("push_response")


class Subscription:
    """Messages published to ``channels``. One thread at a time; the caller sees to that.

    Connects, and waits until the server has confirmed each. Raises `BackendUnavailable`.
    """

    def __init__(
        self, server: Server, channels: Collection[bytes], quiet: float, *, sharded: bool
    ) -> None:
        self.server = server
        self.channels = frozenset(channels)
        self.gap = False
        """Whether messages may have been lost since this was set to False last."""
        self._quiet = quiet
        """Seconds of silence after which the connection is asked, and given up if still silent."""
        self._sharded = sharded
        """Whether the channels are those of the server's own slots (SSUBSCRIBE, Redis 7)."""
        self._heard = monotonic()
        self._asked = False
        self._confirmed = 0
        self._early: list[bytes] = []
        self._pubsub: PubSub = server.pubsub()
        intact = False
        try:
            self._subscribe(monotonic() + max(1.0, quiet))
            intact = True
        except (RedisError, OSError) as error:
            raise server.error(error) from error
        finally:
            if not intact:
                self.close()
        self.gap = False

    def take(self) -> list[bytes]:
        """All messages that have arrived; never waits.

        Raises `BackendUnavailable` when the connection is lost, or a channel has moved away: then
        this is of no use any more.
        """
        messages, self._early = self._early, []
        try:
            while (message := self._read(0.0)) is not None:
                if message:
                    messages.append(message)
            self._look_after()
        except (RedisError, OSError) as error:
            raise self.server.error(error) from error
        return messages

    def fileno(self) -> int:
        """What becomes readable when something arrives. Raises `BackendUnavailable`."""
        connection: Any = self._pubsub.connection
        # Private, but there is no public way to wait for several connections at once.
        sock = connection and connection._sock  # noqa: SLF001
        if sock is None:
            msg = f"Redis at {self.server.name}: the subscription's connection was closed"
            raise Lost(msg)
        number: int = sock.fileno()
        return number

    def due(self) -> float:
        """Seconds until it should be looked after, though it be silent."""
        return max(0.0, self._heard + self._quiet - monotonic())

    def close(self) -> None:
        """Let go of the connection."""
        self._pubsub.close()

    def _subscribe(self, until: float) -> None:
        if self._sharded:
            for channel in self.channels:  # of different slots: a command for each
                self._pubsub.ssubscribe(channel)
        else:
            self._pubsub.subscribe(*self.channels)
        while self._confirmed < len(self.channels):
            if (left := until - monotonic()) <= 0:
                msg = f"Redis at {self.server.name} does not confirm a subscription"
                raise BackendUnavailable(msg)
            if message := self._read(left):
                self._early.append(message)

    def _read(self, timeout: float) -> bytes | None:
        """A message; empty: something else has come; None: nothing."""
        message: Any = self._pubsub.get_message(timeout=timeout)
        if message is None:
            return None
        self._heard = monotonic()
        self._asked = False
        kind = message["type"]
        if kind in ("subscribe", "ssubscribe"):
            self._confirmed += 1
            self.gap = True
        elif kind == "sunsubscribe":
            msg = f"Redis at {self.server.name} has a channel of ours no more: its slot has moved"
            raise Lost(msg)
        data: bytes = message["data"] if kind in ("message", "smessage") else b""
        return data

    def _look_after(self) -> None:
        """Ask a silent connection whether it lives; give it up if it does not answer."""
        now = monotonic()
        if now - self._heard < self._quiet:
            return
        if self._asked:
            msg = f"Redis at {self.server.name} has been silent for {2 * self._quiet:.1f} seconds"
            raise Lost(msg)
        self._pubsub.ping()
        self._asked = True
        self._heard = now  # the answer has as long as the silence had
