"""The one channel of a client: read by one thread, and never silently cut.

redis-py reconnects and subscribes again by itself, at moments of its choosing; what was published
meanwhile is lost. The server confirms each subscription, so every confirmation after the first is
taken for a gap. A connection that has died without a word is found by asking it now and then.
Knows nothing of what the messages mean.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_redis.server import Server

if TYPE_CHECKING:
    import redis
    from redis.client import PubSub

# redis-py gives this logger a handler on stderr, unless it finds that it exists.
logging.getLogger("push_response")


class Subscription:
    """Messages published to ``channel``. One thread at a time; the caller sees to that."""

    def __init__(self, client: redis.Redis, server: Server, channel: bytes, quiet: float) -> None:
        self._connect: Callable[[], PubSub] = client.pubsub
        self._server = server
        self._channel = channel
        self._quiet = quiet
        """Seconds of silence after which the connection is asked, and given up if still silent."""
        self._pubsub: PubSub | None = None
        self._heard = 0.0
        self._asked = False
        self._gap = False

    @property
    def alive(self) -> bool:
        """Whether the server has confirmed the subscription, and nothing was heard otherwise."""
        return self._pubsub is not None

    def subscribe(self) -> None:
        """Connect, and wait until the server has confirmed. Raises `BackendUnavailable`."""
        self._pubsub = self._connect()
        self._gap = False
        try:
            self._pubsub.subscribe(self._channel)
            until = monotonic() + max(1.0, self._quiet)
            while not self._gap:
                if (left := until - monotonic()) <= 0:
                    msg = f"Redis at {self._server.name} does not confirm a subscription"
                    raise BackendUnavailable(msg)
                self._read(self._pubsub, left)
        except (RedisError, OSError) as error:
            raise self._server.error(error) from error
        finally:
            if not self._gap:
                self.close()
        self._gap = False

    def next(self, timeout: float) -> bytes | None:
        """The next message, or None after ``timeout`` seconds, or sooner.

        Raises `BackendUnavailable` when the connection is lost; it is `alive` no more.
        """
        if self._pubsub is None:
            msg = f"Redis at {self._server.name}: not subscribed"
            raise BackendUnavailable(msg)
        intact = False
        try:
            due = self._heard + self._quiet - monotonic()
            message = self._read(self._pubsub, max(0.0, min(timeout, due)))
            self._look_after(self._pubsub)
            intact = True
        except (RedisError, OSError) as error:
            raise self._server.error(error) from error
        finally:
            if not intact:
                self.close()
        return message

    def gap(self) -> bool:
        """Whether messages may have been lost since this was asked last."""
        gap, self._gap = self._gap, False
        return gap

    def close(self) -> None:
        """Let go of the connection."""
        if self._pubsub is not None:
            self._pubsub.close()
            self._pubsub = None

    def _read(self, pubsub: PubSub, timeout: float) -> bytes | None:
        message = pubsub.get_message(timeout=timeout)
        if message is None:
            return None
        self._heard = monotonic()
        self._asked = False
        if message["type"] == "subscribe":
            self._gap = True
        return message["data"] if message["type"] == "message" else None

    def _look_after(self, pubsub: PubSub) -> None:
        """Ask a silent connection whether it lives; give it up if it does not answer."""
        now = monotonic()
        if now - self._heard < self._quiet:
            return
        if self._asked:
            msg = f"Redis at {self._server.name} has been silent for {2 * self._quiet:.1f} seconds"
            raise BackendUnavailable(msg)
        pubsub.ping()
        self._asked = True
        self._heard = now  # the answer has as long as the silence had
