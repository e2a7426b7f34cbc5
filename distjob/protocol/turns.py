"""The operations of one client take turns at a VM, so that they don't collide there.

Nothing but speed rests on it. An operation that a signal's handler has broken off may not come to
give up its turn: that is garbage then, and nobody's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from weakref import ref

from distjob.protocol.effects import Signal


class Turn:
    """An operation's turn to change a VM; held by that operation alone."""

    __slots__ = ("__weakref__",)


class Turns:
    """Whose turn it is, by VM, and whose after that."""

    def __init__(self, signal: Callable[[], Signal]) -> None:
        self._new_signal = signal
        self._taken: dict[str, tuple[ref[Turn], deque[tuple[ref[Turn], Signal]]]] = {}

    def __contains__(self, vm: str) -> bool:
        return vm in self._taken

    def taken(self) -> list[str]:
        """The VMs whose turn somebody has."""
        return [vm for vm, (holder, _) in self._taken.items() if holder() is not None]

    def take(self, vm: str, mine: Turn) -> Signal | None:
        """None: change ``vm`` now; else wait for this signal first. `leave` must follow."""
        if vm in self._taken and self._taken[vm][0]() is None:
            self._pass_on(vm)
        if vm not in self._taken:
            self._taken[vm] = ref(mine), deque()
            return None
        signal = self._new_signal()
        self._taken[vm][1].append((ref(mine), signal))
        return signal

    def leave(self, vm: str, mine: Turn) -> None:
        """Whoever this is has changed ``vm``, failed to, or waits for its turn no more."""
        if vm not in self._taken:
            return
        holder, after = self._taken[vm]
        if holder() is mine or holder() is None:
            self._pass_on(vm)
        else:
            self._taken[vm] = holder, deque(one for one in after if one[0]() is not mine)

    def _pass_on(self, vm: str) -> None:
        _, after = self._taken.pop(vm)
        while after:
            first, signal = after.popleft()
            if first() is not None:
                self._taken[vm] = first, after
                signal.set()
                return
