"""What an asyncio client does in the background: its tasks, and how they come to their end.

As `distjob.drive.background`, they do not know the client, which is closed by them if it is
garbage. The end of the loop cancels them: they end the session first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from distjob.drive import forgotten
from distjob.drive.blocking import BACKGROUND, log
from distjob.drive.tasks import AsyncRunner
from distjob.errors import DistjobError
from distjob.protocol.closing import close
from distjob.protocol.hands import make_calls
from distjob.store import AsyncStore


class AsyncBackground:
    """The tasks of one client."""

    def __init__(self, runner: AsyncRunner, store: AsyncStore) -> None:
        self._runner = runner
        self._store = store
        self._closing: asyncio.Task[None] | None = None
        self._tasks = [asyncio.create_task(self._keep(name), name=name) for name in BACKGROUND]
        forgotten.watch(runner.me, None)

    async def close(self) -> None:
        """End the tasks, the session with all that it holds, and the store."""
        if self._closing is not None and self._closing.done():
            return
        if self._closing is None:
            self._runner.me.close()
            self._closing = asyncio.create_task(self._close(), name="distjob-close")
        # Whoever is cancelled while it waits leaves the closing to go on.
        await asyncio.shield(self._closing)

    def drop(self) -> bool:
        """Have a client closed that is garbage; whether it was open. In any thread."""
        me, loop = self._runner.me, self._runner.loop
        if self._runner.forked or me.closing or loop is None or loop.is_closed():
            return False
        me.dropped = True
        loop.call_soon_threadsafe(me.holdings.due.set)
        return True

    async def _close(self) -> None:
        mine = asyncio.current_task()
        self._store.interrupt()
        await asyncio.wait([task for task in self._tasks if task is not mine])
        await self._end("this client was closed", gone=False)

    async def _end(self, why: str, *, gone: bool) -> None:
        me = self._runner.me
        forgotten.forget(me)
        try:
            await self._runner.run(close(me, why, "session" if gone else "closed"))
        finally:
            await self._runner.run(make_calls(me))
            me.over = True
            await self._store.close()

    async def _keep(self, name: str) -> None:
        """A task. It must never die silently: leases depend on it."""
        me = self._runner.me
        try:
            await self._runner.run(BACKGROUND[name](me))
        except asyncio.CancelledError:  # as the loop's end does
            if not me.closing:
                me.close()
                await self._end_anyway(self._end(f"the task {name} was cancelled", gone=True))
            raise
        except BaseException:  # noqa: BLE001  whatever it is: asyncio would keep it to itself
            log.exception("distjob: %s has died; all leases of this client are lost", name)
            if me.session:
                me.lose(me.session, f"the task {name} has died, see the log")
            me.close()
            await self._runner.run(make_calls(me))
        if me.dropped and not me.closing:
            me.close()
            await self._end_anyway(self._close())

    async def _end_anyway(self, closing: Coroutine[Any, Any, None]) -> None:
        try:
            await closing
        except DistjobError as error:
            log.warning("distjob: closing a client that nobody closed has failed: %s", error)
