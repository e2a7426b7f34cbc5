"""A source, opened: the `distjob.store.AsyncStore` of it, and the blocking `Store`.

Puts together what the rest of this package decides: whether it may be used (`life`), what has come
(`inbox`) and how it comes (`listening`). Here is decided what a fault is to a caller.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, TypeVar

from distjob.backend.inbox import Inbox
from distjob.backend.life import Life
from distjob.backend.listening import Listening
from distjob.backend.source import Fault, Source
from distjob.backend.world import World, now
from distjob.errors import BackendUnavailable, ConfigError
from distjob.store import AsyncStore, Event, Guarantees, Reply, Versioned, Void

T = TypeVar("T")


async def opened(connecting: Coroutine[Any, Any, Source], world: World, ttl: float) -> OpenStore:
    """The store of the source that ``connecting`` returns, listening already.

    ``world``: the one that the source awaits. ``ttl``: seconds, of the sessions to come. Raises
    `ConfigError`, `BackendUnavailable`; then all connections are given up.
    """
    try:
        store = OpenStore(await told(connecting, connecting=True), world, ttl)
    except BaseException:
        world.close()
        raise
    try:
        await told(store.listening.mend(), connecting=True)
    except BaseException:
        await store.close()
        raise
    return store


class OpenStore:
    """A `distjob.store.AsyncStore`; what each verb does is said there."""

    def __init__(self, source: Source, world: World, ttl: float) -> None:
        self.source = source
        self.guarantees: Guarantees = source.guarantees
        self._world = world
        self._ttl = ttl
        self._life = Life(world)
        self._inbox = Inbox()
        # Silence is asked after a third of a TTL, as often as sessions are renewed: a connection
        # that has died without a word costs a waiter no more than its fallback, half a TTL, would.
        self.listening = Listening(source, world, self._inbox, self._life, ttl / 3)

    async def open_session(self, ttl: float, owner: str) -> str:
        self._life.check()
        await told(self.listening.mend())
        session = await told(self.source.open(ttl, owner))
        self._inbox.begin(session)
        return session

    async def keep_alive(self, session: str) -> bool | Void:
        self._life.check()
        alive = await told(self.source.renew(session))
        if not alive:
            self._inbox.end(session)
        return alive

    async def close_session(self, session: str) -> None:
        self._life.check()
        await told(self.source.end(session))
        self._inbox.end(session)

    async def settle(self, session: str) -> None:
        self._life.check()
        await told(self.source.settle(session))

    async def read(self, vm: str) -> Versioned:
        self._life.check()
        return await told(self.source.read(vm))

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        self._life.check()
        return await told(self.source.commit(vm, expected, value, author, wake))

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        self._life.check()
        return await told(self.source.remaining(sessions)) if sessions else {}

    async def receive(self, session: str, timeout: float) -> Sequence[Event]:
        self._life.check()
        return await told(self.listening.hear(session, timeout))

    def interrupt(self) -> None:
        if not self._life.forked:
            self.listening.interrupt()

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        pages = self.source.scan()
        while True:
            self._life.check()
            try:
                found = await told(_next(pages))
            except StopAsyncIteration:
                return
            yield found

    async def close(self) -> None:
        if not self._life.end():
            return
        try:
            await self.listening.close(self._ttl)
        finally:
            try:
                await told(self.source.let_go())
            finally:
                self._world.close()


def _at_once(verb: str) -> Callable[..., Any]:
    def run(self: Blocking, *given: Any, **named: Any) -> Any:
        return now(getattr(self.verbs, verb)(*given, **named))

    return run


class Blocking:
    """The blocking `distjob.store.Store` on ``verbs``, whose world is that of threads."""

    def __init__(self, verbs: AsyncStore) -> None:
        self.verbs = verbs
        self.guarantees: Guarantees = verbs.guarantees

    open_session, close_session = _at_once("open_session"), _at_once("close_session")
    keep_alive, remaining = _at_once("keep_alive"), _at_once("remaining")
    read, commit, settle = _at_once("read"), _at_once("commit"), _at_once("settle")
    receive, close = _at_once("receive"), _at_once("close")

    def interrupt(self) -> None:
        self.verbs.interrupt()

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        pages = self.verbs.scan()
        while True:
            try:
                yield now(_next(pages))
            except StopAsyncIteration:
                return


async def _next(pages: AsyncIterator[tuple[str, Versioned]]) -> tuple[str, Versioned]:
    return await anext(pages)


async def told(steps: Coroutine[Any, Any, T], *, connecting: bool = False) -> T:
    """What a verb returns, or its fault as an error of the boundary: the one place to make those.

    While ``connecting`` what is unfit is a mistake in the settings. A `Fault` never leaves here.
    """
    try:
        return await steps
    except Fault as fault:
        if connecting and fault.unfit:
            raise ConfigError(str(fault)) from fault.__cause__
        lost = fault.made == "unknown"
        raise BackendUnavailable(str(fault), unanswered=lost) from fault.__cause__
