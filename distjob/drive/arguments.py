"""The arguments of both clients' calls, checked, and made into what the protocol is asked for.

Raises BadRequest, naming the VM, before anything is sent. Runs nothing: see the drivers.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from enum import Enum

from distjob import clock
from distjob.drive import forgotten
from distjob.drive.choices import chosen
from distjob.drive.names import Seconds, check_label, check_ttl, check_vm, check_wait
from distjob.errors import BadRequest
from distjob.protocol import begin as beginning
from distjob.protocol import outside
from distjob.protocol.effects import Op, Signal
from distjob.protocol.look import JobStatus
from distjob.protocol.many import Part
from distjob.protocol.parts import HeldJob, Wish
from distjob.protocol.state import ClientState
from distjob.rules.jobs import AgentJob, AsyncJob, Job, Mask, OnOwnerLoss, mask_of
from distjob.rules.ticket import Owner, Progress
from distjob.store import Guarantees


def controller(
    guarantees: Guarantees,
    signal: Callable[[], Signal],
    *,
    name: str,
    ttl: float,
    wait: float,
    max_queued: int,
    hooked: bool,
) -> ClientState:
    """The state of a client of this process, its arguments checked. Raises BadRequest."""
    if max_queued < 0:
        raise BadRequest(f"max_queued is {max_queued}: 0 (no limit) or more is right")
    host = socket.gethostname()
    made = ClientState(
        Owner(check_label("a controller's name", name or host), host, os.getpid()),
        ttl=check_ttl(ttl),
        wait=check_wait(wait),
        max_queued=max_queued,
        pushed=guarantees.wakes == "push",
        clock=clock,
        signal=signal,
        hooked=hooked,
    )
    forgotten.watch(made)
    return made


# -- operations -----------------------------------------------------------------------------------


def begin(me: ClientState, vm: str, wish: Wish, wait: Seconds | None) -> Op[HeldJob]:
    """Begin, waiting ``wait`` seconds or the client's default: it is never refused as busy."""
    return beginning.begin(me, check_vm(vm), wish, _patience(me, wait))


def begin_now(me: ClientState, vm: str, wish: Wish) -> Op[HeldJob | None]:
    """Begin without waiting; None if it is busy."""
    return beginning.begin_now(me, check_vm(vm), wish)


def adopt(me: ClientState, vm: str, kind: object, api: str) -> Op[HeldJob]:
    """Become the owner of an async job that was left."""
    kind = chosen(AsyncJob, kind, vm)
    wish = Wish(_label(api or kind), job=Job.ASYNC, kind=kind, adopts=True)
    return beginning.adopt(me, check_vm(vm), wish)


def abort(me: ClientState, vm: str, reason: str, api: str, wait: Seconds | None) -> Op[JobStatus]:
    why = check_label("a reason", reason)
    label = _label(api or "abort")
    return outside.abort(me, check_vm(vm), why, label, _patience(me, wait))


def _patience(me: ClientState, wait: Seconds | None) -> float:
    return me.wait if wait is None else check_wait(wait)


# -- what is asked for ----------------------------------------------------------------------------


def sync(vm: str, job: object, agent: object, api: str) -> Wish:
    kind = chosen(Job, job, vm)
    both = None if agent is None else chosen(AgentJob, agent, vm)
    return Wish(_label(api or kind), job=kind, agent=both)


def agent(vm: str, job: object, api: str) -> Wish:
    kind = chosen(AgentJob, job, vm)
    return Wish(_label(api or kind), agent=kind)


def long(vm: str, kind: object, on_owner_loss: object, api: str) -> Wish:
    kind = chosen(AsyncJob, kind, vm)
    policy = chosen(OnOwnerLoss, on_owner_loss, vm)
    return Wish(_label(api or kind), job=Job.ASYNC, kind=kind, on_owner_loss=policy)


def any_job(vm: str, job: object, api: str) -> Wish:
    """What `begin_many` is told of one VM."""
    match job:
        case AgentJob():
            return agent(vm, job, api)
        case (plain, of_the_agent):
            return sync(vm, plain, of_the_agent, api)
        case AsyncJob():
            return long(vm, job, OnOwnerLoss.RELEASE, api)
        case str() if not isinstance(job, Enum) and job in {*AsyncJob}:
            return long(vm, job, OnOwnerLoss.RELEASE, api)
    return sync(vm, job, None, api)


def many(jobs: Mapping[str, object], api: str) -> list[Part]:
    """What is asked for together, in the order in which everybody begins it: of the VMs' names."""
    if not isinstance(jobs, Mapping):
        raise BadRequest(f"begin_many takes {{vm: job, ...}}, not {type(jobs).__name__}")
    if not jobs:
        raise BadRequest("begin_many was given no VM, so that nothing would be held")
    return [Part(vm, any_job(vm, jobs[vm], api)) for vm in sorted(map(check_vm, jobs))]


def step(held: HeldJob, api: str) -> Wish:
    kind, parent = held.ticket.kind, held.ticket.id
    label = _label(api or f"{kind} step")
    return Wish(label, job=Job.ASYNC_NESTED, kind=kind, parent=parent)


def mask(vm: str, jobs: Iterable[object]) -> Mask:
    return mask_of(chosen(Job, job, vm) for job in jobs)


def phase(name: str) -> str:
    return check_label("a phase", name)


def progress(vm: str, done: float, total: float | None, unit: str) -> Progress:
    for value in (done, 0.0 if total is None else total):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequest(f"VM {vm!r}: progress is numbers, not {type(value).__name__}")
        if not 0 <= value < math.inf:
            raise BadRequest(f"VM {vm!r}: progress is finite numbers of 0 or more")
    return Progress(
        float(done), None if total is None else float(total), check_label("a unit", unit)
    )


def tickets(vm: str, ids: Iterable[str]) -> tuple[str, ...]:
    if isinstance(ids, str) or not (named := tuple(ids)):
        raise BadRequest(f"VM {vm!r}: name the tickets to evict, as status() shows them")
    if not all(named):
        raise BadRequest(f"VM {vm!r}: a ticket is a str, as status() shows it")
    return named


def _label(api: str) -> str:
    return check_label("api", api)
