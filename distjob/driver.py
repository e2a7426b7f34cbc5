"""The blocking driver: runs an operation of the protocol in the caller's thread.

One lock a controller makes the steps between two effects atomic; no effect is performed under it.
An exception that an effect raises, Ctrl-C among them, is thrown into the operation, which tidies
up and lets it out again. It decides nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from distjob.errors import ClientClosed
from distjob.protocol.controller import Controller
from distjob.protocol.effects import Op
from distjob.store import Store

T = TypeVar("T")
log = logging.getLogger("distjob")


class BlockingIO:
    """Performs effects with threads' means."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def wait(self, signal: threading.Event | None, seconds: float) -> None:
        if signal is None:
            time.sleep(seconds)
        else:
            signal.wait(seconds)

    def call(self, callbacks: Sequence[Callable[[], None]]) -> None:
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("distjob: a lease's on_lost callback failed")


class Runner:
    """Runs the operations of one controller, in any thread of the process that made it."""

    def __init__(self, me: Controller, store: Store) -> None:
        self.me = me
        self.lock = threading.Lock()
        self._io = BlockingIO(store)
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """Raises ClientClosed in a child: its copy of the session is nobody's to renew."""
        if self.forked:
            raise ClientClosed(
                f"this client belongs to process {self._pid}, and this is process {os.getpid()},"
                " forked from it: jobs and session are the parent's. Connect anew after a fork"
            )

    def run(self, op: Op[T]) -> T:
        """Run ``op`` to its end and return its result."""
        self.check_process()
        reply: Any = None
        error: BaseException | None = None
        while True:
            with self.lock:
                try:
                    effect = op.send(reply) if error is None else op.throw(error)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
            reply = error = None
            try:
                reply = effect.perform(self._io)
            except BaseException as raised:  # noqa: BLE001  the operation decides what follows
                error = raised
