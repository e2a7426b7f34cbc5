"""The hook script, called as libvirt calls it, with XML that libvirt has written."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import distjob
from servers import Libvirtd, libvirt_here

pytestmark = pytest.mark.xdist_group("libvirt")
HOOK = Path(__file__).parent.parent.parent.parent / "deploy" / "libvirt" / "distjob-hook"


class Libvirt:
    """What libvirt does with a hook of a guest that it is about to start."""

    def __init__(self, daemon: Libvirtd, folder: Path, **settings: str) -> None:
        guest = libvirt_here().open(daemon.uri("test")).lookupByName("test")
        self.vm = guest.UUIDString()
        self._xml = guest.XMLDesc()
        (folder / "qemu.d").mkdir()
        self._hook = shutil.copy(HOOK, folder / "qemu.d" / "distjob")
        settings["DISTJOB"] = str(Path(sys.executable).parent / "distjob")
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        (folder / "distjob.conf").write_text("".join(lines))

    def asks(self, operation: str) -> tuple[int, str]:
        """Whether the hook refuses, and what it says of it; it changes no XML."""
        done = subprocess.run(
            [self._hook, "test", *operation.split(), "-"],
            input=self._xml, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin", "HOME": "/"},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.stdout == ""
        return done.returncode, done.stderr


def test_a_guest_starts_only_under_a_job(libvirtd: Libvirtd, tmp_path: Path) -> None:
    settings = tmp_path / "distjob.yaml"
    settings.write_text(f"sqlite: {{path: {tmp_path / 'jobs.db'}}}\n")
    libvirt = Libvirt(libvirtd, tmp_path, DISTJOB_CONFIG=str(settings))
    with distjob.connect(settings) as jobs:
        status, says = libvirt.asks("prepare begin")
        assert status == 1
        assert f"nobody holds a job to start test ({libvirt.vm})" in says
        assert libvirt.asks("reconnect begin") == (0, "")
        with jobs.begin_async(libvirt.vm, "start"):
            assert libvirt.asks("prepare begin") == (0, "")
        with jobs.begin_async(libvirt.vm, "save"):
            assert libvirt.asks("prepare begin")[0] == 1


@pytest.mark.parametrize(("choice", "status"), [("refuse", 1), ("allow", 0)])
def test_without_its_store_it_does_as_it_was_told(
    libvirtd: Libvirtd, tmp_path: Path, choice: str, status: int
) -> None:
    settings = tmp_path / "distjob.yaml"
    settings.write_text(f"backend: redis\nredis: {{url: 'unix://{tmp_path}/nobody'}}\n")
    choices = {"DISTJOB_CONFIG": str(settings), "DISTJOB_HOOK_NO_STORE": choice}
    libvirt = Libvirt(libvirtd, tmp_path, **choices)
    found, says = libvirt.asks("prepare begin")
    assert found == status
    assert f"can't be asked about test ({libvirt.vm}): {choice}" in says
