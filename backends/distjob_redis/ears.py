"""All subscriptions of a client, heard at once: one connection to each server with a channel.

Decides when one must be made anew: it was lost, or another server has the channel now. While some
servers still can be heard, a lost one is told as a gap, and tried again now and then; when none
can, that is an error. Knows nothing of what the messages mean.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_redis.links import World
from distjob_redis.server import Server
from distjob_redis.subscription import Subscription
from distjob_redis.topology import Place

PAUSE = 0.5
"""Seconds, at least, between two tries to reach a server that was lost while others are heard."""


class Ears:
    """Messages published to the keys of ``channels``, wherever the servers of its values are.

    `interrupt` may be called from any thread, the rest by one at a time. Nothing is lost with one
    who was cancelled: what was heard stays here until it is returned.
    """

    def __init__(
        self,
        channels: Mapping[bytes, Place],
        quiet: float,
        world: World,
        *,
        sharded: bool,
        watchers: Sequence[tuple[Server, bytes]],
        alarm: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._channels = channels
        self._watchers = watchers
        self._alarm = alarm
        """Called when one of the watchers has published something."""
        self._alarmed = False
        """Whether one has, and that was not done yet."""
        self._watches: dict[Server, Subscription] = {}
        self._watch_again = 0.0
        self._quiet = quiet
        self._sharded = sharded
        self._subscriptions: list[Subscription] = []
        self._again = 0.0
        """When a channel that could not be subscribed to is tried again."""
        self._gap = False
        self._heard: list[bytes] = []
        self._interrupted = threading.Event()
        self._bell = world.bell()

    def gap(self) -> bool:
        """Whether messages may have been lost since this was asked last."""
        gap, self._gap = self._gap, False
        return gap

    def interrupt(self) -> None:
        """Make a `hear` that is under way, or else the next one, return at once."""
        self._interrupted.set()
        self._bell.ring()

    async def mend(self) -> None:
        """Subscribe to what is not subscribed to. Raises `BackendUnavailable` if all failed."""
        for one in list(self._subscriptions):
            if not await self._is_right(one):
                await self._drop(one)
        missing = set(self._channels).difference(*(one.channels for one in self._subscriptions))
        if not missing or (self._subscriptions and monotonic() < self._again):
            return
        begun = monotonic()
        self._again = 0.0
        if failures := await self._subscribe(missing):
            # A server that hangs must not keep us from hearing the others.
            self._again = monotonic() + max(PAUSE, 5 * (monotonic() - begun))
            if not self._subscriptions:
                raise failures[0]

    async def hear(self, timeout: float) -> list[bytes]:
        """Messages; after ``timeout`` seconds, an interruption or a gap perhaps none.

        Raises `BackendUnavailable` when the last connection is lost.
        """
        until = monotonic() + timeout
        await self._watch()
        await self.mend()
        while True:
            await self._take()
            if self._heard:
                messages, self._heard = self._heard, []
                return messages
            if self._gap:
                await self.mend()  # now, so that one gap is told but once
            stop = self._interrupted.is_set() or self._gap
            if stop or (left := until - monotonic()) <= 0:
                self._interrupted.clear()
                return []
            await self._wait(left)
            if await self._watch():
                await self.mend()

    async def close(self) -> None:
        """Let go of all connections."""
        async with contextlib.AsyncExitStack() as closing:  # all of them, whatever happens to one
            for one in (*self._subscriptions, *self._watches.values()):
                closing.push_async_callback(one.close)
            self._subscriptions.clear()
            self._watches.clear()
            self._bell.close()

    async def _watch(self) -> bool:
        """Hear what the watchers say, as far as they can be reached: nothing rests on it."""
        for server, one in list(self._watches.items()):
            try:
                self._alarmed = bool(await one.take()) or one.gap or self._alarmed
                one.gap = False
            except BackendUnavailable:
                del self._watches[server]
                await one.close()
        if len(self._watches) < len(self._watchers) and monotonic() >= self._watch_again:
            begun, before = monotonic(), len(self._watches)
            for server, channel in self._watchers:
                if server not in self._watches:
                    with contextlib.suppress(BackendUnavailable):
                        self._watches[server] = await self._made(server, (channel,))
            self._watch_again = monotonic() + max(PAUSE, 20 * (monotonic() - begun))
            self._alarmed = self._alarmed or len(self._watches) > before
        alarmed = self._alarmed
        if alarmed:
            with contextlib.suppress(BackendUnavailable):  # the next renewal asks, too
                await self._alarm()
            self._alarmed = False
        return alarmed

    async def _take(self) -> None:
        """Hear what has come. Raises `BackendUnavailable` if that was the last connection."""
        for one in list(self._subscriptions):
            try:
                self._heard += await one.take()
            except BackendUnavailable:
                await self._drop(one, doubt=True)
                if not self._subscriptions and not self._heard:
                    raise
            if one.gap:
                one.gap, self._gap = False, True

    async def _wait(self, seconds: float) -> None:
        for server, one in list(self._watches.items()):
            if one.line.is_cut():
                del self._watches[server]
                await one.close()
        for one in list(self._subscriptions):
            if one.line.is_cut():
                await self._drop(one, doubt=True)
                return
        heard = (*self._subscriptions, *self._watches.values())
        seconds = min(seconds, *(one.due() for one in heard)) if heard else seconds
        if self._again:
            seconds = min(seconds, max(0.0, self._again - monotonic()))
        await self._bell.wait([one.line for one in heard], seconds)

    async def _subscribe(self, channels: set[bytes]) -> list[BackendUnavailable]:
        """Subscribe to ``channels``, each where it is; what failed."""
        failures: list[BackendUnavailable] = []
        servers: dict[Server, set[bytes]] = {}
        for channel in channels:
            try:
                servers.setdefault(await self._channels[channel].server(), set()).add(channel)
            except BackendUnavailable as error:
                failures.append(error)
        for server, those in servers.items():
            try:
                made = await self._made(server, those, sharded=self._sharded)
            except BackendUnavailable as error:
                self._doubt(server, those)
                failures.append(error)
            else:
                self._subscriptions.append(made)
                self._gap = True
        return failures

    async def _made(
        self, server: Server, channels: Collection[bytes], *, sharded: bool = False
    ) -> Subscription:
        made = Subscription(server, channels, self._quiet, server.line(self._bell.ring))
        await made.open(sharded=sharded)
        return made

    async def _drop(self, one: Subscription, *, doubt: bool = False) -> None:
        self._subscriptions.remove(one)
        self._gap = True
        self._again = 0.0
        if doubt:
            self._doubt(one.server, one.channels)
        await one.close()

    def _doubt(self, server: Server, channels: Collection[bytes]) -> None:
        for channel in channels:
            self._channels[channel].doubt(server)

    async def _is_right(self, one: Subscription) -> bool:
        try:
            for channel in one.channels:
                if await self._channels[channel].server() is not one.server:
                    return False
        except BackendUnavailable:
            return False
        return True
