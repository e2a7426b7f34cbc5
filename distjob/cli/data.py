"""What ``--json`` prints: its shape, its version and its JSON Schema.

A script that reads this must go on working: keys are added, never taken away or given another
meaning, without a new major number of the version. What does not apply is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec

from distjob.protocol.look import JobStatus, VMStatus
from distjob.rules.jobs import Job, OnOwnerLoss, Slot
from distjob.rules.ticket import AbortRequest, Left, Progress
from distjob.store import Finding

VERSION = "1.0"
_Version = Annotated[str, msgspec.Meta(pattern=r"^1\.[0-9]+$", description="Of this format.")]
_Seconds = Annotated[
    float, msgspec.Meta(description="Since it was granted or, while it waits, asked for.")
]


class JobData(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is held or waited for."""

    job: Annotated[str, msgspec.Meta(description="modify, agent query, async backup, ...")]
    slot: Annotated[Slot | None, msgspec.Meta(description="null while it waits")]
    token: Annotated[int | None, msgspec.Meta(description="null while it waits")]
    api: str
    controller: str
    host: str
    pid: int
    session: str
    seconds: _Seconds
    alive: Annotated[bool, msgspec.Meta(description="Whether its session lives.")]
    ticket: Annotated[str, msgspec.Meta(description="What `distjob evict --ticket` takes.")]
    place: Annotated[int | None, msgspec.Meta(description="In the line, from 1; null if held.")]
    waits_for: Annotated[
        list[str] | None, msgspec.Meta(description="Tickets that hold what it needs; null if held.")
    ]
    phase: str | None
    progress: Progress | None
    abort: AbortRequest | None
    on_owner_loss: OnOwnerLoss | None
    left: Annotated[Left | None, msgspec.Meta(description="Why an async job has no owner.")]


class VMData(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one VM."""

    vm: str
    version: int
    holders: list[JobData]
    waiters: Annotated[list[JobData], msgspec.Meta(description="Oldest first.")]
    mask: Annotated[
        list[Job] | None, msgspec.Meta(description="What the running async job lets in.")
    ]


class StatusData(msgspec.Struct, frozen=True, kw_only=True):
    """What `distjob status --json` and `distjob ls --json` print."""

    format_version: _Version = VERSION
    vms: list[VMData]


class FindingData(msgspec.Struct, frozen=True, kw_only=True):
    """One finding."""

    level: Annotated[str, msgspec.Meta(description="ok, warning or danger")]
    what: str
    advice: str | None


class DoctorData(msgspec.Struct, frozen=True, kw_only=True):
    """What `distjob doctor --json` prints."""

    format_version: _Version = VERSION
    findings: list[FindingData]


OUTPUTS: dict[str, type[msgspec.Struct]] = {"status": StatusData, "doctor": DoctorData}


def schema_of(output: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of what a command prints."""
    found = msgspec.json.schema(OUTPUTS[output])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def status_json(found: Sequence[VMStatus], *, indent: int | None = 2) -> str:
    """Names unescaped but for JSON's own escapes."""
    return _text(StatusData(vms=[_vm(one) for one in found]), indent)


def doctor_json(found: Iterable[Finding]) -> str:
    """All findings."""
    return _text(
        DoctorData(
            findings=[
                FindingData(level=one.level, what=one.what, advice=one.advice or None)
                for one in found
            ]
        ),
        2,
    )


def _vm(found: VMStatus) -> VMData:
    return VMData(
        vm=found.vm,
        version=found.version,
        holders=[_job(job, None) for job in found.holders],
        waiters=[_job(job, place) for place, job in enumerate(found.waiters, 1)],
        mask=None if found.mask is None else list(found.mask),
    )


def _job(job: JobStatus, place: int | None) -> JobData:
    facts = msgspec.structs.asdict(job)
    waits = place is not None
    return JobData(
        **facts
        | {
            "token": job.token or None,
            "seconds": round(job.seconds, 3),
            "phase": job.phase or None,
            "place": place,
            "waits_for": list(job.waits_for) if waits else None,
        }
    )


def _text(data: msgspec.Struct, indent: int | None) -> str:
    made = msgspec.json.encode(data)
    return msgspec.json.format(made, indent=indent or -1).decode()
