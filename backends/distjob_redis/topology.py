"""Where the shards' keys are: on one server, on a primary behind sentinels, on a cluster's nodes.

`Topology` is what the store knows of that; `Single` is the plain case, and the others are in
files of their own. Each command is sent once, but for one that a server refused to carry out
because another has the keys. Knows no layout of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from distjob_redis.links import World
from distjob_redis.server import Server

Kind = Literal["single", "sentinel", "cluster"]


class Place(Protocol):
    """What has the keys of one shard; its methods are those of `Server`."""

    async def ask(self, *command: Any, change: bool = False) -> Any: ...

    async def ask_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]: ...

    async def run(self, script: str, digest: str, *arguments: Any) -> Any: ...

    async def server(self) -> Server:
        """Who has them now, as far as is known. Raises `BackendUnavailable`."""

    def doubt(self, server: Server) -> None:
        """``server`` did not answer, or has them no more: find out, before the next command."""


class Topology(Protocol):
    """All servers behind one store."""

    @property
    def kind(self) -> Kind: ...

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def world(self) -> World: ...

    def place(self, prefix: bytes) -> Place:
        """What has the keys that begin with ``prefix``, up to its last brace the same."""

    async def servers(self) -> Sequence[Server]:
        """Every server that holds values. Raises `BackendUnavailable`."""

    async def confirm(self) -> None:
        """Find out, if it takes asking, whether the servers are still those to ask."""

    def watchers(self) -> Sequence[tuple[Server, bytes]]:
        """Who tells, and on which channel, that it is time to `confirm`."""

    async def ask_each(
        self, asked: Sequence[tuple[Place, tuple[Any, ...]]], *, change: bool = False
    ) -> list[Any]:
        """The replies to several commands, with few round trips; raises if one is an error."""

    async def close(self) -> None:
        """Let go of connections that were made here; of a user's client those in hand."""


class Single:
    """One server, named by its address."""

    kind: Kind = "single"

    def __init__(self, server: Server, world: World) -> None:
        self._server = server
        self.world = world

    @property
    def name(self) -> str:
        return self._server.name

    def place(self, prefix: bytes) -> Place:  # noqa: ARG002  it has them all
        return self._server

    async def servers(self) -> Sequence[Server]:
        return (self._server,)

    async def confirm(self) -> None:
        """Nobody else could be the one to ask."""

    def watchers(self) -> Sequence[tuple[Server, bytes]]:
        return ()

    async def ask_each(
        self, asked: Sequence[tuple[Place, tuple[Any, ...]]], *, change: bool = False
    ) -> list[Any]:
        return await each_of(self._server, [command for _, command in asked], change=change)

    async def close(self) -> None:
        await self._server.close()


async def each_of(
    server: Server, commands: Sequence[tuple[Any, ...]], *, change: bool
) -> list[Any]:
    """The replies to several commands of one server, in one round trip; raises the first error."""
    if len(commands) == 1:
        return [await server.ask(*commands[0], change=change)]
    if not change:
        return await server.ask_all(commands)
    replies = await server.ask_each(commands, change=True)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
