"""Cancels a task at the k-th thing it awaits of its client: a verb of the store, or a wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from distjob.aio import AsyncClient
from distjob.store import AsyncStore

VERBS = ("read", "commit", "remaining", "receive", "keep_alive")


class Cancelling:
    """``store``, which counts what ``victim`` awaits, and cancels it at the k-th."""

    def __init__(self, store: AsyncStore) -> None:
        self.guarantees = store.guarantees
        self._store = store
        self.k = 0
        self.after = False
        """Cancel it when the answer is there already."""
        self.victim: asyncio.Task[Any] | None = None

    def count_waits_of(self, client: AsyncClient) -> None:
        """Waits for signals, too, that no verb is asked for."""
        io: Any = client._runner._io
        wait = io.wait
        io.wait = lambda signal, seconds: self._counted(wait(signal, seconds))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return (lambda *asked: self._counted(found(*asked))) if name in VERBS else found

    async def _counted(self, call: Awaitable[Any]) -> Any:
        if asyncio.current_task() is not self.victim:
            return await call
        self.k -= 1
        if self.k == 0 and not self.after:
            self.victim.cancel()
        answer = await call
        if self.k == 0 and self.after:
            self.victim.cancel()
            await asyncio.sleep(0)
        return answer


async def cancel_at_each_step(
    work: Callable[[AsyncClient], Any],
    other: AsyncClient,
    connect: Callable[[], Awaitable[AsyncStore]],
    *,
    after: bool,
    in_the_way: Callable[[], Awaitable[Callable[[], Awaitable[None]]]] | None = None,
    ttl: float = 1.0,
) -> int:
    """``work`` again and again, cancelled at the 1st step, the 2nd, ... until it comes to its end.

    After each, nothing may be left of it, and its client must work. ``in_the_way`` makes it wait,
    and returns what lets it in. Returns how many steps there were.
    """
    k = cancelled = 0
    while cancelled == k:
        k += 1
        store = Cancelling(await connect())
        async with AsyncClient(store, ttl=ttl) as jobs:
            let_in = await in_the_way() if in_the_way else None
            store.k, store.after = k, after
            store.count_waits_of(jobs)
            store.victim = victim = asyncio.create_task(work(jobs))
            if let_in:
                while not victim.done() and not (await other.status("vm")).waiters:
                    await asyncio.sleep(0.001)
                await let_in()
            try:
                await victim
            except asyncio.CancelledError:
                cancelled += 1
            await _idle(other)
            assert not jobs._me.waiters
            assert not jobs._me.holdings.by_vm
            while jobs._me.turns.taken():  # its background task is tidying up
                await asyncio.sleep(0.001)
            lease = await jobs.begin("vm", "modify")
            await lease.end()
    return cancelled


async def _idle(client: AsyncClient) -> None:
    """Until nothing is held or waited for: what is done in the background has no event."""
    async with asyncio.timeout(20):
        while await client.list():
            await asyncio.sleep(0.001)
