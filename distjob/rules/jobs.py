"""The types of jobs, with libvirt's names, and which sync jobs an async job lets in.

Source: libvirt ``src/conf/virdomainjob.h`` (virDomainJob, virDomainAgentJob, virDomainAsyncJob)
and ``VIR_JOB_DEFAULT_MASK``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, TypeAlias


class Slot(StrEnum):
    """A VM has three slots, each holding one job at a time."""

    SYNC = "sync"
    AGENT = "agent"
    ASYNC = "async"


class Job(StrEnum):
    """Sync jobs. The last two exist only as requests and are made by the client itself."""

    QUERY = "query"
    DESTROY = "destroy"
    SUSPEND = "suspend"
    MODIFY = "modify"
    ABORT = "abort"
    MIGRATION_OP = "migration operation"
    MODIFY_MIGRATION_SAFE = "modify migration safe"
    ASYNC = "async"
    ASYNC_NESTED = "async nested"


class AgentJob(StrEnum):
    """Jobs of the guest agent."""

    QUERY = "query"
    MODIFY = "modify"


class AsyncJob(StrEnum):
    """Long jobs, made of nested steps. All but the last are libvirt's."""

    MIGRATION_OUT = "migration out"
    MIGRATION_IN = "migration in"
    SAVE = "save"
    DUMP = "dump"
    SNAPSHOT = "snapshot"
    START = "start"
    BACKUP = "backup"
    MAINTENANCE = "maintenance"
    """A person's: jobs are kept off the VM until somebody discards it (``distjob hold``)."""


class OnOwnerLoss(StrEnum):
    """What becomes of an async job whose owner's session ends."""

    RELEASE = "release"
    """It ends, as every other job does."""
    ORPHAN = "orphan"
    """It stays, mask in force, until it is adopted or discarded."""


JobLike: TypeAlias = (
    Job
    | Literal["query", "destroy", "suspend", "modify", "abort"]
    | Literal["migration operation", "modify migration safe"]
)
"""What names a sync job that can be asked for: a `Job`, or its text. What follows, likewise."""
AgentJobLike: TypeAlias = AgentJob | Literal["query", "modify"]
AsyncJobLike: TypeAlias = (
    AsyncJob
    | Literal["migration out", "migration in", "save", "dump", "snapshot", "start", "backup"]
    | Literal["maintenance"]
)
AnyJobLike: TypeAlias = JobLike | AgentJob | AsyncJobLike | tuple[JobLike, AgentJobLike]
"""A job of any kind; of the texts, those that two kinds have in common are sync jobs'."""
OnOwnerLossLike: TypeAlias = OnOwnerLoss | Literal["release", "orphan"]

Mask = tuple[Job, ...]
"""The sync jobs that may begin while an async job runs, in the order of `Job`."""

PLAIN_JOBS: Mask = tuple(job for job in Job if job not in (Job.ASYNC, Job.ASYNC_NESTED))
DEFAULT_MASK: Mask = (Job.QUERY, Job.DESTROY, Job.ABORT)


def mask_of(jobs: Iterable[Job]) -> Mask:
    """The mask that lets in ``jobs``; `Job.DESTROY` is always in it, the request-only types never.

    Raises ValueError for `Job.ASYNC` and `Job.ASYNC_NESTED`.
    """
    wanted = {Job(job) for job in jobs} | {Job.DESTROY}
    if not wanted.issubset(PLAIN_JOBS):
        raise ValueError("a mask can't hold 'async' or 'async nested': they are never masked in")
    return tuple(job for job in PLAIN_JOBS if job in wanted)
