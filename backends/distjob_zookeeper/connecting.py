"""Connecting: what all controllers of a namespace need and agree on, made, read and rehearsed.

Everything that can be wrong is found out here, as a mistake in the settings, rather than with a
job held.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kazoo.exceptions import NoNodeError

from distjob.backend.source import Fault
from distjob.clock import wall
from distjob_zookeeper.client.asking import Refused, children, data, exists, multi, sync
from distjob_zookeeper.client.connection import Connection
from distjob_zookeeper.layout import FORMAT, PACKET, Layout


async def prepare(connection: Connection, layout: Layout, name: str) -> None:
    """Make what nodes are missing, and find out that we may do all that we will have to.

    ``name``: of nodes that nobody else makes. Raises `Fault`.
    """
    try:
        await _make(connection, layout)
        told, *rehearsed = await connection.ask(
            data(layout.format),
            children(layout.vms),
            sync(layout.root),
            multi(partial(_rehearse, layout, name)),
            change=True,
        )
    except Fault as fault:
        if (why := connection.why()).unfit:  # the login was refused, which kazoo tells late
            raise why from fault
        raise
    if any(isinstance(answer, NoNodeError | Refused) for answer in (told, *rehearsed)):
        raise Fault(f"{connection.where}: somebody deletes the nodes in {layout.root}")
    agree(connection, layout, told)


def agree(connection: Connection, layout: Layout, told: Any) -> None:
    """Keep what ``format`` was ``told`` to hold. Raises `Fault` where that is nothing for us."""
    if isinstance(told, NoNodeError):
        raise Fault(f"{connection.where}: somebody deletes {layout.format}")
    found = told[0] or b""
    if not layout.agreed(found):
        msg = (
            f"{connection.where}: this namespace is kept in format "
            f"{found[:40].decode(errors='replace')}, this distjob reads format {FORMAT}"
        )
        advice = (
            "run the same version on every controller; to change over, stop all of them and "
            f"delete {layout.root}"
        )
        raise Fault(msg, advice, unfit=True)


async def try_size(connection: Connection) -> None:
    """Find out that as much as a commit may need is taken at once. Raises `Fault`.

    A server cuts off who sends more than its jute.maxbuffer. This asks for a node that nobody has.
    """
    try:
        await connection.ask(exists("/" + "x" * PACKET))
    except Fault as cut:
        await connection.until_connected()
        await connection.ask(exists("/"))  # else it is another matter
        msg = (
            f"{connection.where}: a request of {PACKET} bytes is not taken: jobs of a VM in whose "
            "line many wait could not begin, nor end"
        )
        advice = "set the servers' jute.maxbuffer to 1048575, its default, or more"
        raise Fault(msg, advice, unfit=True) from cut


async def _make(connection: Connection, layout: Layout) -> None:
    parts = layout.root.split("/")[1:]
    above = ["/" + "/".join(parts[: n + 1]) for n in range(len(parts))]
    folders = (layout.vms, layout.sessions, layout.beats, layout.wakes)
    paths = [*above, *folders, layout.format]
    found = await connection.ask(*map(exists, paths))
    missing = [path for path, stat in zip(paths, found, strict=True) if stat is None]
    if missing:
        creating = [multi(partial(_create, layout, path)) for path in missing]
        await connection.ask(*creating, change=True)


def _rehearse(layout: Layout, name: str, steps: Any) -> None:
    """Make, change and delete all that we ever will, in one step."""
    vm = f"{layout.vms}/~{name}"  # `layout.encoded` makes no such name
    for node in (vm, f"{vm}/life"):
        steps.create(node)
    steps.set_data(vm, b"", 0)
    steps.check(vm, 1)
    for node in (f"{vm}/life", vm):
        steps.delete(node)
    for folder in (layout.sessions, layout.beats, layout.wakes):
        steps.create(f"{folder}/~{name}", ephemeral=True)
        steps.set_data(f"{folder}/~{name}", b"")
        steps.delete(f"{folder}/~{name}")


def _create(layout: Layout, path: str, steps: Any) -> None:
    base = round(wall() * 1e6)
    steps.create(path, b"%d %d" % (FORMAT, base) if path == layout.format else b"")
