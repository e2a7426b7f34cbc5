"""Events as records of standard logging, on the logger ``distjob``.

What is grave (a lease lost, another's job broken, a keep-alive late) is logged as a warning by
every client, hooks or not. The rest is for those who ask for it, by `LogHook`. The facts are in
the message, for people, and as attributes of the record, for machines.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from distjob.hooks import (
    Begun,
    Ended,
    Event,
    Evicted,
    GaveUp,
    Lost,
    Refused,
    Renewed,
    TimedOut,
    Waiting,
)
from distjob.rules.words import owner_name

log = logging.getLogger("distjob")

_EVICTED = {
    "ended": "was taken out: its session had ended",
    "orphaned": "is an orphan: its session has ended; it stays until it is adopted or discarded",
    "force": "was taken out by force",
}


class LogHook:
    """A hook that logs what is not logged anyway: ``connect(..., hooks=[LogHook()])``.

    At INFO what somebody may ask about: a wait of ``long_wait`` seconds or more, one that ended
    without the job, a refusal, a client closed while it held. At DEBUG all else.
    """

    def __init__(self, *, long_wait: float = 1.0) -> None:
        self._long_wait = long_wait

    def __call__(self, event: Event) -> None:
        if not event.grave:
            _log(self._level(event), event)

    def _level(self, event: Event) -> int:
        match event:
            case Begun(waited=waited) if waited < self._long_wait:
                return logging.DEBUG
            case Waiting() | Ended() | Renewed():
                return logging.DEBUG
            case _:
                return logging.INFO


def warn(event: Event) -> None:
    """Log ``event`` if it is grave. Every client does that before it tells its hooks."""
    if event.grave:
        _log(logging.WARNING, event)


def _log(level: int, event: Event) -> None:
    if log.isEnabledFor(level):
        log.log(level, *_said(event), extra=_facts(event))


def _said(event: Event) -> tuple[Any, ...]:
    match event:
        case Waiting():
            return "VM %r: %s waits, behind %d", event.vm, event.job, event.depth
        case Begun():
            text = "VM %r: %s has begun after %.3f s, token %d"
            return text, event.vm, event.job, event.waited, event.token
        case TimedOut():
            text = "VM %r: %s was not granted in %.1f s; in the way: %s"
            whom = ", ".join(map(owner_name, event.blockers)) or "others that were let in first"
            return text, event.vm, event.job, event.waited, whom
        case GaveUp():
            return "VM %r: %s waits no more after %.1f s", event.vm, event.job, event.waited
        case Refused():
            text = "VM %r: %s was refused: %d jobs are held or waited for"
            return text, event.vm, event.job, event.depth
        case Ended():
            text = "VM %r: %s has ended after %.3f s, token %d"
            return text, event.vm, event.job, event.held, event.token
        case Lost():
            text = "VM %r: the lease of %s is lost after %.1f s, token %d: %s"
            return text, event.vm, event.job, event.held, event.token, event.why
        case Evicted():
            whom, what = owner_name(event.owner), _EVICTED[event.how]
            state = f"held {event.seconds:.1f} s, token {event.token}"
            if not event.token:
                state = f"waited {event.seconds:.1f} s"
            text = "VM %r: %s of %s, %s, ticket %r, %s"
            return text, event.vm, event.job, whom, state, event.ticket, what
        case Renewed():
            text = "the session was renewed %.3f s late; its TTL is %g s"
            return text, event.late, event.ttl
        case _:
            return "%r", event


def _facts(event: Event) -> dict[str, Any]:
    """``event`` is its type's name; an owner becomes ``controller``, ``host`` and ``pid``."""
    facts = {"event": type(event).__name__, **msgspec.structs.asdict(event)}
    if isinstance(event, Evicted):
        del facts["owner"]
        facts |= msgspec.structs.asdict(event.owner)
    if isinstance(event, TimedOut):
        facts["blockers"] = [owner_name(owner) for owner in event.blockers]
    return facts
