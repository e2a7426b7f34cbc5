"""Walking over the VMs' nodes, and deleting those of VMs that have no value any more.

ZooKeeper counts a node's versions from 0 again once it was deleted and made anew. A client that
remembers a version from before could then match another's commit by chance, and overwrite a job.
So every deletion begins another epoch in the same step, and every commit names its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from kazoo.exceptions import NoNodeError

from distjob_zookeeper import verbs
from distjob_zookeeper.connection import Connection
from distjob_zookeeper.layout import Epoch, Layout, encoded
from distjob_zookeeper.requests import Batch, Steps

MOST = 100
"""Nodes that one step deletes."""


async def nodes(connection: Connection, layout: Layout) -> AsyncIterator[tuple[str, bytes, Any]]:
    """Name, data and stat of every VM's node; not one moment's picture."""
    for some in verbs.chunks(await connection.run(verbs.names(layout))):
        answers = await connection.run(verbs.nodes(layout, some))
        for node, answer in zip(some, answers, strict=True):
            if not isinstance(answer, NoNodeError):
                yield node, answer[0] or b"", answer[1]


async def forget(connection: Connection, layout: Layout, vms: Iterable[str] | None) -> int:
    """Delete empty nodes, of ``vms`` or all; how many there were. Raises `BackendUnavailable`."""
    if vms is None:
        names = await connection.run(verbs.names(layout))
    else:
        names = list(dict.fromkeys(map(encoded, vms)))
    return sum([await _forget(connection, layout, some) for some in verbs.chunks(names, MOST)])


async def _forget(connection: Connection, layout: Layout, names: list[str]) -> int:
    while True:
        epoch, idle = await connection.run(_idle(layout, names))
        while idle:
            place, begun = await connection.run(verbs.forget(layout, epoch, idle))
            if begun:
                return len(idle)
            if place < 0:  # somebody else has just forgotten some: look again
                break
            del idle[place]  # it is in use again, or gone
        else:
            return 0


def _idle(layout: Layout, names: list[str]) -> Steps[tuple[Epoch, list[tuple[str, int]]]]:
    """The epoch, and after it the nodes: what is deleted has not been made anew in between."""
    asks = [verbs.get(f"{layout.vms}/{node}") for node in names]
    _, epoch, *found = yield Batch((verbs.sync(layout.root), verbs.get(layout.epoch), *asks))
    if isinstance(epoch, NoNodeError):
        raise epoch
    idle = [
        (node, answer[1].version)
        for node, answer in zip(names, found, strict=True)
        if not isinstance(answer, NoNodeError) and not answer[0]
    ]
    return verbs.epoch_of(epoch), idle
