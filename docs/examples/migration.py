"""A migration that passes from the source's controller to the destination's, phase by phase.

    python migration.py source SETTINGS.yaml VM       begins, copies, hands over
    python migration.py destination SETTINGS.yaml VM  adopts, finishes

The job keeps its slot, mask and phase while nobody owns it, and the adopter gets a larger token. If
the source dies before it hands over, the job stays as an orphan in its phase: the destination then
knows how far it came, and cleans up. Somebody may ask for an abort at any time: distjob abort VM.
"""

import sys

import distjob
from distjob import AsyncJob, Fence, Job, NotOwner, WrongJob

OUT = AsyncJob.MIGRATION_OUT


def source(jobs: distjob.Client, vm: str) -> str:
    """libvirt's Begin and Perform."""
    with jobs.begin_async(vm, OUT, api="migrate", on_owner_loss="orphan") as migration:
        migration.allow(Job.QUERY, Job.SUSPEND, Job.MIGRATION_OP)
        migration.set_phase("perform")
        for copied in range(1, 5):
            with migration.nested(api=f"copy {copied}") as step:
                copy_memory(vm, step.fence)
            migration.set_progress(copied, 4, "GiB")
            if migration.abort_requested:
                return f"aborted: {migration.abort_requested.reason}"  # the block ends the job
        migration.set_phase("finish")
        migration.detach()  # from here on it is whose adopts it
    return "handed over"


def destination(jobs: distjob.Client, vm: str) -> str:
    """libvirt's Finish and Confirm, once the source has handed over, or has died."""
    try:
        migration = jobs.adopt(vm, OUT, api="finish migration")
    except NotOwner as at_work:
        return f"not yet: {at_work}"
    except WrongJob as nothing:
        return f"there is nothing to finish: {nothing}"
    with migration:
        if migration.phase != "finish":
            return f"the source died in phase {migration.phase!r}: cleaned up"
        with migration.nested(api="resume") as step:
            resume(vm, step.fence)
    return "finished"


def copy_memory(vm: str, fence: Fence) -> None:
    print(f"{vm}: copies memory, token {fence.token}")


def resume(vm: str, fence: Fence) -> None:
    print(f"{vm}: runs here, token {fence.token}")


if __name__ == "__main__":
    role, settings, name = sys.argv[1:]
    with distjob.connect(settings) as client:
        print({"source": source, "destination": destination}[role](client, name))
