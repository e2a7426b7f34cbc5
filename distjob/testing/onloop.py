"""An asyncio store, or client, used from threads: so blocking tests are run on asyncio, too.

Each call is a task of an event loop that runs in a thread of its own; the caller waits for it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, Self, TypeVar

from distjob.aio import AsyncClient
from distjob.backend.world import now
from distjob.errors import BackendUnavailable
from distjob.store import AsyncStore, Event, Guarantees, Reply, Versioned, Void

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds that a call has to return once what it was asked of was closed."""


class LoopThread:
    """An event loop in a thread; warnings of tasks that were left behind are collected in it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.complaints: list[str] = []
        self.loop.set_exception_handler(lambda _, told: self.complaints.append(str(told)))
        self._calls: set[asyncio.Task[Any]] = set()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop", daemon=True)
        self._thread.start()

    def run(self, steps: Coroutine[Any, Any, T]) -> T:
        """Run ``steps`` as a task; if the waiting thread is interrupted, the task is cancelled."""
        if self.loop.is_closed():
            steps.close()
            raise BackendUnavailable("the event loop was closed")
        if self.gone:
            return now(steps)  # to be refused
        future = asyncio.run_coroutine_threadsafe(self._called(steps), self.loop)
        try:
            return future.result()
        except CancelledError as error:
            raise BackendUnavailable("the event loop was closed") from error
        except BaseException:
            future.cancel()
            raise

    @property
    def gone(self) -> bool:
        """Whether this is a forked child, which has no such thread."""
        return os.getpid() != self._pid

    def soon(self, call: Callable[[], object]) -> None:
        """Have ``call`` called in the loop."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(call)

    async def _called(self, steps: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await steps
        finally:
            self._calls.discard(task)

    def left(self) -> list[str]:
        """The tasks that are there, which are ended, and what was complained of.

        A call that another thread waits for has its time to come to its end.
        """
        return [*self.run(self._left()), *self.complaints]

    async def _left(self) -> list[str]:
        if others := self._calls - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=PATIENCE)
        return await _tasks()

    def close(self) -> list[str]:
        """Stop the loop; names what was `left`."""
        if self.loop.is_closed():
            return []
        left = self.left()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        return left


async def _tasks() -> list[str]:
    """The tasks that are still there after those that were done have had their turn."""
    for _ in range(3):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return [repr(task) for task in left]


class OnLoop:
    """The blocking `distjob.store.Store` made of an asyncio one, which ``connect`` opens.

    In a loop of its own, or in the one of ``thread``, which several may share.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[AsyncStore]], thread: LoopThread | None = None
    ) -> None:
        self._thread = thread or LoopThread()
        self._own = thread is None
        try:
            self.store = self._thread.run(_awaited(connect))
        except BaseException:
            if self._own:
                self._thread.close()
            raise
        self.guarantees: Guarantees = self.store.guarantees

    def open_session(self, ttl: float, owner: str) -> str:
        return self._thread.run(self.store.open_session(ttl, owner))

    def keep_alive(self, session: str) -> bool | Void:
        return self._thread.run(self.store.keep_alive(session))

    def close_session(self, session: str) -> None:
        self._thread.run(self.store.close_session(session))

    def settle(self, session: str) -> None:
        self._thread.run(self.store.settle(session))

    def read(self, vm: str) -> Versioned:
        return self._thread.run(self.store.read(vm))

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        return self._thread.run(self.store.commit(vm, expected, value, author, wake))

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        return self._thread.run(self.store.remaining(sessions))

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        return self._thread.run(self.store.receive(session, timeout))

    def interrupt(self) -> None:
        self._thread.soon(self.store.interrupt)

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        pages = self.store.scan()
        while (found := self._thread.run(_next(pages))) is not None:
            yield found

    def close(self) -> None:
        if self._thread.loop.is_closed():
            return
        self._thread.run(self.store.close())
        if self._own:
            left = self._thread.close()
            assert not left, left


class Proxy:
    """An object of a loop, used from threads: what is asked of it, or called, is done in the loop.

    Leases, and whatever else is entered by ``async with``, can be entered by ``with``.
    """

    def __init__(self, thread: LoopThread, thing: Any) -> None:
        self._thread = thread
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        if inspect.isfunction(getattr(type(self._thing), name, None)):  # no need to ask the loop
            found = getattr(self._thing, name)
        else:
            found = self._thread.run(_get(self._thing, name))
        if not callable(found):
            return found

        def call(*args: Any, **named: Any) -> Any:
            result = self._thread.run(_call(found, args, named))
            return Proxy(self._thread, result) if hasattr(result, "__aenter__") else result

        return call

    def __getitem__(self, key: Any) -> Any:
        return Proxy(self._thread, self._thing[key])

    def __enter__(self) -> Self:
        self._thread.run(self._thing.__aenter__())
        return self

    def __exit__(self, *raised: Any) -> Any:
        return self._thread.run(self._thing.__aexit__(*raised))

    def __repr__(self) -> str:
        return repr(self._thing)


class ProxyClient(Proxy):
    """The blocking `distjob.Client` made of an asyncio one, in a loop of its own."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncStore]], **settings: Any) -> None:
        thread = LoopThread()
        try:
            super().__init__(thread, thread.run(_opened(connect, settings)))
        except BaseException:
            thread.close()
            raise

    def close(self) -> None:
        """As `Client.close`; then nothing may be left in the loop."""
        self._thread.run(self._thing.close())
        if self._thread.gone:
            return
        left = self._thread.left()
        assert not left, left

    def __exit__(self, *raised: Any) -> None:
        """End the loop, too: what the client made can't be asked any more."""
        if self._thread.loop.is_closed():
            return
        try:
            self.close()
        finally:
            self._thread.close()


async def _opened(
    connect: Callable[[], Awaitable[AsyncStore]], settings: dict[str, Any]
) -> AsyncClient:
    store = await connect()
    try:
        client = AsyncClient(store, **settings)
    except BaseException:
        await store.close()
        raise
    return await client


async def _get(thing: Any, name: str) -> Any:
    return getattr(thing, name)


async def _call(method: Any, args: Any, named: Any) -> Any:
    result = method(*args, **named)
    return await result if inspect.isawaitable(result) else result


async def _awaited(connect: Callable[[], Awaitable[T]]) -> T:
    return await connect()


async def _next(pages: Any) -> tuple[str, Versioned] | None:
    found: tuple[str, Versioned] | None = await anext(pages, None)
    return found
