"""The world of blocking stores: coroutines that never suspend, in the threads of their callers."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Literal, Self, TypeVar

from distjob import clock
from distjob.backend.world import Bell, Lock, Running, now

T = TypeVar("T")


class Threads:
    """`distjob.backend.world.World` of threads: any may use it."""

    kind: Literal["threads"] = "threads"

    def __init__(self) -> None:
        self.bell: Bell = ThreadBell()

    def check(self) -> None:
        """Every thread is in this world."""

    def monotonic(self) -> float:
        return clock.monotonic()

    def lock(self) -> Lock:
        return ThreadLock()

    def spawn(self, steps: Coroutine[Any, Any, None], name: str) -> Running:
        return _Thread(steps, name)

    async def aside(
        self,
        call: Callable[[], T],
        undo: Callable[[], object] | None = None,  # noqa: ARG002  who blocks can't leave
        lane: str = "",  # noqa: ARG002
    ) -> T:
        return call()

    async def answered(self, start: Callable[[Callable[[], None]], object], seconds: float) -> bool:
        done = threading.Event()
        start(done.set)
        return done.wait(max(0.0, seconds))

    def close(self) -> None:
        self.bell.close()


class ThreadLock:
    """`distjob.backend.world.Lock` that blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def take(self, seconds: float | None = None) -> bool:
        return self._lock.acquire(timeout=-1 if seconds is None else max(0.0, seconds))

    def leave(self) -> None:
        self._lock.release()

    async def __aenter__(self) -> Self:
        self._lock.acquire()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._lock.release()


class ThreadBell:
    """`distjob.backend.world.Bell` on a selector, by a socket that is made when it is needed.

    `selectors`, since libraries that make threads green have no `select.poll`.
    """

    def __init__(self) -> None:
        self._rung = threading.Event()
        self._selector: selectors.BaseSelector | None = None
        self._poke: socket.socket | None = None
        self._poked: socket.socket | None = None
        self._closed = False

    def ring(self) -> None:
        self._rung.set()
        # After the flag: whoever waits looks at it once the socket is there to be poked.
        if (poke := self._poke) is not None:
            with contextlib.suppress(OSError):  # full: it will wake up; closed: nobody waits
                poke.send(b"!")

    async def wait(self, seconds: float, files: Collection[int] = ()) -> None:
        if files and not self._closed:
            self._select(max(0.0, seconds), files)
        else:
            self._rung.wait(max(0.0, seconds))
        self._rung.clear()

    def close(self) -> None:
        self._closed = True
        self.ring()
        for made in (self._selector, self._poke, self._poked):
            if made is not None:
                made.close()

    def _select(self, seconds: float, files: Collection[int]) -> None:
        selector = self._selector or self._begin()
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        try:
            if self._rung.is_set():
                return
            for key, _ in selector.select(seconds):
                if key.data is self and self._poked is not None:
                    with contextlib.suppress(BlockingIOError):
                        self._poked.recv(4096)
        finally:
            for file in files:  # its number may be another connection's the next time
                selector.unregister(file)

    def _begin(self) -> selectors.BaseSelector:
        self._selector = selectors.DefaultSelector()
        self._poked, poke = socket.socketpair()
        for end in (poke, self._poked):
            end.settimeout(0)
        self._selector.register(self._poked, selectors.EVENT_READ, self)
        self._poke = poke
        return self._selector


class _Thread:
    def __init__(self, steps: Coroutine[Any, Any, None], name: str) -> None:
        self._thread = threading.Thread(target=now, args=(steps,), name=name, daemon=True)
        self._thread.start()

    async def stop(self, seconds: float) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)
