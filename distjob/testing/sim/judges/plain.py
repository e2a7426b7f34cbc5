"""The rules of jobs once more, in the dumbest way: what a simulated world is judged by.

Shares no code with `distjob.rules`, and reads a stored value as bare JSON, so that a mistake there
is not repeated here. Slow, mutable, and knows nothing of stores, sessions' lives or time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

PlainTicket = dict[str, Any]
"""A ticket as it stands in the store."""

_ALWAYS_ASKED = ("query", "destroy", "abort")
_FRESH = {"mask": _ALWAYS_ASKED, "left": "", "phase": "", "progress": None, "abort": None}
"""What is said of an async job that has just begun."""


def slots_of(ticket: PlainTicket) -> list[str]:
    """The slots that this ticket takes when it is let in."""
    job = ticket.get("job")
    slots = [] if job is None else ["async" if job == "async" else "sync"]
    return [*slots, "agent"] if ticket.get("agent") else slots


def outlives(ticket: PlainTicket) -> bool:
    """Whether this async job stays when its owner's session ends."""
    return bool(ticket.get("on_owner_loss") == "orphan")


class Plain:
    """A VM's jobs: who sits in which slot, and who waits, oldest first."""

    def __init__(self, value: bytes | None = None) -> None:
        raw = msgspec.json.decode(value[value.index(b"{") :]) if value else {}
        taken = {slot: raw[slot] for slot in ("sync", "agent", "async") if raw.get(slot)}
        self.seats: dict[str, PlainTicket] = {slot: taken[slot]["ticket"] for slot in taken}
        self.tokens: dict[str, int] = {slot: taken[slot].get("token", 0) for slot in taken}
        said = taken.get("async", {})
        self.long: dict[str, Any] = {name: said.get(name, _FRESH[name]) for name in _FRESH}
        self.long["mask"] = tuple(self.long["mask"])
        self.queue: list[PlainTicket] = list(raw.get("queue", ()))
        self.seated: set[str] = set()
        """Who was let in since this was copied: by the commit that is under way."""

    def copy(self) -> Plain:
        """One that can be changed without changing this one."""
        other = Plain()
        other.seats, other.long, other.queue = dict(self.seats), dict(self.long), list(self.queue)
        return other

    @property
    def left(self) -> str:
        """How the async job came to have no owner; empty if it has one, or none runs."""
        return str(self.long["left"])

    @property
    def running(self) -> PlainTicket | None:
        """The async job's ticket: its owner's, or the last owner's."""
        return self.seats.get("async")

    @property
    def fresh(self) -> bool:
        """Whether nothing was said of the async job yet."""
        return self.long == _FRESH

    def tickets(self) -> Iterator[PlainTicket]:
        """Each ticket once."""
        yield from {ticket["id"]: ticket for ticket in self.seats.values()}.values()
        yield from self.queue

    def owned(self) -> Iterator[PlainTicket]:
        """Each ticket that is somebody's: all but that of an async job that was left."""
        nobodys = self.running if self.left else None
        yield from (ticket for ticket in self.tickets() if ticket is not nobodys)

    def ids(self) -> set[str]:
        """The ids of all who hold or wait."""
        return {ticket["id"] for ticket in self.tickets()}

    def may_start(self, ticket: PlainTicket) -> bool:
        """Whether the slots it needs are free and no async job, left or not, keeps it out."""
        job = ticket.get("job")
        if job is not None:
            if "sync" in self.seats:
                return False
            if "async" in self.seats and job not in ("async nested", *self.long["mask"]):
                return False
        return not (ticket.get("agent") and "agent" in self.seats)

    def may_step(self, ticket: PlainTicket) -> bool:
        """Whether it is a step of the async job that runs, by the owner of that."""
        running = self.running
        if running is None or self.left:
            return False
        names = (ticket["parent"], ticket["session"], ticket["kind"])
        return names == (running["id"], running["session"], running["kind"])

    def full(self, ticket: PlainTicket, max_queued: int) -> bool:
        """Whether ``max_queued`` keeps it out, or a line that is longer than any may be."""
        exempt = ticket.get("job") in ("async", "destroy")
        too_many = not exempt and 0 < max_queued < len(self.ids()) + 1
        return too_many or (len(self.queue) >= 10_000 and not self.may_start(ticket))

    def add(self, ticket: PlainTicket) -> None:
        """Let it in, or have it wait behind all others."""
        if self.may_start(ticket):
            self._seat(ticket)
        else:
            self.queue.append(ticket)

    def remove(self, ids: Collection[str]) -> None:
        """Take these out of slots and queue, and the steps that wait; lets nobody in yet."""
        for slot in [slot for slot, ticket in self.seats.items() if ticket["id"] in ids]:
            del self.seats[slot]
        self._drop(ids)
        if "async" not in self.seats:
            self.long = dict(_FRESH)

    def void(self, ids: Collection[str]) -> None:
        """As `remove`, their sessions having ended: an async job may stay, as an orphan."""
        stays = self.running
        if stays is not None and stays["id"] in ids and outlives(stays) and not self.left:
            self._drop([stays["id"]])
            self.long["left"] = "orphaned"
            ids = set(ids) - {stays["id"]}
        self.remove(ids)

    def force(self, ids: Collection[str]) -> None:
        """As `remove`, with the steps that are under way, too."""
        self.remove(
            {t["id"] for t in self.tickets() if t["id"] in ids or t.get("parent", "") in ids}
        )

    def detach(self) -> None:
        """The async job's owner gives it up."""
        running = self.running
        if running is not None:
            self._drop([running["id"]])
            self.long["left"] = "detached"

    def adopt(self, ticket: PlainTicket) -> None:
        """The async job is this one's now, as the last owner left it."""
        self.seats["async"] = ticket
        self.long["left"] = ""

    def let_in(self) -> None:
        """The oldest that may start, again and again; then the async request of libvirt's quirk.

        The quirk: if a sync job was let in that every async job lets in, and no async job runs,
        the oldest async request starts with it, if it shuts out none that is older.
        """
        before = self.seats.get("sync")
        while first := next((t for t in self.queue if self.may_start(t)), None):
            self._seat(first)
            self.queue.remove(first)
        sync = self.seats.get("sync")
        if sync is None or sync is before or "async" in self.seats:
            return
        later = next((t for t in self.queue if t.get("job") == "async"), None)
        if later is None or sync.get("job") not in _ALWAYS_ASKED:
            return
        older = self.queue[: self.queue.index(later)]
        if all(t.get("job") in (None, *_ALWAYS_ASKED) for t in older):
            self._seat(later)
            self.queue.remove(later)

    def _drop(self, ids: Collection[str]) -> None:
        """Out of the queue, with their steps: those that wait, or were let in just now."""
        self.queue = [t for t in self.queue if t["id"] not in ids and t.get("parent") not in ids]
        step = self.seats.get("sync", {})
        if step.get("parent") in ids and step["id"] in self.seated:
            del self.seats["sync"]

    def _seat(self, ticket: PlainTicket) -> None:
        self.seated.add(ticket["id"])
        for slot in slots_of(ticket):
            self.seats[slot] = ticket
            if slot == "async":
                self.long = dict(_FRESH)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and str(self) == str(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __str__(self) -> str:
        words = [f"{slot}={self.seats[slot]['id']}" for slot in sorted(self.seats)]
        if "async" in self.seats:
            words.append(f"mask={','.join(self.long['mask'])}")
            words += [f"{name}={self.long[name]}" for name in ("left", "phase") if self.long[name]]
            if self.long["abort"]:
                words.append(f"abort={self.long['abort'].get('reason')}")
        queue = " ".join(ticket["id"] for ticket in self.queue)
        return f"[{' '.join(words)} | {queue}]"
