"""libvirt's own daemon, with its test driver or with real QEMU guests: `libvirtd`, `libvirt_pair`.

Each has a folder of its own and loads no driver but those that are wanted. As root would share the
host's places with it, it is another user's then. It must not know what is done with its domains.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from servers.machine import PATIENCE
from servers.node import wait_for
from servers.plan import lacking_libvirt
from servers.reaper import name_of_this_run

DRIVERS = "libvirt/connection-driver"
QEMU = "libvirt_driver_qemu.so"
PORTS, MORE_PORTS = range(49152, 49184), range(49184, 49216)
"""For guests that come in: two hosts on one."""
WANTED = """libvirt-python: pip install -e '.[libvirt]', with libvirt-dev, pkg-config and gcc"""


def libvirt_here() -> Any:
    """The module; without it the test is skipped, or fails where servers are required."""
    if importlib.util.find_spec("libvirt") is None:
        lacking_libvirt(f"no {WANTED}")
    libvirt = importlib.import_module("libvirt")
    libvirt.registerErrorHandler(lambda *_: None, None)  # it would print what it raises, too
    return libvirt


class Libvirtd:
    """A daemon; its files are in ``folder``, whose name is short, as a socket's must be."""

    def __init__(self, folder: Path, ports: range, *drivers: Path) -> None:
        self.folder = folder
        self._log = folder / "log"
        self._ports = ports
        self._drivers = drivers
        self._process: subprocess.Popen[bytes] | None = None

    def uri(self, driver: str) -> str:
        """What `libvirt.open` takes: ``test`` or ``qemu``."""
        path = {"test": "test+unix:///default", "qemu": "qemu:///session"}[driver]
        return f"{path}?socket={self.folder / 'libvirt-sock'}"

    def start(self) -> None:
        for name in ("cache", "data", "drivers", "config/libvirt"):
            (self.folder / name).mkdir(parents=True)
        for driver in self._drivers:
            (self.folder / "drivers" / driver.name).symlink_to(driver)
        (self.folder / "libvirtd.conf").write_text(
            f'unix_sock_dir = "{self.folder}"\nauth_unix_rw = "none"\n'
            f'log_outputs = "3:stderr"\nhost_uuid = "{uuid.uuid4()}"\n'
        )
        (self.folder / "config/libvirt/qemu.conf").write_text(
            'security_driver = "none"\n'
            f"migration_port_min = {self._ports[0]}\nmigration_port_max = {self._ports[-1]}\n"
        )
        home = str(self.folder)
        places = {f"XDG_{name.upper()}_HOME": f"{home}/{name}" for name in ("cache", "data")}
        places |= {"XDG_CONFIG_HOME": f"{home}/config", "XDG_RUNTIME_DIR": home, "HOME": home}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [_daemon(), "-f", f"{home}/libvirtd.conf", "-p", f"{home}/pid"],
                env=os.environ | places | {"LIBVIRT_DRIVER_DIR": f"{home}/drivers"},
                cwd=home, stdout=log, stderr=log, **_as_nobody(self.folder),
            )  # fmt: skip
        wait_for(self._answers, f"libvirtd answers: {self._log}")

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            pytest.fail(f"libvirtd has ended: {self._log.read_text()[-2000:]}")
        libvirt = libvirt_here()
        with suppress(libvirt.libvirtError):
            libvirt.open(self.uri("qemu" if self._drivers else "test")).close()
            return True
        return False

    def stop(self) -> None:
        """End it, and its guests, which would outlive it."""
        if self._process is None:
            return
        libvirt = libvirt_here()
        with suppress(libvirt.libvirtError):
            conn = libvirt.open(self.uri("qemu" if self._drivers else "test"))
            for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                domain.destroy()
            conn.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)


def _daemon() -> str:
    path = f"{os.environ['PATH']}:/usr/sbin"
    return shutil.which("libvirtd", path=path) or lacking_libvirt(
        "no libvirtd: install Debian's libvirt-daemon"
    )


def _as_nobody(folder: Path) -> dict[str, Any]:
    """How root runs it: by root, it would use the host's /run/libvirt and /var/lib/libvirt."""
    if os.geteuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _qemu() -> Path:
    """The driver for QEMU, where QEMU is, too."""
    if shutil.which("qemu-system-x86_64") is None:
        lacking_libvirt("no qemu-system-x86_64: install Debian's qemu-system-x86")
    for root in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"):
        if (found := Path(root, DRIVERS, QEMU)).exists():
            return found
    return lacking_libvirt("no driver for QEMU: install Debian's libvirt-daemon-driver-qemu")


@contextmanager
def _started(ports: range, *drivers: Path) -> Iterator[Libvirtd]:
    libvirt_here()
    prefix = f"{name_of_this_run()}-libvirt-"  # by which the reaper knows what is left
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        daemon = Libvirtd(Path(folder), ports, *drivers)
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.stop()


@pytest.fixture(scope="module")
def libvirtd() -> Iterator[Libvirtd]:
    """A daemon with libvirt's test driver: whoever is connected sees the same domain, ``test``."""
    with _started(PORTS) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def libvirt_pair() -> Iterator[tuple[Libvirtd, Libvirtd]]:
    """Two hosts with real QEMU guests, between which these can be migrated."""
    driver = _qemu()
    with ExitStack() as stack:
        first = stack.enter_context(_started(PORTS, driver))
        yield first, stack.enter_context(_started(MORE_PORTS, driver))
