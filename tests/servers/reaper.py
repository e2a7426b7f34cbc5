"""Removes what a run has left: after a process of it that was killed, and could not tidy up.

All that one run starts bears the run's name: its containers and networks by theirs, its processes
by the folder that they work in, libvirt's by the folder that they are told of.
"""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import suppress
from pathlib import Path

from servers.plan import run

_VARIABLE = "DISTJOB_TEST_RUN"


def name_of_this_run() -> str:
    """The same in all processes of a run, and in no other: process ids repeat across containers."""
    return os.environ.setdefault(_VARIABLE, f"distjob-test-{os.getpid()}-{secrets.token_hex(4)}")


def reap(folder: Path) -> list[str]:
    """End and remove what is there yet of this run, whose processes work below ``folder``."""
    found = []
    name = name_of_this_run()
    for what, listing, removal in (
        ("containers", ("ps", "-aq"), ("rm", "--force", "--volumes")),
        ("networks", ("network", "ls", "-q"), ("network", "rm")),
    ):
        if left := (run("docker", *listing, "--filter", f"name={name}") or "").split():
            found.append(f"{len(left)} {what}")
            run("docker", *removal, *left)
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):  # it is gone, or another user's
                ours = f"{name}-libvirt-".encode() in (process / "cmdline").read_bytes()
                if ours or folder in (process / "cwd").readlink().parents:
                    os.kill(int(process.name), signal.SIGKILL)
                    found.append(f"process {process.name}")
    return found
