"""The rules of jobs once more, in the dumbest way: what a simulated world is judged by.

Shares no code with `distjob.record` and reads a stored value as bare JSON, so that a mistake there
is not repeated here. Slow, mutable, and knows nothing of stores, sessions' lives or time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

PlainTicket = dict[str, Any]
"""A ticket as it stands in the store."""

_ALWAYS_ASKED = ("query", "destroy", "abort")


def slots_of(ticket: PlainTicket) -> list[str]:
    """The slots that this ticket takes when it is let in."""
    job = ticket.get("job")
    slots = [] if job is None else ["async" if job == "async" else "sync"]
    return [*slots, "agent"] if ticket.get("agent") else slots


class Plain:
    """A VM's jobs: who sits in which slot, and who waits, oldest first."""

    def __init__(self, value: bytes | None = None) -> None:
        raw = msgspec.json.decode(value[value.index(b"{") :]) if value else {}
        taken = {slot: raw[slot] for slot in ("sync", "agent", "async") if raw.get(slot)}
        self.seats: dict[str, PlainTicket] = {slot: taken[slot]["ticket"] for slot in taken}
        self.tokens: dict[str, int] = {slot: taken[slot].get("token", 0) for slot in taken}
        self.mask = tuple(taken.get("async", {}).get("mask", _ALWAYS_ASKED))
        self.queue: list[PlainTicket] = list(raw.get("queue", ()))

    def copy(self) -> Plain:
        """One that can be changed without changing this one."""
        other = Plain()
        other.seats, other.mask, other.queue = dict(self.seats), self.mask, list(self.queue)
        return other

    def tickets(self) -> Iterator[PlainTicket]:
        """Each ticket once."""
        yield from {ticket["id"]: ticket for ticket in self.seats.values()}.values()
        yield from self.queue

    def ids(self) -> set[str]:
        """The ids of all who hold or wait."""
        return {ticket["id"] for ticket in self.tickets()}

    def may_start(self, ticket: PlainTicket) -> bool:
        """Whether the slots it needs are free and no async job keeps it out."""
        job = ticket.get("job")
        if job is not None:
            if "sync" in self.seats:
                return False
            if "async" in self.seats and job != "async nested" and job not in self.mask:
                return False
        return not (ticket.get("agent") and "agent" in self.seats)

    def full(self, ticket: PlainTicket, max_queued: int) -> bool:
        """Whether ``max_queued`` keeps it out."""
        exempt = ticket.get("job") in ("async", "destroy")
        return not exempt and 0 < max_queued < len(self.ids()) + 1

    def add(self, ticket: PlainTicket) -> None:
        """Let it in, or have it wait behind all others."""
        if self.may_start(ticket):
            self._seat(ticket)
        else:
            self.queue.append(ticket)

    def remove(self, ids: Collection[str]) -> None:
        """Take these out of slots and queue; lets nobody in yet."""
        for slot in [slot for slot, ticket in self.seats.items() if ticket["id"] in ids]:
            del self.seats[slot]
        self.queue = [ticket for ticket in self.queue if ticket["id"] not in ids]
        if "async" not in self.seats:
            self.mask = _ALWAYS_ASKED

    def let_in(self) -> None:
        """The oldest that may start, again and again; then the async request of libvirt's quirk.

        The quirk: if a sync job was let in that every async job lets in, and no async job runs,
        the oldest async request starts with it.
        """
        before = self.seats.get("sync")
        while first := next((t for t in self.queue if self.may_start(t)), None):
            self._seat(first)
            self.queue.remove(first)
        sync = self.seats.get("sync")
        if sync is None or sync is before or "async" in self.seats:
            return
        later = next((t for t in self.queue if t.get("job") == "async"), None)
        if sync.get("job") in _ALWAYS_ASKED and later:
            self._seat(later)
            self.queue.remove(later)

    def _seat(self, ticket: PlainTicket) -> None:
        for slot in slots_of(ticket):
            self.seats[slot] = ticket
            if slot == "async":
                self.mask = _ALWAYS_ASKED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and str(self) == str(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __str__(self) -> str:
        seats = " ".join(f"{slot}={self.seats[slot]['id']}" for slot in sorted(self.seats))
        mask = f" mask={','.join(self.mask)}" if "async" in self.seats else ""
        queue = " ".join(ticket["id"] for ticket in self.queue)
        return f"[{seats}{mask} | {queue}]"
