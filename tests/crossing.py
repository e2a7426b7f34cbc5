"""Processes that each hold three VMs out of ten together, time and again, in an order of chance.

    python tests/crossing.py --config distjob.yaml --processes 100

prints what became of them, and fails if two held a VM, something was left, or somebody gave up whom
nobody was in the way of. While a VM is held, a file of its name is there that only one can make.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import distjob
from distjob import Job, JobTimeout, clock
from ends import started

VMS = [f"vm-{number}" for number in range(10)]
SLACK = 2.0
"""Seconds beyond the deadline in which what was held is given back."""


def cross(config: Path, *, processes: int, rounds: int, wait: float) -> dict[str, Any]:
    """Run so many processes to their end; what became of all of their calls."""
    with ExitStack() as stack:
        marks = stack.enter_context(tempfile.TemporaryDirectory())
        work = [sys.executable, __file__, "--config", str(config), "--marks", marks]
        work += ["--rounds", str(rounds), "--wait", str(wait), "--seed"]
        crowd = [
            stack.enter_context(started([*work, str(seed)], stdout=subprocess.PIPE, text=True))
            for seed in range(processes)
        ]
        told = []
        for process in crowd:
            output, _ = process.communicate(timeout=rounds * wait + 120)
            assert process.returncode == 0, output
            told += json.loads(output)
    with distjob.connect(config) as jobs:
        left = [status.vm for status in jobs.list()]
    return {
        "done": sum(call["done"] for call in told),
        "timed out": sum(not call["done"] for call in told),
        "nobody named": sum(not call["done"] and not call["blockers"] for call in told),
        "too late": sum(call["seconds"] > wait + SLACK for call in told),
        "longest": round(max(call["seconds"] for call in told), 1),
        "left": left,
    }


def work(config: Path, marks: Path, seed: int, rounds: int, wait: float) -> list[dict[str, Any]]:
    """One process."""
    rng, told = random.Random(seed), []
    with distjob.connect(config) as jobs:
        for _ in range(rounds):
            vms, begun = rng.sample(VMS, 3), clock.monotonic()
            call = {"done": True, "vm": "", "blockers": []}
            try:
                leases = jobs.begin_many(dict.fromkeys(vms, Job.MODIFY), wait=wait)
            except JobTimeout as error:
                who = [holder.ticket.owner.pid for holder in error.blockers]
                call = {"done": False, "vm": error.vm, "blockers": who}
            call["seconds"] = clock.monotonic() - begun
            told.append(call)
            if call["done"]:
                with leases:
                    for vm in vms:
                        (marks / vm).touch(exist_ok=False)
                    for vm in vms:
                        (marks / vm).unlink()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--wait", type=float, default=60.0)
    parser.add_argument("--marks", type=Path, help="of one of the processes")
    parser.add_argument("--seed", type=int, help="of one of the processes")
    asked = parser.parse_args()
    if asked.marks:
        told = work(asked.config, asked.marks, asked.seed, asked.rounds, asked.wait)
        sys.stdout.write(json.dumps(told))
        return
    how = {"processes": asked.processes, "rounds": asked.rounds, "wait": asked.wait}
    found = cross(asked.config, **how)
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.exit(bool(found["nobody named"] or found["too late"] or found["left"]))


if __name__ == "__main__":
    main()
