"""What browsers are shown: the VMs that are not idle as they were last seen, and what has changed.

It decides what counts as a change, and what a browser that fell behind is sent: never more than
the whole picture. It must not know who looks, nor how they are reached.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from distjob.protocol.look import JobStatus, VMStatus

SPAN = 300.0
"""Seconds that a VM's strip reaches back."""
MOST_MOODS = 60
"""Of one strip; the oldest go."""
MOST_GONE = 5_000
"""VMs gone idle that are remembered; a browser that missed more is sent the whole picture."""
FRESH = 0.2
"""Seconds for which the same JSON serves all browsers: it says what time it is."""
Mood = Literal["held", "waited", "lost", "idle"]


class Shown(msgspec.Struct):
    """A VM as it is sent: its JSON, made once for all browsers."""

    status: VMStatus
    revision: int
    json: bytes


class Picture:
    """All VMs that are not idle, and whether the store answered when it was last asked."""

    def __init__(self) -> None:
        self.revision = 0
        """Rises with each change."""
        self.vms: dict[str, Shown] = {}
        self.trouble = ""
        """Why the store could not be read; empty if it could."""
        self.since: float | None = None
        """Wall clock: since when it is so."""
        self.seen: float | None = None
        """Wall clock of the last look that succeeded."""
        self._strips: OrderedDict[str, deque[tuple[float, Mood]]] = OrderedDict()
        self._gone: deque[tuple[int, str]] = deque(maxlen=MOST_GONE)
        self._cuts: dict[int, tuple[float, bytes]] = {}

    def see(self, found: Sequence[VMStatus], wall: float) -> None:
        """The store was read."""
        self._cuts.clear()
        new = self.revision + 1
        there = {status.vm: status for status in found}
        for vm in [vm for vm in self.vms if vm not in there]:
            del self.vms[vm]
            self._gone.append((new, vm))
            self._strip(vm, "idle", wall)
            self.revision = new
        for vm, status in there.items():
            before = self.vms.get(vm)
            if before is not None and _facts(before.status) == _facts(status):
                before.status = status  # later by what time it took
            else:
                if vm not in self._strips and status.holders:
                    self._strip(vm, "held", wall - max(job.seconds for job in status.holders))
                strip = self._strip(vm, mood(status), wall)
                self.vms[vm] = Shown(status, new, _encoded(status, strip, wall))
                self.revision = new
        if self.trouble or self.seen is None:
            self.trouble, self.since, self.revision = "", wall, new
        self.seen = wall
        self._forget(wall)

    def fail(self, why: str, wall: float) -> None:
        """The store could not be read; what was seen stays."""
        self._cuts.clear()
        if self.trouble != why:
            self.since = self.since if self.trouble else wall
            self.trouble = why
            self.revision += 1

    def store(self, wall: float) -> dict[str, Any]:
        """What is known of the store, for JSON."""
        up = self.seen is not None and not self.trouble
        return {
            "up": up,
            "trouble": self.trouble,
            "since": self.since,
            "seen": self.seen,
            "age": None if self.seen is None else round(max(0.0, wall - self.seen), 3),
        }

    def cut(self, revision: int, wall: float) -> bytes:
        """What a browser that has ``revision`` needs to have this one, as JSON; 0: all of it."""
        made, json = self._cuts.get(revision, (0.0, b""))
        if not 0 <= wall - made < FRESH:
            json = self._cut(revision, wall)
            self._cuts[revision] = (wall, json)
        return json

    def _cut(self, revision: int, wall: float) -> bytes:
        full = len(self._gone) == MOST_GONE
        whole = revision == 0 or (full and revision < self._gone[0][0])
        vms = [s.json for s in self.vms.values() if whole or s.revision > revision]
        gone = [] if whole else [vm for at, vm in self._gone if at > revision]
        return msgspec.json.encode(
            {
                "revision": self.revision,
                "now": wall,
                "whole": whole,
                "store": self.store(wall),
                "span": SPAN,
                "vms": [msgspec.Raw(json) for json in vms],
                "gone": [vm for vm in gone if vm not in self.vms],
            }
        )

    def _strip(self, vm: str, now: Mood, wall: float) -> Sequence[tuple[float, Mood]]:
        strip = self._strips.setdefault(vm, deque(maxlen=MOST_MOODS))
        self._strips.move_to_end(vm)
        if not strip or strip[-1][1] != now:
            strip.append((wall, now))
        while len(strip) > 1 and strip[1][0] < wall - SPAN:
            strip.popleft()
        return strip

    def _forget(self, wall: float) -> None:
        """The strips of VMs that have been idle for long, or are too many; the longest first."""
        for vm in list(self._strips):
            strip = self._strips[vm]
            few = len(self._strips) - len(self.vms) <= MOST_GONE
            if few and strip[-1][0] >= wall - SPAN:
                return
            if vm not in self.vms:
                del self._strips[vm]


def mood(status: VMStatus) -> Mood:
    """The worst that is to be said of a VM in one word."""
    if any(job.left or not job.alive for job in status.holders):
        return "lost"
    return "waited" if status.waiters else "held"


def as_data(status: VMStatus, wall: float) -> dict[str, Any]:
    """As ``distjob status --json`` has it, but for times: since when, instead of for how long."""
    data: dict[str, Any] = msgspec.to_builtins(status)
    for place, job in [*((None, job) for job in data["holders"]), *enumerate(data["waiters"], 1)]:
        job["since"] = round(wall - job.pop("seconds"), 1)
        job["token"], job["phase"] = job["token"] or None, job["phase"] or None
        job["place"], job["waits_for"] = place, job["waits_for"] if place else None
    return data


def _encoded(status: VMStatus, strip: Sequence[tuple[float, Mood]], wall: float) -> bytes:
    shown = [(round(at, 1), mood) for at, mood in strip]
    return msgspec.json.encode(as_data(status, wall) | {"strip": shown})


def _facts(status: VMStatus) -> tuple[object, ...]:
    """What time alone does not change: a session may end without a new version of the record."""
    jobs: tuple[JobStatus, ...] = (*status.holders, *status.waiters)
    return (status.version, *(job.alive for job in jobs), *(job.left for job in jobs))
