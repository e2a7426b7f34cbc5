"""Two controllers, two processes, one domain of libvirt's test driver in one daemon.

A round is suspend, read, set what was read and a little more, resume. libvirt makes each call safe,
and not the round: what one has read is old when the other has written.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servers import Libvirtd, libvirt_here

pytestmark = pytest.mark.xdist_group("libvirt")
ROUNDS = 200
KIB = 1024
CONTROLLER = """
import sys
from contextlib import nullcontext, suppress
import distjob
import libvirt
from distjob.libvirt import Domains

uri, store, locked, rounds, kib = sys.argv[1:]
libvirt.registerErrorHandler(lambda *_: None, None)
raw = libvirt.open(uri).lookupByName("test")
with distjob.connect({"sqlite": {"path": store}, "session": {"ttl": 2}}) as jobs:
    dom = Domains(jobs).domain(raw)
    block, act = (dom.job, dom) if locked == "locked" else (lambda _: nullcontext(), raw)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(rounds)):
        with block("modify") as held:
            if held is None or held.state[0] == libvirt.VIR_DOMAIN_RUNNING:
                with suppress(libvirt.libvirtError):  # unlocked, the other has suspended it
                    act.suspend()
            memory = act.info()[2]
            act.setMemory(memory + int(kib))
            with suppress(libvirt.libvirtError):
                act.resume()
        print(number, flush=True)
"""
Start = Callable[..., subprocess.Popen[Any]]


class Controllers:
    """Two, ready to play; ``memory`` is what the domain has gained since, in rounds."""

    def __init__(self, start: Start, daemon: Libvirtd, store: Path, how: str) -> None:
        uri = daemon.uri("test")
        # It lives as long as somebody is connected: so it is the same for both.
        self._conn = libvirt_here().open(uri)
        self._raw = self._conn.lookupByName("test")
        self._before = self._raw.info()[2]
        argv = [sys.executable, "-c", CONTROLLER, uri, str(store), how, str(ROUNDS), str(KIB)]
        self.both = [
            start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]
        for one in self.both:
            assert one.stdout.readline() == "ready\n"

    def play(self) -> None:
        for one in self.both:
            one.stdin.write("go\n")
            one.stdin.flush()

    def told(self) -> list[int]:
        """How many rounds each says that it has made, in the end."""
        return [len(one.communicate(timeout=100)[0].splitlines()) for one in self.both]

    @property
    def gained(self) -> float:
        rounds: float = (self._raw.info()[2] - self._before) / KIB
        return rounds

    @property
    def runs(self) -> bool:
        return bool(self._raw.state()[0] == libvirt_here().VIR_DOMAIN_RUNNING)


def test_without_jobs_changes_are_lost(start: Start, libvirtd: Libvirtd, tmp_path: Path) -> None:
    two = Controllers(start, libvirtd, tmp_path / "jobs.db", "unlocked")
    two.play()
    assert two.told() == [ROUNDS, ROUNDS]
    assert two.gained < 2 * ROUNDS


def test_with_jobs_none_is_lost(start: Start, libvirtd: Libvirtd, tmp_path: Path) -> None:
    two = Controllers(start, libvirtd, tmp_path / "jobs.db", "locked")
    two.play()
    assert two.told() == [ROUNDS, ROUNDS]
    assert two.gained == 2 * ROUNDS
    assert two.runs


def test_one_is_killed_at_random_and_none_is_lost(
    start: Start, libvirtd: Libvirtd, tmp_path: Path
) -> None:
    two = Controllers(start, libvirtd, tmp_path / "jobs.db", "locked")
    two.play()
    dead = two.both[0]
    read = random.randrange(1, ROUNDS // 2)
    for _ in range(read):
        dead.stdout.readline()
    dead.kill()
    rest, second = two.told()
    assert second == ROUNDS
    # The round that it was killed in may have changed the memory, and was told by nobody.
    assert two.gained - (read + rest + second) in (0, 1)
    assert two.runs  # though it may have been killed while it had suspended it
