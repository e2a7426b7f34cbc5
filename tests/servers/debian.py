"""Debian's packages for tests of what is not installed here: a newer etcd, a library for clocks.

The packages are unpacked into a folder of the user's cache, and nothing is installed. That needs
Debian's apt and its keys, and the network once. Knows how to get them, not how to start them.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from servers.plan import Plan, binary_plan, prepared

KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
NEWER = (3, 5, 28)
"""From this release on etcd asks for permissions that it did not ask for before."""


def cache() -> Path:
    """Where what was unpacked stays; removing it has it fetched anew."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "distjob-tests"


@functools.cache
def newer_etcd() -> Plan:
    """An etcd of `NEWER` or later: the tests' usual one if it is, else one of Debian testing."""
    usual = prepared("etcd")
    if tuple(int(part) for part in usual.version.split(".") if part.isdigit()) >= NEWER:
        return usual
    folder = cache() / "etcd"
    if not folder.exists() and (why := _unpack(folder, "testing", "etcd-server", "etcd-client")):
        return Plan("etcd", "", f"none of version 3.5.28 or later: {why}")
    found = binary_plan("etcd", "debian", str(folder / "usr/bin/etcd"))
    return found or Plan("etcd", "", f"the etcd in {folder} does not run here")


@functools.cache
def faketime() -> Path | str:
    """The library that gives a process another clock; or why there is none."""
    pattern = "usr/lib/*/faketime/libfaketimeMT.so.1"
    folder = cache() / "faketime"
    if here := next(Path("/").glob(pattern), None):
        return here
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "testing")  # its libc's
    if not folder.exists():
        why = _unpack(folder, "", "libfaketime") and _unpack(folder, suite, "libfaketime")
        if why:
            return f"no libfaketime: {why}"
    return next(folder.glob(pattern), f"the package in {folder} holds no libfaketime")


def _unpack(folder: Path, suite: str, *packages: str) -> str:
    """Have ``packages`` of a release of Debian in ``folder``; else why that can't be done.

    ``suite`` "": of what this host's apt knows, which is quick.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return "no apt-get to fetch Debian's packages with"
    if not KEYS.exists():
        return f"no {KEYS} to trust Debian's packages by"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        try:
            _fetch(Path(work), suite, packages)
            for package in Path(work).glob("*.deb"):
                _run(["dpkg-deb", "-x", str(package), f"{work}/unpacked"], Path(work))
        except subprocess.CalledProcessError as error:
            return f"{' '.join(error.cmd[:1])} failed: {error.stderr.strip()[-300:]}"
        except subprocess.TimeoutExpired as error:
            return f"{' '.join(error.cmd[:1])} took more than {error.timeout:.0f} s"
        try:
            Path(work, "unpacked").rename(folder)  # at once: several runs may share the cache
        except OSError:
            if not folder.exists():  # another was quicker
                raise
    return ""


def _fetch(work: Path, suite: str, packages: Sequence[str]) -> None:
    """Download ``packages`` into ``work``, by an apt that knows of that release alone."""
    if not suite:
        _run(["apt-get", "-q", "-oAPT::Sandbox::User=root", "download", *packages], work)
        return
    mirror = os.environ.get("MIRROR", "http://deb.debian.org/debian")
    sources = work / "sources.list"
    sources.write_text(f"deb [signed-by={KEYS}] {mirror} {suite} main\n")
    (work / "lists").mkdir()
    chosen = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": work / "lists",
        "Dir::State::Status": "/dev/null",
        "Dir::Cache": work,
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "20",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in chosen.items())]
    _run([*apt, "update"], work)
    _run([*apt, "download", *packages], work)


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
