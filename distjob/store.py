"""THE boundary: what a client asks of a store.

A backend's author writes a `distjob.backend.source.Source`, of which this is made. A store
keeps one versioned value for each VM, keeps sessions alive and delivers wake-ups. It knows nothing
of jobs: values are opaque bytes. `distjob.testing.contract` is the suite that every backend must
pass; `distjob.testing.memory` is the smallest one that does.

What holds for every verb:

- Atomic and linearizable for one VM. What a store can't promise it says in its `Guarantees`.
- VM names come checked: 1 to 255 bytes of UTF-8, any characters, NUL and newline among them.
- Callable from any thread. One store object serves one client, which has one session at a time.
- The only errors are `BackendUnavailable` (with ``unanswered=True`` if a change was sent and its
  reply never came), `RecordError` (the store's own rows are broken) and, at connect, `ConfigError`.
- No verb retries by itself what may have been applied; the protocol does, and knows how.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from distjob.backend.source import Source
    from distjob.backend.world import World

ABSENT = 0
"""The version of a VM that has no value.

A version is a whole number that rises with every write. It is given back to the store as it was
given out: it may be of a subclass of int that carries what else the store compares by.
"""


class Versioned(msgspec.Struct, frozen=True):
    """A VM's value; ``version`` is `ABSENT` and ``value`` None if there is none."""

    version: int
    value: bytes | None


class Committed(msgspec.Struct, frozen=True):
    """The commit was made; ``version`` is larger than every version the store gave out before."""

    version: int


class Stale(msgspec.Struct, frozen=True):
    """The expected version is not the current one; here is what is. Nothing was changed."""

    version: int
    value: bytes | None


class Gone(msgspec.Struct, frozen=True):
    """Sessions among author and ``wake`` that have ended: all of them, or an ended author alone.

    Nothing was changed.
    """

    sessions: frozenset[str]


class Settled(msgspec.Struct, frozen=True):
    """The commit was overtaken by a settling of its session. Nothing was changed: send it again.

    One that is sent after that settling returned is not answered so.
    """


Reply = Committed | Stale | Gone | Settled


class Woken(msgspec.Struct, frozen=True):
    """A commit named this session in its ``wake``.

    ``value`` is what that commit wrote; None if it removed the value, or if the store did not send
    it along (too large, merged with a later wake-up): then it has to be read.
    """

    vm: str
    version: int
    value: bytes | None


class Ended(msgspec.Struct, frozen=True):
    """A session that `Store.remaining` was asked about has ended. A hint: it is asked again."""

    session: str


class Missed(msgspec.Struct, frozen=True):
    """Wake-ups may have been lost (a reconnection): whoever waits must read again."""


Event = Woken | Ended | Missed


class Void(msgspec.Struct, frozen=True):
    """False: a session is given up, though it may have lived; ``why``, for whoever relied on it."""

    why: str

    def __bool__(self) -> Literal[False]:
        return False


class Guarantees(msgspec.Struct, frozen=True, kw_only=True):
    """What a store promises, and what not, as data: the contract suite tests it, docs print it."""

    reach: Literal["process", "host", "network"]
    """How far apart its clients may be."""
    wakes: Literal["push", "poll"]
    """Whether a wake-up is sent by the store or found by a short adaptive poll."""
    ends: Literal["told", "timed"]
    """Whether the store sends `Ended` by itself, or is asked when a session's time is up."""
    durable: bool
    """Whether values and versions survive a restart of all its servers."""
    versions_survive_loss: bool
    """Whether versions go on rising when the store has lost all its data."""
    versions: Literal["store", "shard"] = "store"
    """How far one order of versions reaches; those of one VM always rise."""
    failover: Literal["none", "lossy", "quorum"] = "none"
    """Another server takes over: never; without the last writes, perhaps; with all acknowledged."""
    shortest_ttl: float = 0.0
    """Seconds; a session with a shorter TTL may live this long."""
    grace: float = 0.0
    """Seconds past its TTL, at most, that a dead client's session lives on while servers are up."""
    idle: Literal["nothing", "an empty node"] = "nothing"
    """What stays behind for a VM without a value."""
    largest_value: int | None = None
    """Bytes; a larger value is refused by `RecordError`. None: no limit worth naming."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that an operator should know of a server, from `Backend.examine`."""

    level: Literal["ok", "warning", "danger"]
    """``danger``: jobs can be lost or granted twice as things stand."""
    what: str
    advice: str = ""
    """What to do about it."""


class Store(Protocol):
    """A connection of one client to a store. Durations are float seconds."""

    guarantees: Guarantees

    def open_session(self, ttl: float, owner: str) -> str:
        """Begin a session that ends ``ttl`` seconds after its last renewal; returns its id.

        Ids are never used twice, so that *ended* is for ever. Wake-ups sent to the session from
        the moment this returns are received. ``owner`` is for people who look into the store.
        """

    def keep_alive(self, session: str) -> bool | Void:
        """Renew ``session`` for its full TTL; False if it has ended. Never revives one.

        `Void`, which is false, too: it is not to be relied upon any more, and was ended.
        """

    def close_session(self, session: str) -> None:
        """End ``session`` now; no error if it has ended already."""

    def settle(self, session: str) -> None:
        """Bring every commit of ``session`` that was sent before to an end.

        Each of them has been applied when this returns, or never will be: one that arrives later
        is answered `Settled`. No error if the session has ended, which settles them, too.
        """

    def read(self, vm: str) -> Versioned:
        """The current value of ``vm``."""

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """Set ``vm`` to ``value`` (None: remove it) if its version is ``expected``.

        In the same step, or not at all: ``author`` and every session in ``wake`` must be alive,
        and each session in ``wake`` is sent ``Woken(vm, new version, value)``. An ended author is
        told before anything else, a stale version before an ended session to wake. One round trip.
        ``value`` None with ``expected`` `ABSENT` is a commit like any other.
        """

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """Seconds until each of ``sessions`` ends if it is not renewed; 0.0 = it has ended.

        A store whose `Guarantees.ends` is "timed" is exact. One that tells may name a later moment,
        at most the TTL; it sends `Ended` for each of them from now on, as soon as it has ended.
        """

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """Wait at most ``timeout`` seconds for events of ``session``; one caller at a time.

        Returns early, possibly with nothing, when there are events or `interrupt` was called.
        A session that has ended receives nothing, without an error. After a lost connection:
        raises, and the first call that works again returns `Missed`.
        """

    def interrupt(self) -> None:
        """Make a `receive` that is under way, or else the next one, return at once. Best effort."""

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        """All VMs of the namespace that have a value, in no order; not one moment's picture."""

    def close(self) -> None:
        """Let go of connections; sessions are not ended by this. A second call does nothing.

        Afterwards every verb raises `BackendUnavailable`; a `receive` under way ends soon.
        """


class AsyncStore(Protocol):
    """`Store` on asyncio: the same verbs, each of them said there, as coroutines of one event loop.

    Tasks call them side by side, and those that are under way share round trips where the servers
    allow it. A verb may be cancelled at any await: a change may then have been made or be made
    yet, as if its reply had been lost; a `receive` that is cancelled loses no event. A backend
    writes both at once, as a `distjob.backend.source.Source`.
    """

    guarantees: Guarantees

    async def open_session(self, ttl: float, owner: str) -> str: ...

    async def keep_alive(self, session: str) -> bool | Void: ...

    async def close_session(self, session: str) -> None: ...

    async def settle(self, session: str) -> None: ...

    async def read(self, vm: str) -> Versioned: ...

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply: ...

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]: ...

    async def receive(self, session: str, timeout: float) -> Sequence[Event]: ...

    def interrupt(self) -> None:
        """As `Store.interrupt`; from the loop's own thread."""

    def scan(self) -> AsyncIterator[tuple[str, Versioned]]: ...

    async def close(self) -> None: ...


class Backend(msgspec.Struct, frozen=True):
    """What an entry point of ``distjob.backends`` names; its name is the section in the YAML file.

    The module that holds it must import without the client library, so that settings can be
    checked, and their schema printed, where the extra is not installed.
    """

    settings: type[msgspec.Struct]
    """The section's keys, types and bounds, all optional but those marked in its docstring.

    What does not go together its ``__post_init__`` refuses, by `distjob.backend.sections.Mistake`.
    """
    source: Callable[[Any, str, float, World, int], Coroutine[Any, Any, Source]]
    """(settings, namespace, TTL of the sessions in seconds, world, shard) -> a source.

    Imports the client library; checks what the server must have and what all controllers of the
    namespace must agree on. Raises `Fault` or `ConfigError`.
    """
    shards: Callable[[Any], int] = lambda _: 1
    """Among how many sources the VMs are spread, by the settings."""
    extra: str = ""
    """What to install for the client library: ``pip install distjob-vm[extra]``; empty: nothing."""
    promises: Mapping[str, Guarantees] = {}
    """The guarantees by topology ("single", "cluster", ...), the best that each can have."""
    where: Callable[[Any], tuple[str, str]] | None = None
    """(settings) -> where the store is, and why there, for people; connects to nothing."""
    check: Callable[[Any, float], None] | None = None
    """(settings, TTL of the sessions in seconds): refuses, by `distjob.backend.sections.Mistake`,
    what does not go with that TTL. Called when settings are read, and before connecting;
    touches nothing. A TTL that is shorter than all ``promises`` allow is refused without it.
    """
    urls: Mapping[str, Callable[[str], Mapping[str, Any]]] = {}
    """By scheme, what makes the section of a URL that is a whole configuration.

    Raises `distjob.backend.sections.Mistake`. One of the schemes should be the backend's name.
    """
    examine: Callable[[Any], Iterable[Finding]] | None = None
    """What could make the server behind a store of ours unsafe. Changes nothing that stays."""
