"""Begin and end several jobs, of a VM each: one at a time, in one order for all, all or none.

It decides the order, which keeps requests that cross from waiting for each other in a circle; what
is asked for again; what is given back. VMs may be in several stores, each with a client of its own:
so a plan yields which client is to run which operation next, and is told how that came out.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from distjob.errors import DistjobError, LeaseLost
from distjob.protocol import begin as beginning
from distjob.protocol import held as holding
from distjob.protocol.change import abandon
from distjob.protocol.effects import Op
from distjob.protocol.parts import HeldJob, Wish
from distjob.protocol.state import ClientState


class Runs(Protocol):
    """What runs the operations of one client."""

    me: ClientState


R = TypeVar("R", bound=Runs)
T = TypeVar("T")

Plan: TypeAlias = Generator[tuple[R, Op[Any]], Any, T]
"""Yields an operation and who is to run it; is sent its result, or thrown its error."""
Held: TypeAlias = tuple[R, HeldJob]


class Part(NamedTuple):
    """One of the jobs that are asked for."""

    vm: str
    wish: Wish


def begin_many(
    parts: Sequence[tuple[R, Part]], started: float, wait: float
) -> Plan[R, list[Held[R]]]:
    """Begin all jobs, within ``wait`` seconds since ``started`` for them all; or none.

    ``parts``: one for each VM, in the order in which everybody begins them. A job that is lost
    before all are held is asked for again, and so is each that comes after it: whoever waits holds
    nothing that is later in the order.
    """
    held: list[Held[R]] = []
    until = started + wait
    try:
        while len(held) < len(parts):
            runner, (vm, wish) = parts[len(held)]
            patience = max(0.0, until - runner.me.clock.monotonic())
            job: HeldJob = yield runner, beginning.begin(runner.me, vm, wish, patience)
            held.append((runner, job))
            if (lost := _first_lost(held)) is None:
                continue
            runner, job = held[lost]
            vm, error = job.vm, holding.refusal(job)
            if runner.me.clock.monotonic() >= until:
                raise error
            back, held = held[lost:], held[:lost]
            yield from _give_back(back)
    except GeneratorExit:  # nobody runs anything any more
        for runner, job in held:
            holding.leave(runner.me, job)
        raise
    except BaseException as error:
        at_once = yield from _give_back(held)
        if isinstance(error, DistjobError) and len(parts) > 1:
            seconds = parts[0][0].me.clock.monotonic() - started
            others = [job.vm for _, job in held if job.vm != vm]
            error.add_note(_note(vm, others, len(parts), seconds, at_once=at_once))
        raise
    return held


def end_many(held: Sequence[Held[R]]) -> Plan[R, None]:
    """End each that was not ended yet, the last first.

    An error keeps none of the others from its end, nor does a cancellation; of several errors the
    gravest is raised.
    """
    left = [(runner, job) for runner, job in held if not job.ended]
    if not left:
        raise holding.refusal(held[-1][1])
    errors: list[DistjobError] = []
    try:
        while left:
            runner, job = left[-1]
            try:
                yield runner, holding.end(runner.me, job)
            except DistjobError as error:
                errors.append(error)
            left.pop()
    except GeneratorExit:
        for runner, job in left:
            holding.leave(runner.me, job)
        raise
    except BaseException:  # a cancelled end still ends
        yield from _give_back(left)
        raise
    if errors:
        gravest = min(errors, key=lambda error: not isinstance(error, LeaseLost))
        for other in errors:
            if other is not gravest:
                gravest.add_note(f"and also: {other}")
        raise gravest


def _first_lost(held: Sequence[Held[R]]) -> int | None:
    for number, (runner, job) in enumerate(held):
        if not job.holds(runner.me.clock.monotonic()):
            return number
    return None


def _give_back(held: Sequence[Held[R]]) -> Plan[R, bool]:
    """End what nobody has any more; False if a store did not answer, so that the hands do it."""
    for runner, job in held:  # at first, for a second Ctrl-C
        yield runner, _leaving(runner.me, job)
    silent: set[int] = set()
    for runner, job in reversed(held):
        if id(runner) not in silent and not (yield runner, _dropping(runner.me, job)):
            silent.add(id(runner))
    return not silent


def _leaving(me: ClientState, job: HeldJob) -> Op[None]:
    yield from ()
    holding.leave(me, job)


def _dropping(me: ClientState, job: HeldJob) -> Op[bool]:
    """Take out now what was left to the hands; True if it is out."""
    if (job.vm, job.ticket.id) not in me.leftovers:
        return True  # they have done it, or its session has ended
    return (yield from abandon(me, job.session, job.vm, job.ticket.id))


def _note(vm: str, held: Sequence[str], count: int, seconds: float, *, at_once: bool) -> str:
    """What became of the others; the error itself says what became of ``vm``."""
    text = f"VM {vm!r} was one of {count} whose jobs were to be begun together, for {seconds:.1f} s"
    if not held:
        return f"{text}; none of the others was held"
    how = "was given back" if at_once else "is given back as soon as the store answers"
    return f"{text}; what was held of the others {how}: {', '.join(map(repr, held))}"
