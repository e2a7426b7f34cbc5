"""What a grant made void, for the side of the resource: pure, and all of it in the record.

At the moment of a grant each slot is either somebody's, and whoever had it before has lost it; or
it is nobody's, and all who ever had it have. So for each slot there is a *floor*, the smallest
token that is not void: that of its owner, else that of the grant itself. A resource that has taken
a change under this fence refuses every older holder that had lost its job by then, of whatever
slot, and never one whose job goes on: an owner's calls beside its own step, a query that a mask
lets in, a guest agent's job, or the two grants of one commit, whose tokens are equal.

A fence that is made of a later record, in which the job is held still, is as true: what was freed
since is void, and what was granted since is newer. An async job that was left is nobody's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from distjob.errors import BadRequest
from distjob.rules.jobs import Slot
from distjob.rules.record import JobRecord

MAX_TOKEN = 2**63 - 1
_WORD = re.compile(r"([a-z+]{1,20}):sync=(\d{1,19}),agent=(\d{1,19}),async=(\d{1,19})", re.ASCII)


class Fence(msgspec.Struct, frozen=True, gc=False, rename={"async_": "async"}):
    """The floors that go with a grant, and the slots in which it was made.

    Made by distjob (``lease.fence``, ``DISTJOB_FENCE``); as a text it is one printable word, which
    `parse` reads. Raises BadRequest for what no grant can have made.
    """

    own: tuple[Slot, ...]
    """The slots that the job holds, in the order of `Slot`; its own token is the floor of each."""
    sync: int
    agent: int
    async_: int

    def __post_init__(self) -> None:
        for token in (self.sync, self.agent, self.async_):
            _check_token(token)
        known = [slot for slot in Slot if any(slot is own for own in self.own)]
        if not self.own or list(self.own) != known:
            raise BadRequest(f"a fence is of one Slot or more, in their order, not {self.own!r}")
        if len({self.floors[slot] for slot in self.own}) > 1:
            raise BadRequest(f"{self}: the slots of one job have one token")

    @property
    def floors(self) -> dict[Slot, int]:
        """For each slot the smallest token that is not void."""
        return {Slot.SYNC: self.sync, Slot.AGENT: self.agent, Slot.ASYNC: self.async_}

    @property
    def token(self) -> int:
        """The job's own token."""
        return self.floors[self.own[0]]

    def passed(self, marks: Mapping[Slot, int]) -> Slot | None:
        """The slot in which a resource with these marks knows the job to be void; None: admit it.

        A mark is the highest floor that was admitted.
        """
        return next((slot for slot in self.own if self.floors[slot] < marks.get(slot, 0)), None)

    @classmethod
    def parse(cls, word: str) -> Fence:
        """The fence whose text ``word`` is. Raises BadRequest, which says what it should be."""
        found = _WORD.fullmatch(str(word))
        names = found[1].split("+") if found else []
        if not found or not {*names} <= {slot.value for slot in Slot}:
            raise BadRequest(
                f"{_shown(word)} is no fence: one looks like 'sync:sync=12,agent=12,async=10', and"
                " is found in DISTJOB_FENCE under `distjob run`, or is the text of a lease's fence"
            )
        return cls(tuple(map(Slot, names)), *map(int, found.groups()[1:]))

    def __str__(self) -> str:
        floors = ",".join(f"{slot.value}={floor}" for slot, floor in self.floors.items())
        return f"{'+'.join(slot.value for slot in self.own)}:{floors}"


def fence_of(record: JobRecord, ticket_id: str) -> Fence:
    """What the grant to this ticket, which must hold a job in ``record``, has made void."""
    holders = dict(record.holders())
    own = tuple(slot for slot, holder in holders.items() if holder.ticket.id == ticket_id)
    token = holders[own[0]].token
    if record.async_ and record.async_.owner_gone:
        del holders[Slot.ASYNC]
    floors = (holders[slot].token if slot in holders else token for slot in Slot)
    return Fence(own, *floors)


def _check_token(token: object) -> None:
    if type(token) is not int or not 1 <= token <= MAX_TOKEN:
        shown = type(token).__name__
        if type(token) is int:  # one of thousands of digits can't even be printed
            shown = str(token) if token.bit_length() <= 80 else f"one of {token.bit_length()} bits"
        raise BadRequest(f"a token is an int from 1 to 2**63-1, not {shown}")


def _shown(word: object) -> str:
    text = repr(word)
    return text if len(text) <= 80 else f"{text[:80]}..."
