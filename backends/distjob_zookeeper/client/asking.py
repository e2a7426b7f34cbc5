"""How kazoo is asked: requests, results that tell at once, and room for so many at a time.

kazoo would call back from a thread of its own: a hop later, twice if a connection breaks while a
request is queued, and never if it is stopped just then. An `Answer` tells once, at once, in the
thread that has it. A server that does not answer in time, and of which nothing else was heard
meanwhile either, is left for another one: kazoo would wait for it for longer than a session lives.

Nothing is ever sent twice. Knows neither nodes of ours, nor how a client comes about.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, RolledBackError, RuntimeInconsistency
from kazoo.handlers.threading import AsyncResult

from distjob.backend.source import Fault
from distjob.backend.world import World
from distjob_zookeeper import faults

MOST = 200
"""Requests under way, or else one batch, besides the urgent ones, which go before the others. kazoo
announces each to its thread by a byte through a pipe; at some 270 that nobody reads, as while a
server is silent, it blocks whoever asks: an event loop, too."""


class Answer(AsyncResult):  # type: ignore[misc]
    """What a request of kazoo's was answered, once it is `ready`."""

    def __init__(self, handler: Any) -> None:
        super().__init__(handler)
        self._telling = threading.Lock()
        self._to_tell: list[Callable[[], object]] = []

    def set(self, value: Any = None) -> None:
        super().set(value)
        self._tell()

    def set_exception(self, exception: BaseException) -> None:
        super().set_exception(exception)
        self._tell()

    def then(self, tell: Callable[[], object]) -> None:
        """Call ``tell``, once: when this is ready, or now. It must neither block nor ask kazoo."""
        with self._telling:
            if not self.ready():
                self._to_tell.append(tell)
                return
        tell()

    def _tell(self) -> None:
        with self._telling:
            tells, self._to_tell = self._to_tell, []
        for tell in tells:
            tell()


class Refused(NamedTuple):
    """A multi of which nothing was carried out."""

    place: int
    """Of the operation that failed."""
    error: KazooException


# -- requests -------------------------------------------------------------------------------------

Ask = Callable[[KazooClient], Answer]
"""Sends one request."""
Watch = Callable[[Any], None]
"""Called by kazoo, in a thread of its own, with what has changed; once, and one of each kind."""


def data(path: str, watch: Watch | None = None) -> Ask:
    """What a node holds, and its stat."""
    return lambda client: client.get_async(path, watch=watch)


def children(path: str, watch: Watch | None = None) -> Ask:
    """The names of a node's children."""
    return lambda client: client.get_children_async(path, watch=watch)


def exists(path: str) -> Ask:
    """A node's stat, or None."""
    return lambda client: client.exists_async(path)


def acls(path: str) -> Ask:
    """Who may do what, and a node's stat."""
    return lambda client: client.get_acls_async(path)


def sync(path: str) -> Ask:
    """Makes the server at hand catch up with the leader before it answers what follows."""
    return lambda client: client.sync_async(path)


def multi(build: Callable[[Any], object]) -> Ask:
    """Operations that hold together, which ``build`` adds at the moment of sending."""

    def ask(client: KazooClient) -> Answer:
        steps = client.transaction()
        build(steps)
        answer: Answer = steps.commit_async()
        return answer

    return ask


class Asking:
    """One kazoo client, and what is under way with it."""

    def __init__(self, client: KazooClient, world: World, timeout: float) -> None:
        self.client = client
        self.timeout = timeout
        """Seconds to wait for a connection, and for each batch of answers."""
        self.where = "ZooKeeper at " + ",".join(f"{host}:{port}" for host, port in client.hosts)
        self.room = Room(world)
        self.world = world

    async def ask(self, *asks: Ask, change: bool = False, urgent: bool = False) -> list[Any]:
        """Send requests together, in order; what each was answered.

        That may be an error of `faults.ANSWERS` or, of a multi, `Refused`. ``change``: one of them
        may change something. ``urgent``: it may not stand in line behind a crowd, since a
        session's life hangs on it. Raises `Fault`.
        """
        until = self.world.monotonic() + self.timeout
        self._check()
        room = self.room
        if not urgent and not await room.enter(len(asks), self.timeout):
            raise Fault(f"{self.where}: too much is under way; nothing was changed")
        answers: list[Answer] = []
        try:  # nothing is awaited in here
            self._check()
            wire, sent = self.client.handler.wire, self.world.monotonic()
            answers.extend(ask(self.client) for ask in asks)
        finally:
            if not urgent:
                room.leave(len(asks) - len(answers))
                for answer in answers:
                    answer.then(room.leave)
        await self.world.answered(partial(_when_all, answers), until - self.world.monotonic())
        if not all(answer.ready() for answer in answers) and wire.heard < sent:
            wire.sever()
        try:
            return [_outcome(answer) for answer in answers]
        except faults.ERRORS as error:
            raise faults.meaning(
                error, self.where, self._reason(), self.timeout, change=change
            ) from error

    def send(self, ask: Ask, then: Callable[[Answer], object]) -> Answer:
        """Send a request, and call ``then`` when it is answered, in kazoo's thread."""
        answer = ask(self.client)
        answer.then(lambda: then(answer))
        return answer

    @property
    def connected(self) -> bool:
        """Whether there is a connection, which was not severed."""
        return bool(self.client.connected) and not self.client.handler.wire.severed

    def _check(self) -> None:
        """Nothing is sent while there is no connection: kazoo would keep it, and send it late."""
        if not self.connected:
            raise Fault(f"{self.where}: not connected{self._reason()}")

    def _reason(self) -> str:
        return f" ({self.client.logger.last})" if self.client.logger.last else ""


def _when_all(answers: Sequence[Answer], ring: Callable[[], object]) -> None:
    """Call ``ring``, once, when all of ``answers`` are ready."""

    def look() -> None:
        # Answers come in order, so that mostly the last one is the last to be waited for.
        for answer in reversed(answers):
            if not answer.ready():
                answer.then(look)
                return
        ring()

    look()


def _outcome(answer: Answer) -> Any:
    """What was answered. Raises an error that is none of `faults.ANSWERS`."""
    try:
        found = answer.get_nowait()
    except faults.ANSWERS as error:
        return error
    if not isinstance(found, list):
        return found
    errors = [(at, one) for at, one in enumerate(found) if isinstance(one, KazooException)]
    if not errors:
        return found
    # Those before the one that failed were rolled back, those behind it not looked at.
    vain = (RolledBackError, RuntimeInconsistency)
    refused = Refused(*next((one for one in errors if not isinstance(one[1], vain)), errors[0]))
    if not isinstance(refused.error, faults.ANSWERS):
        raise refused.error
    return refused


# -- room -----------------------------------------------------------------------------------------


class Room:
    """Lets in requests, in the order of their coming, while not too many are under way."""

    def __init__(self, world: World, most: int = MOST) -> None:
        self._world = world
        self._most = most
        self._taken = 0
        self._line = 0
        """How many wait; the first of them has the turn, and is told when there is room."""
        self._turn = world.lock()
        self._wanted = 0
        self._ring: Callable[[], object] = _nobody
        self._lock = threading.Lock()
        """Guards all of it. Held for moments, never over an await."""

    async def enter(self, size: int, seconds: float) -> bool:
        """Take room for ``size`` requests; False if there is none within ``seconds``."""
        until = self._world.monotonic() + seconds
        if self._take(size, first=False):
            return True
        try:
            if not await self._turn.take(seconds):
                return False
            try:
                left = until - self._world.monotonic()
                await self._world.answered(partial(self._wait, size), left)
                return self._take(size, first=True)  # what is cancelled has taken nothing
            finally:
                self._turn.leave()
        finally:
            with self._lock:
                self._line -= 1

    def leave(self, size: int = 1) -> None:
        """So many requests were answered. Any thread."""
        with self._lock:
            self._taken -= size
            ring = self._ring if self._fits(self._wanted) else _nobody
        ring()

    def _take(self, size: int, *, first: bool) -> bool:
        """Whether there is room, which is taken; if not, and who asks is not the first: line up."""
        with self._lock:
            fits = self._fits(size) and (first or not self._line)
            self._taken += size if fits else 0
            self._line += not (fits or first)
            if first:
                self._ring = _nobody
            return fits

    def _fits(self, size: int) -> bool:
        return not self._taken or self._taken + size <= self._most

    def _wait(self, size: int, ring: Callable[[], object]) -> None:
        with self._lock:
            self._wanted, self._ring = size, ring
        self.leave(0)  # there may be room by now


def _nobody() -> None:
    """Nobody waits to be rung."""
