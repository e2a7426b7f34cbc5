"""The verbs, as batches of requests: what is asked together, and what follows from the answers.

Generators, so that a blocking caller and one on asyncio share them; the commit has a file of its
own. Knows nothing of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from kazoo.exceptions import NoNodeError

from distjob.store import ABSENT, Versioned
from distjob_zookeeper.layout import Epoch, Layout, ttl_of, unpacked
from distjob_zookeeper.requests import Ask, Batch, Steps, failed, multi
from distjob_zookeeper.seen import Memory, Seen

if TYPE_CHECKING:
    from kazoo.client import KazooClient

AT_ONCE = 250
"""Requests in one batch: enough to hide the round trips, few enough for the servers' queues."""
ANY = -1
"""The version that matches every node's."""
Watch: TypeAlias = Callable[[Any], None]


def get(path: str, watch: Watch | None = None) -> Ask:
    return lambda client: client.get_async(path, watch=watch)


def exists(path: str) -> Ask:
    return lambda client: client.exists_async(path)


def sync(path: str) -> Ask:
    """Makes the server at hand catch up with the leader before it answers what follows."""
    return lambda client: client.sync_async(path)


def prove(path: str) -> Ask:
    """A majority of the servers agrees that the node is there, as it does to a change.

    A read, even after `sync`, may be answered by a leader that was deposed a moment ago.
    """
    return multi(lambda steps: steps.check(path, ANY))


# -- one VM ------------------------------------------------------------------------------------


def read(layout: Layout, memory: Memory, vm: str) -> Steps[Versioned]:
    epoch = memory.epoch
    path = layout.vm(vm)
    _, answer = yield Batch((sync(path), get(path)))
    return look(memory, vm, answer, epoch)


def seen_in(answer: Any, vm: str, epoch: Epoch) -> Seen:
    """What a `get` of ``vm``'s node was answered; ``epoch`` is from before it was asked."""
    if isinstance(answer, NoNodeError):
        return Seen(ABSENT, None, epoch)
    data, stat = answer
    version = ABSENT if unpacked(data, vm) is None else stat.mzxid
    return Seen(version, stat.version, epoch)


def look(memory: Memory, vm: str, answer: Any, epoch: Epoch) -> Versioned:
    """What was read of ``vm``'s node; ``epoch`` is from before it was asked for."""
    seen = seen_in(answer, vm, epoch)
    memory.put(vm, seen)
    value = None if seen.version == ABSENT else unpacked(answer[0], vm)
    return Versioned(version=seen.version, value=value)


def enter(memory: Memory, answer: Any) -> Epoch:
    """The epoch that was read; what was seen in others is forgotten. Raises NoNodeError."""
    if isinstance(answer, NoNodeError):
        raise answer
    epoch = epoch_of(answer)
    memory.enter(epoch)
    return epoch


def epoch_of(answer: Any) -> Epoch:
    _, stat = answer
    return Epoch(stat.czxid, stat.version)


# -- sessions ----------------------------------------------------------------------------------


def open_session(
    layout: Layout, path: str, owner: str, watch: Watch
) -> Steps[tuple[Any, Any, Epoch | None]]:
    """Make the session's node; what creating and reading it was answered, and the epoch."""

    def create(client: KazooClient) -> Any:
        return client.create_async(path, owner.encode(), ephemeral=True)

    made, there, epoch = yield Batch((create, get(path, watch), get(layout.epoch)), change=True)
    return made, there, None if isinstance(epoch, NoNodeError) else epoch_of(epoch)


def keep_alive(path: str) -> Steps[bool]:
    (results,) = yield Batch((prove(path),), change=True, urgent=True)
    return failed(results) is None


def delete(path: str) -> Steps[None]:
    yield Batch((lambda client: client.delete_async(path),), change=True)


def remaining(
    layout: Layout, sessions: Sequence[str], watch: Watch | None, longest: float
) -> Steps[dict[str, float]]:
    """Their TTL, or 0.0.

    What is watched is a node's list of children, as a session's never has any: that tells of
    its end only, not of each wake-up, and leaves nothing behind where there is no node.
    """

    def children(path: str) -> Ask:
        return lambda client: client.get_children_async(path, watch=watch)

    left: dict[str, float] = {}
    for some in chunks(sessions):
        asks = [children(layout.session(session)) for session in some]
        _, *found = yield Batch((sync(layout.sessions), *asks))
        for session, answer in zip(some, found, strict=True):
            ended = isinstance(answer, NoNodeError)
            left[session] = 0.0 if ended else ttl_of(session) or longest
    return left


# -- many VMs ----------------------------------------------------------------------------------


def names(layout: Layout) -> Steps[list[str]]:
    """The nodes of all VMs."""
    _, found = yield Batch((sync(layout.vms), lambda client: client.get_children_async(layout.vms)))
    return [] if isinstance(found, NoNodeError) else list(found)


def nodes(layout: Layout, some: Sequence[str]) -> Steps[list[Any]]:
    """Data and stat of VMs' nodes, given by `names`; NoNodeError for those that are gone."""
    return (yield Batch([get(f"{layout.vms}/{node}") for node in some]))


def forget(
    layout: Layout, epoch: Epoch, idle: Sequence[tuple[str, int]]
) -> Steps[tuple[int, Epoch | None]]:
    """Delete empty nodes, given with their versions, and begin another epoch in the same step.

    Returns the place of the one that was not as given, or -1, and the epoch if it was begun.
    """

    def build(steps: Any) -> None:
        steps.set_data(layout.epoch, b"", epoch.number)
        for node, version in idle:
            steps.delete(f"{layout.vms}/{node}", version)

    (results,) = yield Batch((multi(build),), change=True)
    if refused := failed(results):
        return refused[0] - 1, None
    return -1, Epoch(epoch.born, results[0].version)


def chunks(items: Sequence[str], size: int = AT_ONCE) -> Iterator[list[str]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
