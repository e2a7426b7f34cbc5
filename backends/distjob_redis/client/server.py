"""Who carries commands out: a `Server`, or a `Place`, which knows the server with a shard's keys.

Knows neither keys nor values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from redis.exceptions import RedisError

from distjob.backend.source import Feed
from distjob.backend.world import World
from distjob_redis.faults import Address, RedisFault, Why, meaning
from distjob_redis.feed import Channel, Ear
from distjob_redis.layout import Script

Command: TypeAlias = tuple[Any, ...]
Ask: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]
"""Sends a command, and returns its reply."""
Greet: TypeAlias = Callable[[Address, Ask], Coroutine[Any, Any, None]]
"""Looks at a connection that was just made to this address; a `Fault` ends it."""


class Place(ABC):
    """What has the keys of one shard. Each command is sent once.

    A command that a server refused to carry out, because another has the keys, is no command.
    """

    kind: Literal["single", "sentinel", "cluster"] = "single"
    name: str
    """For messages. Without the password."""

    @abstractmethod
    async def exchange(self, commands: Sequence[Command], *, change: bool = False) -> list[Any]:
        """The replies, in one round trip; a refusal stands in its place, as a `RedisFault`.

        Raises `RedisFault`; ``change``: what was sent may have been carried out.
        """

    async def ask(self, *command: Any, change: bool = False) -> Any:
        """The reply to one command. Raises `RedisFault`, also for a refusal."""
        return all_of(await self.exchange((command,), change=change))[0]

    async def run(self, script: Script, *arguments: Any) -> Any:
        """The reply of a script that changes something; sent in full only if it is not known."""
        [reply] = await self.exchange((("EVALSHA", script.digest, *arguments),), change=True)
        if isinstance(reply, RedisFault):
            if reply.why is not Why.NO_SCRIPT:
                raise reply
            reply = await self.ask("EVAL", script.text, *arguments, change=True)
        return reply

    @abstractmethod
    async def server(self) -> Server:
        """Who has the keys now, found out if that is in doubt. Raises `RedisFault`."""

    async def servers(self) -> Sequence[Server]:
        """Every server that may hold values. Raises `RedisFault`."""
        return (await self.server(),)

    def holds(self, server: Server) -> bool:  # noqa: ARG002
        """Whether ``server`` has the keys, as far as is known."""
        return True

    def doubt(self, server: Server) -> None:  # noqa: B027
        """``server`` did not answer, or has them no more: find out before the next command."""

    async def confirm(self) -> None:  # noqa: B027
        """Find out, if it takes asking others, whether the server is still the one to ask."""

    def feeds(self, world: World) -> Sequence[Feed]:  # noqa: ARG002
        """Where it is told that another server is to be asked."""
        return ()

    @abstractmethod
    async def close(self) -> None:
        """Let go of all connections."""


class Server(Place):
    """One server, by connections of the pool of ``client``, which is closed in the end.

    ``greet`` is called with each new connection, when it has logged in.
    """

    def __init__(self, client: Any, greet: Greet | None = None) -> None:
        self.client = client
        self._pool = client.connection_pool
        self._greet = greet
        facts = self._pool.connection_kwargs
        self.address: Address = str(facts.get("host", "?")), int(facts.get("port") or 0)
        self.name = str(facts.get("path") or f"{self.address[0]}:{facts.get('port', '?')}")

    @abstractmethod
    def channel(self, ear: Ear, world: World, command: Command) -> Channel:
        """A subscription by ``command``, not open yet."""

    @abstractmethod
    async def let_go(self) -> None:
        """Give up all connections: another server is asked now, and these must not answer later."""

    async def server(self) -> Server:
        return self

    async def facts(self, *settings: str) -> Mapping[str, Any]:
        """The server's INFO, and these of its settings, as far as the user may ask for them.

        Raises `RedisFault`.
        """
        asked = [("INFO",), *(("CONFIG", "GET", name) for name in settings)]
        info, *told = await self.exchange(asked)
        facts = facts_of(all_of([info])[0])
        for reply in told:
            if not isinstance(reply, RedisFault):
                facts |= {name.decode(): value.decode() for name, value in pairs(reply)}
        return facts

    def fault(self, error: Exception, *, change: bool = False) -> RedisFault:
        """What ``error`` means; ``change`` if one had been sent when it came."""
        return meaning(error, self.name, change=change, host=self.address[0])

    def replies(self, replies: list[Any]) -> list[Any]:
        """``replies``, each refusal of redis-py's among them as what it means."""
        for number, reply in enumerate(replies):
            if isinstance(reply, RedisError):
                replies[number] = self.fault(reply)
        return replies


def pairs(reply: Any) -> Iterable[tuple[Any, Any]]:
    """The pairs of a reply that is a map, in RESP3 or in RESP2."""
    return reply.items() if isinstance(reply, dict) else zip(*[iter(reply)] * 2, strict=True)


def facts_of(told: bytes) -> dict[str, Any]:
    """What INFO has answered; whole numbers as such."""
    lines = told.decode(errors="replace").splitlines()
    split = (line.split(":", 1) for line in lines if ":" in line)
    return {name: int(fact) if fact.isdecimal() else fact for name, fact in split}


def all_of(replies: Sequence[Any]) -> Sequence[Any]:
    """``replies``, unless one is a refusal, which is raised."""
    for reply in replies:
        if isinstance(reply, RedisFault):
            raise reply
    return replies
