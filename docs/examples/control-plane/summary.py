"""Waits until the controllers that live have done their rounds, and tells what became of the VM.

Exits with 1 if a change was lost or made twice, or something is left.
"""

from __future__ import annotations

import os
import sys
import time
from urllib.request import urlopen

import libvirt
from controller import FIRST, MARKS, MORE, ROUNDS
from prometheus_client.parser import text_string_to_metric_families

import distjob
from distjob import Slot
from distjob.fencing import Guard

LIMIT = 120.0
"""Seconds for all of it."""


def metrics(controller: str) -> dict[str, float]:
    """The controller's numbers, by name; none if it does not answer."""
    try:
        with urlopen(f"http://{controller}:9464/metrics", timeout=5) as reply:
            text = reply.read().decode()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def when_done(controller: str, until: float) -> dict[str, float]:
    """Its numbers when it has done its rounds, or in the end."""
    while True:
        found = metrics(controller)
        if found.get("control_plane_rounds_total") == ROUNDS or time.monotonic() > until:
            return found
        time.sleep(0.2)


def main() -> int:
    vm = libvirt.open(os.environ["LIBVIRT_URI"]).lookupByName("test")
    killed, dies_in = os.environ["KILLED"], int(os.environ["DIES_IN_ROUND"])
    until = time.monotonic() + LIMIT
    rounds, resumed, alive = dies_in - 1, 0, [name for name in sys.argv[1:] if name != killed]
    for name in alive:
        found = when_done(name, until)
        done = int(found.get("control_plane_rounds_total", 0))
        rounds += done
        resumed += int(found.get("control_plane_resumed_total", 0))
        waited = found.get("distjob_wait_seconds_sum", 0.0)
        print(f"{name}: {done} rounds, waited {waited:.1f} s for them")
    answers = bool(metrics(killed))
    print(f"{killed}: killed in round {dies_in}, the VM suspended; answers: {answers}")
    with distjob.connect("distjob.yaml") as jobs, Guard(MARKS / "marks.db") as guard:
        left = [status.vm for status in jobs.list()]
        mark = guard.highest(vm.UUIDString(), Slot.SYNC)
    state, _, memory, *_ = vm.info()
    running = state == libvirt.VIR_DOMAIN_RUNNING
    print(f"found suspended by the next, and resumed: {resumed} time")
    more = memory - FIRST
    print(f"the VM has {more} KiB more, by {rounds} rounds of {MORE} KiB; it runs: {running}")
    print(f"left in the store: {left or 'nothing'}; the guard's mark: {mark}")
    grown = more == rounds * MORE and running and resumed == 1
    right = grown and mark > 0 and not (left or answers)
    print("all is as it should be" if right else "SOMETHING IS WRONG")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
