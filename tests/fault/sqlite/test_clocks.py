"""Containers that share a file, but not a clock or a boot id: none takes the other for dead."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distjob import JobTimeout, connect
from ends import end

TTL = 3.0
HOLDER = """
import sys, distjob
with distjob.connect(sys.argv[1]) as jobs, jobs.begin("vm", "modify") as lease:
    print("held", flush=True)
    sys.stdin.read()
    lease.check()
print("ended", flush=True)
"""
OWN_CLOCK = ("unshare", "--time", "--boottime", "100000", "--fork", "--kill-child")
OWN_BOOT_ID = (
    *("unshare", "--mount", "sh", "-c"),
    'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"',
)


def _possible(way: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """``way``, if this user may and this kernel can."""
    if "--mount" in way:
        (folder / "boot_id").write_text("11111111-2222-3333-4444-555555555555\n")
        way = (*way, str(folder / "boot_id"))
    if not shutil.which("unshare") or os.geteuid():
        pytest.skip("only root can make namespaces, by unshare")
    if subprocess.run([*way, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no such namespaces here")
    return way


@pytest.mark.parametrize("way", [OWN_CLOCK, OWN_BOOT_ID], ids=["clock", "boot id"])
def test_one_with_its_own_is_not_taken_for_dead(way: tuple[str, ...], tmp_path: Path) -> None:
    config = tmp_path / "distjob.json"  # JSON is YAML
    settings = {"session": {"ttl": TTL}, "sqlite": {"path": str(tmp_path / "jobs.db")}}
    config.write_text(json.dumps(settings))
    holder = subprocess.Popen(
        [*_possible(way, tmp_path), sys.executable, "-c", HOLDER, str(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "held\n"
        with connect(config) as jobs:
            with pytest.raises(JobTimeout):  # though it was watched for longer than its TTL
                jobs.begin("vm", "modify", wait=2 * TTL)
            holder.kill()
            jobs.begin("vm", "modify", wait=20 * TTL).end()  # dead, it is found to be
    finally:
        end(holder)
