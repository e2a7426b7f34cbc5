"""What is asked of ZooKeeper: verbs are generators of batches, and nothing in them waits.

Each yields a `Batch` of requests, which go out together, and is sent what was answered: so whoever
drives it may block or suspend. Knows neither connections nor nodes of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from kazoo.exceptions import (
    BadVersionError,
    KazooException,
    NodeExistsError,
    NoNodeError,
    RolledBackError,
)

if TYPE_CHECKING:
    from kazoo.client import KazooClient

T = TypeVar("T")
Ask: TypeAlias = "Callable[[KazooClient], Any]"
"""Sends one request; returns kazoo's result of it."""


class Batch(NamedTuple):
    """Requests that go out together, in order; one connection answers them in order."""

    asks: Sequence[Ask]
    change: bool = False
    """Whether one of them may change something."""
    urgent: bool = False
    """Whether it may not stand in line behind a crowd: a session's life hangs on it."""


Steps: TypeAlias = Generator[Batch, list[Any], T]
"""A verb. What a request was answered, or one of `ANSWERS`, is sent back for each."""

ANSWERS = (NoNodeError, NodeExistsError, BadVersionError)
"""Errors that are an answer, to be judged by who has asked."""


def multi(build: Callable[[Any], None]) -> Ask:
    """A request of several operations that hold together; ``build`` adds them."""

    def ask(client: KazooClient) -> Any:
        transaction = client.transaction()
        build(transaction)
        return transaction.commit_async()

    return ask


def failed(results: Sequence[Any]) -> tuple[int, KazooException] | None:
    """Which operation of a `multi` failed, and how. Raises what is none of `ANSWERS`."""
    for place, result in enumerate(results):
        if isinstance(result, KazooException) and not isinstance(result, RolledBackError):
            if not isinstance(result, ANSWERS):
                raise result
            return place, result
    return None
