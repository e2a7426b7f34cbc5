"""The asyncio driver: runs an operation of the protocol in the caller's task.

The loop itself makes the steps between two effects atomic: it runs one at a time. An exception that
an effect raises, a cancellation among them, is thrown into the operation, which tidies up and lets
it out again. It decides nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from distjob.drive.blocking import call_back, check_fork, deliver, report, translated
from distjob.errors import ClientClosed
from distjob.hooks import Hook
from distjob.protocol.effects import Op
from distjob.protocol.state import ClientState
from distjob.store import AsyncStore, Versioned

T = TypeVar("T")


class Signal:
    """A sticky flag that tasks of one loop wait for."""

    __slots__ = ("_set", "_waiting")

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[asyncio.Future[None]] = []

    def set(self) -> None:
        self._set = True
        for waiting in self._waiting:
            _wake(waiting)

    def clear(self) -> None:
        self._set = False

    async def wait(self, seconds: float) -> None:
        """Until it is set, at most ``seconds``; the other tasks have their turn in any case."""
        if self._set or seconds <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, waiting)
        self._waiting.append(waiting)
        try:
            await waiting
        finally:
            timer.cancel()
            self._waiting.remove(waiting)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class AsyncIO:
    """Performs effects with asyncio's means: what takes time is returned to be awaited."""

    def __init__(self, store: AsyncStore) -> None:
        self.store = store

    def scan(self) -> Any:
        return self._scan()

    async def _scan(self) -> list[tuple[str, Versioned]]:
        return [found async for found in self.store.scan()]

    def wait(self, signal: Signal | None, seconds: float) -> Any:
        return asyncio.sleep(max(0.0, seconds)) if signal is None else signal.wait(seconds)

    def call(self, callbacks: Sequence[Callable[[], None]]) -> None:
        call_back(callbacks, asyncio.CancelledError)

    def report(self, what: str, error: Exception) -> None:
        report(what, error)


class AsyncRunner:
    """Runs the operations of one controller, in tasks of the loop that ``loop`` names."""

    def __init__(self, me: ClientState, store: AsyncStore, hooks: Sequence[Hook] = ()) -> None:
        self.me = me
        self.hooks = hooks
        self.loop: asyncio.AbstractEventLoop | None = None
        """Set when the client is opened."""
        self._io = AsyncIO(store)
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """Raises ClientClosed elsewhere than in the loop, and the process, it was opened in."""
        check_fork(self._pid)
        if self.loop is None:
            raise ClientClosed("this client is not open: use 'async with', or await it")
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if not here:
            raise ClientClosed("this client belongs to another event loop: connect one in each")

    async def run(self, op: Op[T]) -> T:
        """Run ``op`` to its end and return its result."""
        self.check_process()
        held = self.me.holdings
        reply: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = op.send(reply) if error is None else op.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            finally:
                if held.told:
                    self.tell()
            reply = error = None
            try:
                reply = effect.perform(self._io)
                if isinstance(reply, Awaitable):
                    reply = await reply
            except GeneratorExit:  # this task is given up, without another chance to await
                op.close()
                raise
            except BaseException as raised:  # noqa: BLE001  the operation decides what follows
                error = translated(self.me, effect, raised)

    def step(self, op: Op[T]) -> T:
        """Run an ``op`` that waits for nothing."""
        self.check_process()
        try:
            op.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            self.tell()
        op.close()
        raise AssertionError("this operation waits for something")

    def tell(self) -> None:
        """Tell the hooks what has happened."""
        told, self.me.holdings.told = self.me.holdings.told, []
        deliver(self.hooks, told)
