"""A controller: it gives the VM 1 MiB more, round after round, each as four calls under one job.

With DIES_IN_ROUND it is killed in that round, when the VM is suspended and not changed yet.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import libvirt
from prometheus_client import Counter, start_http_server

import distjob
from distjob.fencing import Guard
from distjob.hooks.metrics import Metrics
from distjob.libvirt import Domains

ROUNDS = 20
FIRST = 2097152
"""KiB that the test driver's VM has at first."""
MORE = 1024
"""KiB that it gets in a round."""
MARKS = Path("/marks")
CONTROLLERS = 3


def all_are_here() -> None:
    """Wait for the others, so that all work at the same time."""
    (MARKS / f"{socket.gethostname()}.is-here").touch()
    while len(list(MARKS.glob("*.is-here"))) < CONTROLLERS:
        time.sleep(0.05)


def main() -> None:
    rounds = Counter("control_plane_rounds", "Rounds that were done")
    resumed = Counter("control_plane_resumed", "Rounds that found the VM as a dead one had left it")
    dies_in = int(os.environ.get("DIES_IN_ROUND", "0"))
    start_http_server(9464)
    vm = libvirt.open(os.environ["LIBVIRT_URI"]).lookupByName("test")
    with (
        distjob.connect("distjob.yaml", hooks=[Metrics()]) as jobs,
        Guard(MARKS / "marks.db") as guard,
    ):
        dom = Domains(jobs, guard=guard).domain(vm)
        all_are_here()
        for number in range(1, ROUNDS + 1):
            with dom.job("modify", api=f"grow, round {number}") as held:
                if held.state[0] == libvirt.VIR_DOMAIN_PAUSED:
                    resumed.inc()
                    dom.resume()
                dom.suspend()
                if number == dies_in:
                    os.kill(os.getpid(), signal.SIGKILL)
                dom.setMemory(dom.info()[2] + MORE)
                dom.resume()
            rounds.inc()
        signal.pause()  # to be asked for its metrics


if __name__ == "__main__":
    main()
