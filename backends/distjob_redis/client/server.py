"""Whom commands go to: `Place`, which has the keys of one shard, and `Server`, the plain case.

Knows neither keys nor values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from redis.exceptions import RedisError

from distjob_redis.faults import Address, RedisFault, Why, meaning
from distjob_redis.layout import Script

T = TypeVar("T")
Command: TypeAlias = tuple[Any, ...]
Ask: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]
"""Sends a command, and returns its reply."""
Greet: TypeAlias = Callable[[Address, Ask], Coroutine[Any, Any, None]]
"""Looks at a connection that was just made to this address; a `Fault` ends it."""


class Place(ABC):
    """What has the keys of one shard, and how it is asked; each command is sent once.

    A command that a server refused to carry out, because another has the keys, is no command.
    """

    kind: Literal["single", "sentinel", "cluster"] = "single"
    name: str
    """For messages. Without the password."""

    async def ask(self, *command: Any, change: bool = False) -> Any:
        """The reply to one command. Raises `RedisFault`: ``change`` if it changes something."""
        return await self._on(lambda server: server.ask(*command, change=change))

    async def ask_each(self, commands: Sequence[Command], *, change: bool = False) -> list[Any]:
        """The replies to several, in one round trip; a refusal stands in its place as the fault."""
        return await self._on(lambda server: server.ask_each(commands, change=change))

    async def run(self, script: Script, *arguments: Any) -> Any:
        """The reply of a script that changes something; sent in full only if it is not known."""
        return await self._on(lambda server: server.run(script, *arguments))

    @abstractmethod
    async def _on(self, call: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        """Make ``call`` on the server that has the keys."""

    @abstractmethod
    async def server(self) -> Server:
        """Who has the keys now, found out if that is in doubt."""

    @abstractmethod
    def holds(self, server: Server) -> bool:
        """Whether ``server`` has them, as far as is known."""

    @abstractmethod
    def doubt(self, server: Server) -> None:
        """``server`` did not answer, or has them no more: find out before the next command."""

    @abstractmethod
    async def servers(self) -> Sequence[Server]:
        """Every server that may hold values."""

    async def confirm(self) -> None:  # noqa: B027
        """Find out, if it takes asking others, whether the servers are still those to ask."""

    def watchers(self) -> Sequence[Server]:
        """The sentinels, which tell when another is to be asked."""
        return ()

    def alarm(self) -> None:  # noqa: B027
        """A watcher has told it."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of all connections."""


class Line(Protocol):
    """A connection that subscribes."""

    async def open(self, command: Command) -> None:
        """Connect, and send ``command``. Raises `RedisFault`."""

    def take(self) -> list[Any]:
        """What has come; never waits. Raises `RedisFault` when the connection has ended."""

    async def ping(self) -> None:
        """Ask for an answer, which `take` will give."""

    def file(self) -> int | None:
        """What becomes readable when something comes; None: the bell is rung, or see `pause`."""

    def pause(self) -> float:
        """Seconds after which it is to be looked at though nothing has rung."""

    async def close(self) -> None: ...


class Server(Place):
    """One server, by connections of the pool of ``client``, which is closed in the end.

    ``greet`` is called with each new connection, when it has logged in.
    """

    def __init__(self, client: Any, greet: Greet | None = None) -> None:
        self.client = client
        self._pool = client.connection_pool
        self._greet = greet
        facts = self._pool.connection_kwargs
        self.host = str(facts.get("host", "?"))
        self.address: Address = self.host, int(facts.get("port") or 0)
        self.name = str(facts.get("path") or f"{self.host}:{facts.get('port', '?')}")

    @abstractmethod
    async def exchange(self, commands: Sequence[Command], *, change: bool) -> list[Any]:
        """The replies, in one round trip; one that is an error stands there as redis-py has it.

        Raises `RedisFault`; ``change``: what was sent may have been carried out.
        """

    @abstractmethod
    def line(self, ring: Callable[[], None]) -> Line:
        """A new line, not open yet; ``ring``: called when something has come that no file tells."""

    async def ask(self, *command: Any, change: bool = False) -> Any:
        reply = (await self.exchange((command,), change=change))[0]
        if isinstance(reply, Exception):
            raise self.refusal(reply)
        return reply

    async def ask_each(self, commands: Sequence[Command], *, change: bool = False) -> list[Any]:
        replies = await self.exchange(commands, change=change)
        return [self.refusal(one) if isinstance(one, Exception) else one for one in replies]

    async def run(self, script: Script, *arguments: Any) -> Any:
        try:
            return await self.ask("EVALSHA", script.digest, *arguments, change=True)
        except RedisFault as fault:
            if fault.why is not Why.NO_SCRIPT:
                raise
        return await self.ask("EVAL", script.text, *arguments, change=True)

    async def _on(self, call: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        return await call(self)

    async def server(self) -> Server:
        return self

    def holds(self, server: Server) -> bool:  # noqa: ARG002  there is no other
        return True

    def doubt(self, server: Server) -> None:
        """There is no other."""

    async def servers(self) -> Sequence[Server]:
        return (self,)

    @abstractmethod
    async def let_go(self) -> None:
        """Give up all connections: another server is asked now, and these must not answer later."""

    async def info(self) -> Mapping[str, Any]:
        """The server's INFO."""
        told = await self.ask("INFO")
        text = told.decode(errors="replace") if isinstance(told, bytes) else str(told)
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        return {name: int(told) if told.isdecimal() else told for name, told in pairs}

    def fault(self, error: RedisError | OSError, *, change: bool = False) -> RedisFault:
        """What ``error`` means; ``change`` if one had been sent when it came."""
        return meaning(error, self.name, change=change)

    def refusal(self, reply: Exception) -> Exception:
        """What a reply means that is an error."""
        return self.fault(reply) if isinstance(reply, RedisError) else reply


def all_of(replies: Sequence[Any]) -> Sequence[Any]:
    """``replies``, unless one is a refusal, which is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies
