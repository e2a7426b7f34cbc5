"""The one client that looks at the store, for all browsers.

It looks every so often while somebody watches, seldom while nobody does, and rests after each look
for at least as long as that took: so its load is bounded however many VMs, or browsers, there are.
A store that is away ends no watch: it says so, and tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from distjob import clock
from distjob.aio import AsyncClient, connect
from distjob.config import Settings
from distjob.errors import BackendUnavailable, ClientClosed, RecordError
from distjob.serve.picture import Picture

log = logging.getLogger("distjob.serve")

SELDOM = 5.0
"""Seconds between looks while nobody watches: for the strips, for metrics and readiness."""
BEAT = 5.0
"""Seconds after which a browser is told something, though nothing has changed."""
STALE = 15.0
"""Seconds without a look that succeeded, after which the server is not ready."""


class Watcher:
    """Looks, and tells who watches. Used in one event loop."""

    def __init__(self, settings: Settings, every: float) -> None:
        """``every``: seconds between two looks while somebody watches."""
        self.picture = Picture()
        self.client: AsyncClient | None = None
        self.watching = 0
        """How many streams there are."""
        self.looks = 0
        self.took = 0.0
        """Seconds of the last look."""
        self._settings = settings
        self._every = every
        self._looked_at = self._tried_at = float("-inf")
        self._asked = asyncio.Event()
        self._turn = asyncio.Event()
        self._closing = False

    async def run(self) -> None:
        """Look until cancelled. Raises ConfigError."""
        while True:
            try:
                async with await connect(self._settings) as client:
                    self.client = client
                    while True:
                        await self._look(client)
                        await self._rest()
            except (BackendUnavailable, ClientClosed) as error:
                self._failed(str(error))
                self._tell()
            finally:
                self.client = None
            await self._rest()

    def close(self) -> None:
        """End all streams."""
        self._closing = True
        self._tell()

    @property
    def ready(self) -> bool:
        """Whether what is shown is what the store says now."""
        age = clock.monotonic() - self._looked_at
        return self.picture.seen is not None and not self.picture.trouble and age <= STALE

    def look_soon(self) -> None:
        """Something is known to have changed."""
        self._asked.set()

    async def fresh(self) -> Picture:
        """The picture, which is no older than it is for somebody who watches."""
        if clock.monotonic() - self._tried_at > self._every:
            turn = self._turn
            self.look_soon()
            await turn.wait()
        return self.picture

    async def stream(self) -> AsyncIterator[bytes]:
        """The whole picture, then what changes, each as JSON; nothing new every `BEAT`."""
        with self._watched():
            await self.fresh()
            revision, sent = 0, float("-inf")
            while not self._closing:
                turn, now = self._turn, clock.monotonic()
                if self.picture.revision != revision or now - sent >= BEAT or not revision:
                    json = self.picture.cut(revision, clock.wall())
                    revision, sent = self.picture.revision, now
                    yield json
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT):
                        await turn.wait()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self.watching += 1
        try:
            yield
        finally:
            self.watching -= 1

    async def _look(self, client: AsyncClient) -> None:
        started = clock.monotonic()
        try:
            found = await client.list()
        except (BackendUnavailable, RecordError) as error:
            self._failed(str(error))
        else:
            if self.picture.trouble:
                log.warning("the store can be read again")
            self.picture.see(found, clock.wall())
            self._looked_at = clock.monotonic()
        self.looks += 1
        self.took = clock.monotonic() - started
        self._tell()

    def _failed(self, why: str) -> None:
        if not self.picture.trouble:
            log.warning("the store can't be read: %s", why)
        self.picture.fail(why, clock.wall())

    def _tell(self) -> None:
        self._tried_at = clock.monotonic()
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    async def _rest(self) -> None:
        short = max(self._every, self.took)
        await asyncio.sleep(short)
        if not self.watching:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, SELDOM - short)):
                    await self._asked.wait()
        self._asked.clear()
