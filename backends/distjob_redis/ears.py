"""All subscriptions of a client, heard at once: one connection to each server with a channel.

Decides when one must be made anew: it was lost, or another server has the channel now. While some
servers still can be heard, a lost one is told as a gap, and tried again now and then; when none
can, that is an error. Knows nothing of what the messages mean.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_redis.server import Server
from distjob_redis.subscription import Subscription
from distjob_redis.topology import Place

PAUSE = 0.5
"""Seconds, at least, between two tries to reach a server that was lost while others are heard."""


class Ears:
    """Messages published to the keys of ``channels``, wherever the servers of its values are.

    `interrupt` may be called from any thread, the rest by one at a time.
    """

    def __init__(
        self,
        channels: Mapping[bytes, Place],
        quiet: float,
        *,
        sharded: bool,
        watchers: Sequence[tuple[Server, bytes]] = (),
        alarm: Callable[[], None] = lambda: None,
    ) -> None:
        self._channels = channels
        self._watchers = watchers
        self._alarm = alarm
        """Called when one of the watchers has published something."""
        self._watches: dict[Server, Subscription] = {}
        self._watch_again = 0.0
        self._quiet = quiet
        self._sharded = sharded
        self._subscriptions: list[Subscription] = []
        self._again = 0.0
        """When a channel that could not be subscribed to is tried again."""
        self._gap = False
        self._interrupted = threading.Event()
        self._poke, self._poked = socket.socketpair()
        for end in (self._poke, self._poked):
            end.settimeout(0)

    def gap(self) -> bool:
        """Whether messages may have been lost since this was asked last."""
        gap, self._gap = self._gap, False
        return gap

    def interrupt(self) -> None:
        """Make a `hear` that is under way, or else the next one, return at once."""
        self._interrupted.set()
        with contextlib.suppress(OSError):  # full: it will wake up; closed: nobody hears
            self._poke.send(b"!")

    def mend(self) -> None:
        """Subscribe to what is not subscribed to. Raises `BackendUnavailable` if all failed."""
        for one in list(self._subscriptions):
            if not self._is_right(one):
                self._drop(one)
        missing = set(self._channels).difference(*(one.channels for one in self._subscriptions))
        if not missing or (self._subscriptions and monotonic() < self._again):
            return
        begun = monotonic()
        self._again = 0.0
        if failures := self._subscribe(missing):
            # A server that hangs must not keep us from hearing the others.
            self._again = monotonic() + max(PAUSE, 5 * (monotonic() - begun))
            if not self._subscriptions:
                raise failures[0]

    def hear(self, timeout: float) -> list[bytes]:
        """Messages; after ``timeout`` seconds, an interruption or a gap perhaps none.

        Raises `BackendUnavailable` when the last connection is lost.
        """
        until = monotonic() + timeout
        self._watch()
        self.mend()
        while True:
            if messages := self._take():
                return messages
            if self._gap:
                self.mend()  # now, so that one gap is told but once
            stop = self._interrupted.is_set() or self._gap
            if stop or (left := until - monotonic()) <= 0:
                self._interrupted.clear()
                return []
            self._wait(left)
            if self._watch():
                self.mend()

    def close(self) -> None:
        """Let go of all connections."""
        for one in (*self._subscriptions, *self._watches.values()):
            one.close()
        self._subscriptions.clear()
        self._watches.clear()
        self._poke.close()
        self._poked.close()

    def _watch(self) -> bool:
        """Hear what the watchers say, as far as they can be reached: nothing rests on it."""
        alarmed = False
        for server, one in list(self._watches.items()):
            try:
                alarmed = bool(one.take()) or one.gap or alarmed
                one.gap = False
            except BackendUnavailable:
                one.close()
                del self._watches[server]
        if len(self._watches) < len(self._watchers) and monotonic() >= self._watch_again:
            begun, before = monotonic(), len(self._watches)
            for server, channel in self._watchers:
                if server not in self._watches:
                    with contextlib.suppress(BackendUnavailable):
                        made = Subscription(server, (channel,), self._quiet, sharded=False)
                        self._watches[server] = made
            self._watch_again = monotonic() + max(PAUSE, 20 * (monotonic() - begun))
            alarmed = alarmed or len(self._watches) > before
        if alarmed:
            with contextlib.suppress(BackendUnavailable):  # the next renewal asks, too
                self._alarm()
        return alarmed

    def _take(self) -> list[bytes]:
        messages: list[bytes] = []
        for one in list(self._subscriptions):
            try:
                messages += one.take()
            except BackendUnavailable:
                self._drop(one, doubt=True)
                if not self._subscriptions and not messages:
                    raise
            if one.gap:
                one.gap, self._gap = False, True
        return messages

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._poked, select.POLLIN)
        for server, one in list(self._watches.items()):
            try:
                poll.register(one.fileno(), select.POLLIN)
            except BackendUnavailable:
                one.close()
                del self._watches[server]
            else:
                seconds = min(seconds, one.due())
        for one in list(self._subscriptions):
            try:
                poll.register(one.fileno(), select.POLLIN)
            except BackendUnavailable:
                self._drop(one, doubt=True)
                return
            seconds = min(seconds, one.due())
        if self._again:
            seconds = min(seconds, max(0.0, self._again - monotonic()))
        for number, _ in poll.poll(seconds * 1000):
            if number == self._poked.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._poked.recv(4096)

    def _subscribe(self, channels: set[bytes]) -> list[BackendUnavailable]:
        """Subscribe to ``channels``, each where it is; what failed."""
        failures: list[BackendUnavailable] = []
        servers: dict[Server, set[bytes]] = {}
        for channel in channels:
            try:
                servers.setdefault(self._channels[channel].server(), set()).add(channel)
            except BackendUnavailable as error:
                failures.append(error)
        for server, those in servers.items():
            try:
                made = Subscription(server, those, self._quiet, sharded=self._sharded)
            except BackendUnavailable as error:
                self._doubt(server, those)
                failures.append(error)
            else:
                self._subscriptions.append(made)
                self._gap = True
        return failures

    def _drop(self, one: Subscription, *, doubt: bool = False) -> None:
        self._subscriptions.remove(one)
        self._gap = True
        self._again = 0.0
        one.close()
        if doubt:
            self._doubt(one.server, one.channels)

    def _doubt(self, server: Server, channels: Collection[bytes]) -> None:
        for channel in channels:
            self._channels[channel].doubt(server)

    def _is_right(self, one: Subscription) -> bool:
        try:
            return all(self._channels[channel].server() is one.server for channel in one.channels)
        except BackendUnavailable:
            return False
