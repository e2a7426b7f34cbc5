"""Events as records of standard logging, on the logger ``distjob``.

What is grave (a lease lost, another's job broken, a keep-alive that is late, or the first of some
that fail) is logged as a warning by every client, hooks or not. The rest is for those who ask for
it, by `LogHook`. The facts are in the message, for people, and as attributes of the record, for
machines.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from distjob.hooks import (
    Begun,
    Blocker,
    Ended,
    Event,
    Evicted,
    GaveUp,
    JobEvent,
    Lost,
    Refused,
    RenewalFailed,
    Renewed,
    SessionLost,
    SessionOpened,
    StoreFailed,
    TimedOut,
    Waiting,
)
from distjob.rules.words import owner_name, shown

log = logging.getLogger("distjob")

_EVICTED = {
    "ended": "was taken out: its session had ended",
    "orphaned": "is an orphan: its session has ended; it stays until it is adopted or discarded",
    "force": "was taken out by force",
}


class LogHook:
    """A hook that logs what is not logged anyway: ``connect(..., hooks=[LogHook()])``.

    At INFO what somebody may ask about: a wait of ``long_wait`` seconds or more, one that ended
    without the job, a refusal, a session opened, not renewed or lost, a client closed while it
    held. At DEBUG all else.
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
            case Waiting() | Ended() | Renewed() | StoreFailed():
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
    """The message and its arguments, as logging takes them."""
    return _of_job(event) if isinstance(event, JobEvent) else _of_session(event)


def _of_job(event: JobEvent) -> tuple[Any, ...]:
    match event:
        case Waiting():
            text = "VM %r: %s waits, behind %d; in the way: %s"
            whom = ", ".join(map(_blocker, event.blockers)) or "others that wait"
            return text, event.vm, event.job, event.depth, whom
        case Begun():
            text = "VM %r: %s has begun after %.3f s, token %d"
            return text, event.vm, event.job, event.waited, event.token
        case TimedOut():
            text = "VM %r: %s was not granted in %.1f s; in the way: %s"
            whom = ", ".join(map(_blocker, event.blockers)) or "others that were let in first"
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
        case _:
            return "%r", event


def _of_session(event: Event) -> tuple[Any, ...]:
    match event:
        case Renewed():
            text = "the session was renewed %.3f s late; its TTL is %g s"
            return text, event.late, event.ttl
        case SessionOpened():
            return "session %s was opened; its TTL is %g s", shown(event.session), event.ttl
        case SessionLost():
            return "session %s is lost: %s", shown(event.session), shown(event.why)
        case RenewalFailed():
            text = "the session could not be renewed, in %.1f s all its jobs are lost: %s"
            return text, event.seconds, shown(event.error)
        case StoreFailed():
            known = "nobody knows whether it was done" if event.unanswered else "nothing was done"
            return "the store failed at %s, %s: %s", event.verb, known, shown(event.error)
        case _:
            return "%r", event


def _blocker(one: Blocker) -> str:
    return f"{one.job} of {owner_name(one.owner)}"


def _facts(event: Event) -> dict[str, Any]:
    """``event`` is its type's name; an owner becomes ``controller``, ``host`` and ``pid``."""
    facts = {"event": type(event).__name__, **msgspec.structs.asdict(event)}
    if isinstance(event, Evicted):
        del facts["owner"]
        facts |= msgspec.structs.asdict(event.owner)
    if isinstance(event, TimedOut | Waiting):
        facts["blockers"] = [_blocker(one) for one in event.blockers]
    return facts
