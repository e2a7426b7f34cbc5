"""What has to be begun for a call, beside what is held already. Pure.

A call takes its job; inside a block (``with dom.job(...)``) it goes under the block's, if that is
at least as strong. Slots are always taken in one order, async, sync, agent, so that no two blocks
wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from distjob.drive.arguments import mask as mask_of_jobs
from distjob.drive.choices import chosen, suggestion
from distjob.errors import BadRequest
from distjob.libvirt.calls import OF_KIND, Takes
from distjob.rules.fence import Fence
from distjob.rules.jobs import PLAIN_JOBS, AgentJob, AsyncJob, Job, Mask, Slot

COVERS: Mapping[Job, frozenset[Job]] = MappingProxyType(
    {
        Job.QUERY: frozenset({Job.QUERY}),
        Job.SUSPEND: frozenset({Job.QUERY, Job.SUSPEND}),
        Job.MIGRATION_OP: frozenset({Job.QUERY, Job.MIGRATION_OP}),
        Job.MODIFY_MIGRATION_SAFE: frozenset({Job.QUERY, Job.MODIFY_MIGRATION_SAFE}),
        Job.ABORT: frozenset({Job.QUERY, Job.ABORT}),
        Job.MODIFY: frozenset(PLAIN_JOBS) - {Job.ABORT, Job.DESTROY},
        Job.DESTROY: frozenset(PLAIN_JOBS),
        Job.ASYNC_NESTED: frozenset(PLAIN_JOBS),
    }
)
"""Under which sync job which calls may go: all have the same slot, but a mask that lets in a query
does not thereby let in a change."""


class Begin(NamedTuple):
    """One request to the client, of either kind: what `open` returns is entered, or awaited."""

    slot: Slot
    job: Job | None = None
    agent: AgentJob | None = None
    kind: AsyncJob | None = None
    mask: Mask = ()

    def open(self, jobs: Any, vm: str, held: Held, how: Mapping[str, Any]) -> Any:
        """The lease, or on asyncio what opens it. ``how``: api, wait and on_owner_loss."""
        plain = {name: how[name] for name in ("api", "wait")}
        if self.kind is not None:
            return jobs.begin_async(vm, self.kind, **how)
        if self.job is Job.ASYNC_NESTED:
            return held.long.nested(**plain)
        if self.job is None:
            return jobs.begin_agent(vm, self.agent, **plain)
        return jobs.begin(vm, self.job, agent=self.agent, **plain)


class Held(NamedTuple):
    """What a block holds of one VM: what ``with dom.job(...) as held:`` gives."""

    lease: Any = None
    """The lease of this block: an `AsyncJobLease` if it is of an async job, else a `Lease`."""
    state: Sequence[int] = ()
    """State and reason (``virDomainState``), asked after the job had begun."""
    long: Any = None
    """The lease of the async job, if this block, or one around it, is of one."""
    newest: Any = None
    job: Job | None = None
    agent: AgentJob | None = None
    watch: Any = None
    """What attends to libvirt's long calls under ``long``."""

    @property
    def fence(self) -> Fence:
        """Of the newest grant, which knows of all that is held here: for a guard."""
        fence: Fence = self.newest.fence
        return fence

    def plus(self, begun: Begin, lease: Any) -> Held:
        """This, and ``lease``, which was begun beside it."""
        if begun.kind is not None:
            return self._replace(lease=lease, long=lease, newest=lease)
        beside = begun.job is None and self.lease is not None  # the agent's job, for one call
        return self._replace(
            lease=self.lease if beside else lease,
            newest=lease,
            job=begun.job or self.job,
            agent=begun.agent or self.agent,
        )

    def check(self) -> None:
        """Raise as `Lease.check` does, if something of it is not held any more."""
        for lease in (self.long, self.lease, self.newest):
            if lease is not None:
                lease.check()


def block(vm: str, job: object, agent: object, mask: Iterable[object] | None) -> Takes:
    """What a block of ``job`` takes: a sync job, an async one, or the agent's alone. BadRequest."""
    both = None if agent is None else chosen(AgentJob, agent, vm)
    if job is None:
        if both is None:
            raise BadRequest(f"VM {vm!r}: a block is of a job: dom.job('modify'), or of agent=...")
        return Takes(agent=both)
    if isinstance(job, AsyncJob) or str(job) in list(AsyncJob):
        kind = chosen(AsyncJob, job, vm)
        return Takes(
            kind=kind, agent=both, mask=OF_KIND[kind] if mask is None else mask_of_jobs(vm, mask)
        )
    if mask is not None:
        raise BadRequest(f"VM {vm!r}: only an async job has a mask, and {job!r} is none")
    if isinstance(job, str) and str(job) not in PLAIN_JOBS:
        known = [str(one) for one in (*PLAIN_JOBS, *AsyncJob)]
        meant = suggestion(job, known)
        raise BadRequest(f"VM {vm!r}: {job!r} is no job{meant} (known: {', '.join(known)})")
    return Takes(job=chosen(Job, job, vm), agent=both)


def requests(vm: str, what: str, takes: Takes, held: Held) -> list[Begin]:
    """What to begin for ``what``, in this order. Raises BadRequest for what would never end."""
    found: list[Begin] = []
    if takes.kind is not None:
        found += _long(vm, what, takes, held)
    elif takes.job is not None:
        found += _sync(vm, what, takes.job, takes.agent, held)
    if takes.agent is not None and not any(one.agent for one in found):
        found += _agent(vm, what, takes.agent, held)
    return found


def _long(vm: str, what: str, takes: Takes, held: Held) -> list[Begin]:
    kind = takes.kind
    if held.long is not None and held.long.kind is kind and held.job is None:
        return []
    if held.long is not None or held.lease is not None:
        raise BadRequest(
            f"VM {vm!r}: {what} takes async {kind}, which can't begin while this block holds"
            f" {held.lease.job}: call it outside, or in a block of its own, dom.job({str(kind)!r})"
        )
    return [Begin(Slot.ASYNC, kind=kind, mask=takes.mask)]


def _sync(vm: str, what: str, job: Job, agent: AgentJob | None, held: Held) -> list[Begin]:
    if held.job is not None:
        if job in COVERS[held.job]:
            return []
        raise BadRequest(
            f"VM {vm!r}: {what} takes {job}, and this block holds {held.job}, which others may have"
            f" been let in beside: call it outside, or make the block one of {job}"
        )
    if held.agent is not None:
        raise BadRequest(
            f"VM {vm!r}: {what} takes {job}, and this block holds the agent's job without a sync"
            " one; slots are taken in one order, the agent's last: begin both,"
            f" dom.job({job.value!r}, agent={held.agent.value!r})"
        )
    if held.long is not None:
        return [Begin(Slot.SYNC, job=Job.ASYNC_NESTED, agent=None)]
    return [Begin(Slot.SYNC, job=job, agent=agent)]


def _agent(vm: str, what: str, agent: AgentJob, held: Held) -> list[Begin]:
    if held.agent is None:
        return [Begin(Slot.AGENT, agent=agent)]
    if held.agent is AgentJob.MODIFY or held.agent is agent:
        return []
    raise BadRequest(
        f"VM {vm!r}: {what} takes agent {agent}, and this block holds agent {held.agent}:"
        f" make the block one of agent={agent.value!r}"
    )
