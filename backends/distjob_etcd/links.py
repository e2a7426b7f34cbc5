"""The links: all that waits, and so all that differs between the blocking store and asyncio's.

`distjob_etcd.blocking` has links that never suspend, `distjob_etcd.aio` those that await; see
`distjob.both`. Links carry: whom to ask, what, and what an answer means, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from distjob.both import Lock
from distjob.errors import BackendUnavailable
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import Failure
from distjob_etcd.members import Member, Metadata


class Bell(Protocol):
    """Guards (by ``with``) what several share, and wakes those who wait for a change of it."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    async def wait(self, seconds: float) -> None:
        """Let go of what is guarded until somebody rings, at most for ``seconds``."""

    def ring(self) -> None:
        """Wake all who wait."""


class Stream(Protocol):
    """A watch stream of one member. Is closed by whoever reads it."""

    def put(self, request: rpc.WatchRequest) -> None:
        """Send ``request`` as soon as that is possible; in the order of the calls."""

    async def read(self) -> rpc.WatchResponse | Failure:
        """The next answer, or how the stream ended."""

    def cut(self) -> None:
        """Have `read` return a failure soon."""

    async def close(self) -> None:
        """End it. Returns when nothing of it is left."""


class Running(Protocol):
    """Something that runs beside its caller."""

    async def stop(self, seconds: float) -> None:
        """Returns when it has ended, which it was told to, or after ``seconds``."""


class Links(Protocol):
    """Of one store."""

    channels: Any
    """Has ``insecure_channel`` and ``secure_channel``, as the module `grpc` does."""

    def check(self) -> None:
        """Raises `BackendUnavailable` where these links can't be used."""

    def lock(self) -> Lock: ...

    def bell(self) -> Bell: ...

    def start(self, steps: Coroutine[Any, Any, None], name: str) -> Running:
        """Run ``steps`` beside the caller."""

    async def call(
        self, member: Member, method: str, request: Any, seconds: float, words: Metadata
    ) -> Any:
        """The answer or the `Failure`. Raises `closed` if the channel was."""

    def stream(self, member: Member, words: Metadata) -> Stream:
        """Open the watch stream; sends nothing yet. Raises `closed` if the channel was."""

    async def close(self, members: Sequence[Member], *, owned: bool) -> None:
        """End what is under way with ``members``, whose channels are closed if ``owned``."""


def closed(member: Member, error: Exception) -> BackendUnavailable:
    """GRPC refuses to use a closed channel by an error of another kind."""
    return BackendUnavailable(f"etcd at {member.name}: the channel was closed: {error}")
