"""The rules for one VM in sequence, and the search for an order that explains a history.

It knows no queue: that the oldest is first is checked by worlds and the explorer. A job is named by
its slot and token, as two grants of one commit have the same token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

FIRST_MASK = frozenset(("query", "destroy", "abort"))


class Op(NamedTuple):
    """One operation as its caller saw it."""

    what: str
    """``begin``, ``step``, ``end``, ``busy``, ``allow``, ``detach``, ``adopt``, ``discard``,
    ``evict``, ``abort``, ``status``; ``void``: a job ends with its session.
    """
    began: float
    returned: float = math.inf
    """Infinite: nobody knows whether it took effect."""
    slot: str = ""
    token: int = 0
    """0: of a grant that nobody was told of."""
    job: str = ""
    """Empty: of a grant that nobody was told of, so that no mask can be asked."""
    more: Any = None
    until: float = math.inf
    """When it can take effect at the latest."""


class State(NamedTuple):
    """Who has which slot, by token; 0: nobody, -1: somebody of whom nobody was told."""

    sync: int = 0
    agent: int = 0
    long: int = 0
    parent: int = 0
    """Of the step in the sync slot."""
    left: bool = False
    mask: frozenset[str] = FIRST_MASK
    last: int = 0
    """The largest token that was granted."""

    def free(self, slot: str) -> State:
        if slot == "sync":
            return self._replace(sync=0, parent=0)
        if slot == "agent":
            return self._replace(agent=0)
        return self._replace(long=0, left=False, mask=FIRST_MASK)

    def has(self, slot: str) -> int:
        return {"sync": self.sync, "agent": self.agent, "async": self.long}[slot]


def apply(state: State, op: Op) -> State | None:  # noqa: C901  one case for each operation
    """What follows if ``op`` takes effect now; None if it can't."""
    match op.what:
        case "begin" | "step" | "adopt":
            return _grant(state, op)
        case "end" | "void":
            held = state.has(op.slot)
            if not op.token and held != -1:
                return None
            return state.free(op.slot) if held == (op.token or -1) else None
        case "busy":
            asked = op._replace(what="begin", token=state.last + 1)
            return state if _grant(state, asked) is None else None
        case "allow":
            owned = state.long == op.token and not state.left
            return state._replace(mask=frozenset((*op.more, "destroy"))) if owned else None
        case "detach":
            owned = state.long == op.token and not state.left
            return state._replace(left=True) if owned else None
        case "discard":
            if state.long != op.token:
                return state  # its owner had died: that has ended it
            if not state.left:
                return None
            rest = state.free("sync") if state.parent == state.long else state
            return rest.free("async")
        case "evict":
            if any(state.has(slot) not in (-1, token) for slot, token in op.more):
                return None
            for slot, _ in op.more:
                state = state.free(slot)
            return state
        case "abort":
            return state if state.long else None
        case "status":
            seen = {slot: state.has(slot) for slot in ("sync", "agent", "async")}
            same = all(has in (-1, op.more.get(slot, 0)) for slot, has in seen.items())
            return state if same else None
    raise ValueError(f"no such operation: {op}")


def _grant(state: State, op: Op) -> State | None:
    token = op.token or -1
    if op.token and op.token < state.last:
        return None
    last = max(state.last, token)
    if op.what == "adopt":
        if not (state.long and state.left) or op.token == state.last:
            return None
        return state._replace(long=token, left=False, last=last)
    if op.slot == "async":
        beside = state.sync and state.sync != token
        free = not state.long and not beside
        return state._replace(long=token, mask=FIRST_MASK, left=False, last=last) if free else None
    if state.has(op.slot):
        return None
    if op.slot == "agent":
        return state._replace(agent=token, last=last)
    if op.what == "step":
        mine = state.long == op.more and not state.left
        return state._replace(sync=token, parent=op.more, last=last) if mine else None
    if state.long and op.job and op.job not in state.mask:
        return None
    return state._replace(sync=token, parent=0, last=last)


def explain(ops: Sequence[Op]) -> list[Op]:
    """The longest beginning of an order that explains ``ops``; all that must be in it, if any does.

    Check the result by `unexplained`.
    """
    ops = sorted(ops, key=lambda op: op.began)
    must = sum(1 << i for i, op in enumerate(ops) if op.returned < math.inf)
    seen: set[tuple[int, State]] = set()
    best: list[Op] = []
    stack: list[tuple[int, State, tuple[int, ...], float]] = [(0, State(), (), 0.0)]
    while stack:
        done, state, order, now = stack.pop()
        if len(order) > len(best):
            best = [ops[i] for i in order]
        if done & must == must:
            return [ops[i] for i in order]
        open_ = [i for i in range(len(ops)) if not done >> i & 1]
        first = min(ops[i].returned for i in open_)
        nexts = []
        for i in open_:
            op = ops[i]
            if op.began > first:
                break
            if max(now, op.began) > op.until:
                continue
            after = apply(state, op)
            if after is not None and (done | 1 << i, after) not in seen:
                seen.add((done | 1 << i, after))
                nexts.append((op.returned, i, after, max(now, op.began)))
        nexts.sort(reverse=True, key=lambda one: one[0])  # who has returned first is tried first
        for _, i, after, then in nexts:
            stack.append((done | 1 << i, after, (*order, i), then))
    return best


def unexplained(ops: Sequence[Op]) -> list[Op]:
    """The operations with a known outcome that no order explains; empty if one explains all."""
    order = explain(ops)
    return sorted(
        (op for op in ops if op.returned < math.inf and op not in order), key=lambda op: op.returned
    )
