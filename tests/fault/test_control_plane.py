"""The example of docs/examples/control-plane: services in containers, on a real libvirt daemon."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers.plan import compose_command, lacking, lacking_libvirt, prepared, run
from servers.reaper import name_of_this_run

COMPOSE = Path(__file__).parent.parent.parent / "docs/examples/control-plane/compose.yaml"
IMAGE = os.environ.get("DISTJOB_LIBVIRT_IMAGE", "distjob-libvirt:debian")
PYTHON = (3, 11)
"""The image's, to which this one's packages are lent."""
Compose = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def compose() -> Iterator[Compose]:
    """Runs compose on the example; in the end nothing is left of it."""
    redis = prepared("redis")
    if redis.way != "docker":
        lacking(f"the example runs in Docker, and here it would be {redis}")
    if run("docker", "image", "inspect", IMAGE) is None:
        lacking_libvirt(f"no image {IMAGE}: deploy/build-images.sh libvirt")
    if sys.version_info[:2] != PYTHON:
        pytest.skip("the packages of this Python can't be used by the image's, 3.11")
    project = f"{name_of_this_run()}-{secrets.token_hex(4)}"
    environment = os.environ | {
        "DISTJOB_REDIS_IMAGE": redis.what,
        "DISTJOB_LIBVIRT_IMAGE": IMAGE,
        "CONTROL_PLANE_SITE": sysconfig.get_path("purelib"),
    }

    def compose(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*compose_command().split(), "-f", str(COMPOSE), "-p", project, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    try:
        yield compose
    finally:
        compose("down", "-v", "-t", "0")


def test_no_change_is_lost_and_a_dead_controller_is_succeeded(compose: Compose) -> None:
    done = compose("run", "--rm", "summary")
    told = f"{done.stdout}{done.stderr}{compose('logs', '--tail', '20').stdout}"
    assert done.returncode == 0, told
    for line in (
        "b: killed in round 5, the VM suspended; answers: False",
        "found suspended by the next, and resumed: 1 time",
        "the VM has 45056 KiB more, by 44 rounds of 1024 KiB; it runs: True",
        "left in the store: nothing",
    ):
        assert line in done.stdout, told
