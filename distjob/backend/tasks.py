"""The world of stores on asyncio: coroutines that suspend, in the tasks of one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self, TypeVar

from distjob import clock
from distjob.backend.world import Bell, Lock, Running
from distjob.errors import BackendUnavailable

T = TypeVar("T")


class Tasks:
    """`distjob.backend.world.World` of the loop that runs when it is made."""

    kind: Literal["tasks"] = "tasks"

    def __init__(self) -> None:
        """Raises `BackendUnavailable` if none runs, as in a child that was forked under one."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError as error:
            msg = "no event loop runs here; a process that was forked under one has to run its own"
            raise BackendUnavailable(msg) from error
        self.bell: Bell = TaskBell()
        self._lanes: dict[str, ThreadPoolExecutor] = {}

    def check(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            msg = "this store belongs to another event loop; connect a new one in this one"
            raise BackendUnavailable(msg)

    def monotonic(self) -> float:
        return clock.monotonic()

    def lock(self) -> Lock:
        return TaskLock()

    def spawn(self, steps: Coroutine[Any, Any, None], name: str) -> Running:
        return _Task(self._loop.create_task(steps, name=name))

    async def aside(
        self, call: Callable[[], T], undo: Callable[[], object] | None = None, lane: str = ""
    ) -> T:
        """A lane is a thread; without one, ``call`` has a thread that ends with it."""
        thread = self._lanes.get(lane) or ThreadPoolExecutor(1, f"distjob-{lane or 'aside'}")
        if lane:
            self._lanes[lane] = thread
        try:
            return await self._loop.run_in_executor(thread, call)
        except asyncio.CancelledError:
            if undo is not None:
                thread.submit(undo)
            raise
        finally:
            if not lane:
                thread.shutdown(wait=False)

    async def answered(self, start: Callable[[Callable[[], None]], object], seconds: float) -> bool:
        over: asyncio.Future[None] = self._loop.create_future()
        start(lambda: _soon(self._loop, _end, over))
        await asyncio.wait((over,), timeout=max(0.0, seconds))
        return over.done()

    def close(self) -> None:
        self.bell.close()
        for thread in self._lanes.values():
            thread.shutdown(wait=False)


class TaskLock:
    """`distjob.backend.world.Lock` that suspends; it is fair."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, seconds: float | None = None) -> bool:
        if seconds is not None and seconds <= 0 and self._lock.locked():
            return False
        try:
            async with asyncio.timeout(seconds):
                await self._lock.acquire()
        except TimeoutError:
            return False
        return True

    def leave(self) -> None:
        self._lock.release()

    async def __aenter__(self) -> Self:
        await self._lock.acquire()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._lock.release()


class TaskBell:
    """`distjob.backend.world.Bell` of the loop that runs when it is made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._rung = asyncio.Event()

    def ring(self) -> None:
        if threading.get_ident() == self._thread:
            self._rung.set()
        else:
            _soon(self._loop, self._rung.set)

    async def wait(self, seconds: float, files: Collection[int] = ()) -> None:
        for file in files:
            self._loop.add_reader(file, self._rung.set)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._rung.wait()
        except TimeoutError:
            return
        finally:
            for file in files:
                self._loop.remove_reader(file)
        self._rung.clear()

    def close(self) -> None:
        self._rung.set()


class _Task:
    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task
        task.add_done_callback(_report)

    async def stop(self, seconds: float) -> None:
        if self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=seconds)


def _report(task: asyncio.Task[None]) -> None:
    """As soon as it has happened, as of a thread: asyncio does so when nobody knows the task."""
    if not task.cancelled() and (error := task.exception()) is not None:
        told = {"message": f"{task.get_name()} has died", "exception": error, "task": task}
        task.get_loop().call_exception_handler(told)


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: Any) -> None:
    """Have ``call`` called in the loop, if that still runs. Any thread."""
    with contextlib.suppress(RuntimeError):  # it is closed: nobody waits
        loop.call_soon_threadsafe(call, *arguments)


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
