"""Arguments that are one of a few: which member is meant, and what is said if it is none.

Enums of distjob's have texts in common (`Job.MODIFY` and `AgentJob.MODIFY` are both "modify", and
equal), so a member of one is never taken for another's; a text is good wherever it is known. Knows
where each type belongs, but not what is begun with it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from contextlib import suppress
from enum import Enum, StrEnum
from typing import TypeVar

from distjob.errors import BadRequest
from distjob.rules.jobs import PLAIN_JOBS, AgentJob, AsyncJob, Job, OnOwnerLoss, Slot

E = TypeVar("E", bound=StrEnum)

_HOMES: dict[type[StrEnum], tuple[str, str]] = {
    # What a member is, and what takes it. A text that several have is looked for in this order.
    Job: ("a sync job", "begin(), try_begin() and allow()"),
    AgentJob: ("a job of the guest agent", "begin_agent() and begin(..., agent=...)"),
    AsyncJob: ("an async job", "begin_async() and adopt()"),
    OnOwnerLoss: ("a value of on_owner_loss", "begin_async(..., on_owner_loss=...)"),
    Slot: ("a slot", "distjob.fencing.Guard"),
}


def chosen(kinds: type[E], value: object, vm: str) -> E:
    """The member of ``kinds`` that ``value`` is, or is the text of. Raises BadRequest."""
    found = value
    if isinstance(value, str) and not isinstance(value, Enum):
        with suppress(ValueError):
            found = kinds(value)
    if isinstance(found, kinds) and not _is_request(found):
        return found
    raise BadRequest(f"VM {vm!r}: {_refusal(kinds, value)}")


def _is_request(member: object) -> bool:
    """Whether it is a job that is never asked for by its name."""
    return isinstance(member, Job) and member not in PLAIN_JOBS


def _refusal(kinds: type[StrEnum], value: object) -> str:
    known = [member.value for member in kinds if not _is_request(member)]
    listed = ", ".join(known)
    member = value if isinstance(value, Enum) else _found_elsewhere(value)
    if member is None:
        noun, _ = _HOMES[kinds]
        meant = suggestion(value, known) if isinstance(value, str) else ""
        return f"{_shown(value)} is not {noun}{meant} (known: {listed})"
    return f"{_shown(value)} {_home(kinds, member)} (known here: {listed})"


def _found_elsewhere(text: object) -> StrEnum | None:
    if not isinstance(text, str):
        return None
    return next((one for kinds in _HOMES for one in kinds if one.value == text), None)


def _home(asked: type[StrEnum], member: Enum) -> str:
    if _is_request(member):
        return "is made by begin_async() and its lease's nested(), never asked for"
    for kinds, (noun, takers) in _HOMES.items():
        if isinstance(member, kinds):
            return f"is {noun}, for {takers}"
    return f"is of an enum that is not distjob's: pass a member of {asked.__name__}, or its text"


def _shown(value: object) -> str:
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def suggestion(name: str, known: Collection[str]) -> str:
    """``; did you mean 'x'?``, or nothing. Takes no notice of case, nor of `-`, `_` and blank."""
    like = {_plain(one): one for one in known}
    near = difflib.get_close_matches(_plain(name), like, 1)
    return f"; did you mean {like[near[0]]!r}?" if near else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")
