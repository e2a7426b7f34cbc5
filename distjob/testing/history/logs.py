"""From what players have written to operations of the model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distjob.testing.history.model import Op

LONG = 1.5
"""Seconds: a begin that took longer may have been granted to a session that ended."""


def read(file: Path) -> list[Op]:
    """The operations of one player; a line that was cut off by its death counts for nothing."""
    calls: dict[int, dict[str, Any]] = {}
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            continue
        fact = json.loads(line)
        if "what" in fact:
            calls[fact["n"]] = fact
        else:
            calls[fact["n"]]["told"] = fact
    ops = [op for call in calls.values() for op in _of(call)]
    gone = {
        (op.slot, op.token) for op in ops if op.what in ("end", "detach") and op.returned < math.inf
    }
    granted = [op for op in ops if op.what in ("begin", "step", "adopt") and op.token]
    lost = [op for op in granted if (op.slot, op.token) not in gone]
    return [*ops, *(Op("void", op.began, slot=op.slot, token=op.token) for op in lost)]


def untold(ops: Iterable[Op]) -> list[Op]:
    """Grants that others saw, and nobody was told of: who waited was evicted before it knew, and
    has asked again.
    """
    ops = list(ops)
    told = {op.token for op in ops}
    seen = {
        (slot, token): op
        for op in ops
        if op.what == "evict"
        for slot, token in op.more
        if token not in told
    }
    return [
        Op("begin", op.began - LONG, slot=slot, token=token, until=op.returned)
        for (slot, token), op in seen.items()
    ]


def _of(call: dict[str, Any]) -> Iterator[Op]:
    told = call.get("told", {"error": "killed"})
    what, began = call["what"], call["at"]
    returned, error = told.get("at", math.inf), told.get("error", "")
    op = Op(what, began, returned, call.get("slot", ""), job=call.get("job", ""))
    if what in ("begin", "try", "step", "adopt"):
        yield from _begin(op._replace(more=call.get("of")), told.get("token", 0), error)
    elif what == "abort":
        yield from _nobodys(op._replace(what="begin", slot="sync", job="abort", until=returned))
        if not error:
            yield op
    elif what in ("end", "allow", "detach"):
        op = op._replace(token=call["of"], more=call.get("mask"))
        op = op._replace(slot="async") if what == "detach" else op
        yield op._replace(returned=math.inf) if error else op
    elif error:
        return
    elif what == "status":
        yield op._replace(more=told["held"])
    elif what == "evict":
        yield op._replace(more=[tuple(one) for one in told["took"]])
    else:
        yield op._replace(token=told["token"])


def _begin(op: Op, token: int, error: str) -> Iterator[Op]:
    what = "begin" if op.what == "try" else op.what
    op = op._replace(what=what)
    if token:
        yield op._replace(token=token)
    elif not error:
        yield op._replace(what="busy")
    if op.returned - op.began > LONG or error not in ("", "JobTimeout", "NotOwner", "WrongJob"):
        yield from _nobodys(op)


def _nobodys(op: Op) -> Iterator[Op]:
    """A grant that nobody was told of, perhaps, and its end."""
    yield op._replace(returned=math.inf)
    yield Op("void", op.began, slot=op.slot)
