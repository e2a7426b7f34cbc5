"""Connecting: what all controllers of a namespace need and agree on, made, read and rehearsed.

Everything that can be wrong is found out here, as a mistake in the settings, rather than with a
job held.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from kazoo.exceptions import NoNodeError

from distjob.backend.source import Fault
from distjob_zookeeper.client.asking import Refused, children, data, exists, multi, sync
from distjob_zookeeper.client.connection import Connection
from distjob_zookeeper.layout import FORMAT, Layout


async def prepare(connection: Connection, layout: Layout, name: str) -> None:
    """Make what nodes are missing, and find out that we may do all that we will have to.

    ``name``: of nodes that nobody else makes. Raises `Fault`.
    """
    try:
        await _make(connection, layout)
        written, *rehearsed = await connection.ask(
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
    for answer in (written, *rehearsed):
        if isinstance(answer, NoNodeError | Refused):
            raise Fault(f"{connection.where}: somebody deletes the nodes in {layout.root}")
    found = bytes(written[0] or b"").decode(errors="replace")
    if found != str(FORMAT):
        msg = (
            f"{connection.where}: this namespace is kept in format {found[:40]}, this distjob "
            f"reads format {FORMAT}"
        )
        advice = (
            "run the same version on every controller; to change over, stop all of them and "
            f"delete {layout.root}"
        )
        raise Fault(msg, advice, unfit=True)


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
    steps.create(path, b"%d" % FORMAT if path == layout.format else b"")
