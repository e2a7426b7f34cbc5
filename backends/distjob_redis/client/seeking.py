"""One of several servers has the keys: which, others are asked. For sentinels and for a cluster."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from distjob.backend.world import World
from distjob_redis.client.server import Command, Place, Server
from distjob_redis.faults import Address, RedisFault, Why


class Sought(Place):
    """The server that was found last is asked, until it is doubted. From any thread, or task."""

    def __init__(
        self, world: World, make: Callable[[Address], Server], known: dict[Address, Server]
    ) -> None:
        self._world = world
        self._make = make
        self._known = known
        """Servers that were heard of."""
        self._found: Server | None = None
        self._doubtful = True
        self._tries = 0
        self._failure: RedisFault | None = None
        """Why the last try to find it was in vain."""
        self._closed = False
        self._lock = world.lock()

    @abstractmethod
    async def _seek(self) -> Server:
        """Ask who has the keys. Raises `RedisFault`."""

    async def exchange(self, commands: Sequence[Command], *, change: bool = False) -> list[Any]:
        server = await self.server()
        try:
            replies = await server.exchange(commands, change=change)
        except RedisFault as fault:
            if fault.why is Why.LOST:
                self.doubt(server)
            raise
        if any(isinstance(one, RedisFault) and one.why is Why.LOST for one in replies):
            self.doubt(server)
        return replies

    async def server(self) -> Server:
        found = self._found
        return await self._find(share=True) if found is None or self._doubtful else found

    def holds(self, server: Server) -> bool:
        return self._found is server

    def doubt(self, server: Server) -> None:
        if self._found is server:
            self._doubtful = True

    async def close(self) -> None:
        self._closed = True
        async with AsyncExitStack() as closing:
            for server in self._known.values():
                closing.push_async_callback(server.close)

    async def _find(self, *, share: bool = False) -> Server:
        """Seek it anew. ``share``: one who has waited for another's try takes what came of that.

        Else a crowd would try one by one.
        """
        tries = self._tries
        async with self._lock:
            if share and self._tries != tries:
                if self._failure is not None:
                    raise self._failure.with_traceback(None)
                if self._found is not None:
                    return self._found
            self._failure = None
            try:
                found = await self._seek()
                await self._take(found)
            except RedisFault as fault:
                self._failure = fault
                raise
            finally:
                self._tries += 1
            return found

    async def _take(self, found: Server) -> None:
        """Ask ``found`` from now on."""
        old, self._found, self._doubtful = self._found, found, False
        if old is not None and old is not found:
            self._world.bell.ring()  # who listens there is to listen here
            await old.let_go()

    def _at(self, address: Address) -> Server:
        if known := self._known.get(address):
            return known
        if self._closed:
            raise RedisFault(f"Redis {self.name}: the store was closed")
        return self._known.setdefault(address, self._make(address))
