"""What stands in a record: tickets, and the jobs that were granted to them. Data, no rules.

Everything here is written into the store as it is: a field that is added needs a default, and a
changed one a new format number (see codec.py). What may become of it is record.py's.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from distjob.rules.jobs import DEFAULT_MASK, AgentJob, AsyncJob, Job, Mask, OnOwnerLoss


class Owner(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Who asks, for people: a controller's name, its host and its process."""

    controller: str
    host: str
    pid: int


class Ticket(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """One begin call. ``id`` is unique for ever, so that asking twice is asking once."""

    id: str
    session: str
    owner: Owner
    api: str
    """What the caller is doing, for people; libvirt's name of the API call."""
    asked: float
    """Wall clock of the asker, for people."""
    job: Job | None = None
    """The sync job, `Job.ASYNC`, `Job.ASYNC_NESTED`, or None for an agent job alone."""
    agent: AgentJob | None = None
    kind: AsyncJob | None = None
    """With `Job.ASYNC` the type asked for, with `Job.ASYNC_NESTED` the type it is a step of."""
    parent: str = ""
    """With `Job.ASYNC_NESTED`: the id of the async job's ticket."""
    on_owner_loss: OnOwnerLoss = OnOwnerLoss.RELEASE
    """With `Job.ASYNC`."""

    @property
    def nested(self) -> bool:
        return self.job is Job.ASYNC_NESTED

    @property
    def exempt(self) -> bool:
        """``max_queued`` never keeps out a request for the async slot, nor a destroy job."""
        return self.job is Job.ASYNC or self.job is Job.DESTROY


class Holder(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A ticket in a slot."""

    ticket: Ticket
    since: float
    """Wall clock of whoever granted it, for people."""
    token: int = 0
    """The version of the commit that granted it; 0 until that commit is made."""


class Left(StrEnum):
    """How an async job came to have no owner."""

    DETACHED = "detached"
    """Its owner gave it up without ending it."""
    ORPHANED = "orphaned"
    """Its owner's session has ended."""


class Progress(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    """How far an async job has come, as its owner says. libvirt: ``virDomainGetJobStats``."""

    done: float
    total: float | None = None
    """None if it is not known."""
    unit: str = ""


class AbortRequest(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    """Somebody wants an async job to stop; its owner decides."""

    by: Owner
    asked: float
    """Wall clock of who asked, for people."""
    reason: str = ""


class AsyncHolder(Holder, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """The ticket in the async slot: its owner's, or that of the last owner if ``left`` is set.

    ``since`` is when the job began, ``token`` its present owner's.
    """

    mask: Mask = DEFAULT_MASK
    """The sync jobs that it lets in."""
    phase: str = ""
    progress: Progress | None = None
    abort: AbortRequest | None = None
    owner_gone: Left | None = msgspec.field(default=None, name="left")

    @property
    def outlives(self) -> bool:
        """Whether it stays when its owner's session ends."""
        return self.ticket.on_owner_loss is OnOwnerLoss.ORPHAN
