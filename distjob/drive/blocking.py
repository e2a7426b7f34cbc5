"""The blocking driver: runs an operation of the protocol in the caller's thread.

One lock a controller makes the steps between two effects atomic; no effect is performed under it.
An exception that an effect raises, Ctrl-C among them, is thrown into the operation, which tidies
up and lets it out again. It decides nothing.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from distjob.errors import BackendUnavailable, ClientClosed
from distjob.hooks import Event, Hook, StoreFailed
from distjob.hooks.logs import warn
from distjob.protocol.effects import Effect, Op
from distjob.protocol.hands import call_users, work
from distjob.protocol.heart import beat
from distjob.protocol.state import CLOSED, ClientState
from distjob.store import Store, Versioned

T = TypeVar("T")
log = logging.getLogger("distjob")

BACKGROUND: dict[str, Callable[[ClientState], Op[None]]] = {
    "distjob-session": beat,
    "distjob-chores": work,
    "distjob-calls": call_users,
}
"""What a client does in the background, each in a thread or task of its own, by its name."""


class BlockingIO:
    """Performs effects with threads' means."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def scan(self) -> Sequence[tuple[str, Versioned]]:
        return list(self.store.scan())

    def wait(self, signal: threading.Event | None, seconds: float) -> None:
        if signal is None:
            time.sleep(seconds)
        else:
            signal.wait(seconds)

    def call(self, callbacks: Sequence[Callable[[], None]]) -> None:
        call_back(callbacks)

    def report(self, what: str, error: Exception) -> None:
        report(what, error)


class Runner:
    """Runs the operations of one controller, in any thread of the process that made it."""

    def __init__(self, me: ClientState, store: Store, hooks: Sequence[Hook] = ()) -> None:
        self.me = me
        self.hooks = hooks
        self.lock = threading.Lock()
        self._io = BlockingIO(store)
        self._pid = os.getpid()
        _warn_in_a_loop()

    @property
    def forked(self) -> bool:
        return os.getpid() != self._pid

    def check_process(self) -> None:
        """Raises ClientClosed in a child: its copy of the session is nobody's to renew."""
        check_fork(self._pid)

    def run(self, op: Op[T]) -> T:
        """Run ``op`` to its end and return its result."""
        self.check_process()
        try:
            return self._run(op)
        finally:
            self.tell()

    def _run(self, op: Op[T]) -> T:
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
                if self.me.holdings.told:
                    self.tell()
                reply = effect.perform(self._io)
            except BaseException as raised:  # noqa: BLE001  the operation decides what follows
                with self.lock:
                    error = translated(self.me, effect, raised)

    def step(self, op: Op[T]) -> T:
        """Run an ``op`` that waits for nothing."""
        return self.run(op)

    def tell(self) -> None:
        """Tell the hooks what has happened."""
        if self.me.holdings.told:
            with self.lock:
                told, self.me.holdings.told = self.me.holdings.told, []
            deliver(self.hooks, told)


def _warn_in_a_loop() -> None:
    """A begin that waits would hold up all tasks of the loop. asyncio is not imported for this."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    warnings.warn(
        "a blocking client of distjob is made in a running event loop, and will hold up its tasks:"
        " use distjob.aio, or make it in a thread",
        RuntimeWarning,
        stacklevel=4,
    )


def translated(me: ClientState, effect: Effect[Any], raised: BaseException) -> BaseException:
    """What an operation is told of an effect's error; an outage is told to the hooks, too.

    That a store which was closed with its client is not there is no outage. A change of which
    nobody knows whether it was made stays one.
    """
    if not isinstance(raised, BackendUnavailable):
        return raised
    if me.over and not raised.unanswered:
        return ClientClosed(CLOSED)
    verb = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(effect).__name__).lower()
    me.holdings.tell(StoreFailed(verb=verb, error=str(raised), unanswered=raised.unanswered))
    return raised


def check_fork(pid: int) -> None:
    """Raises ClientClosed in a process other than ``pid``, which made the client."""
    if os.getpid() != pid:
        raise ClientClosed(
            f"this client belongs to process {pid}, and this is process {os.getpid()},"
            " forked from it: jobs and session are the parent's. Connect anew after a fork"
        )


def deliver(hooks: Sequence[Hook], events: Sequence[Event]) -> None:
    """Log what is grave and tell each hook each event; one that fails is logged, that is all."""
    for event in events:
        warn(event)
        for hook in hooks:
            try:
                hook(event)
            except Exception:
                log.exception("distjob: the hook %r failed at %r", hook, event)


def report(what: str, error: Exception) -> None:
    """Log an error that nobody expected."""
    log.error("distjob: %s has failed, and is tried again", what, exc_info=error)


def call_back(callbacks: Sequence[Callable[[], None]], *also: type[BaseException]) -> None:
    """The users' callbacks; one that fails is logged, and ends nothing but itself.

    ``also``: errors that are no `Exception`, and would be taken for something else.
    """
    caught: tuple[type[BaseException], ...] = (Exception, SystemExit, *also)
    for callback in callbacks:
        try:
            callback()
        except caught:
            log.exception("distjob: a lease's callback failed")
