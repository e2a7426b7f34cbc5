"""One Redis or Valkey: the fixture `redis_server`."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from distjob import clock
from servers.containers import composed
from servers.debian import faketime
from servers.machine import Machine, Process, free_port
from servers.node import Node, running, wait_for
from servers.plan import Plan, lacking, prepared, process_plan

PERSISTENT = ("--appendonly", "yes", "--save", "")
FSYNC = {"DISTJOB_REDIS_FSYNC": "everysec"}
"""For compose files: quicker than what they are set to, and enough for the kills of tests."""


class RedisServer(Node):
    """A server of the tests' own. After `stop` or `kill`, `start` brings it back with its data."""

    tls = True
    """Whether it was built with TLS; where not, some Valkeys crash if it is switched on."""
    tls_port = 0
    """Where TLS may be switched on: `CONFIG SET tls-port` with `inner_tls_port`."""
    inner_tls_port = 0
    """`tls_port`, as the server sees it."""

    def __init__(self, machine: Machine, port: int, host: str = "127.0.0.1") -> None:
        super().__init__(machine, host, port)
        self.url = f"redis://{host}:{port}/0"

    def answers(self) -> bool:
        if not self.ask("PING").startswith("+PONG"):
            return False
        told = dict(re.findall(r"(redis|valkey)_version:([\d.]+)", self.ask("INFO", "server")))
        self.version = told.get("valkey") or told.get("redis", "")
        return True

    def ask(self, *words: str) -> str:
        """The first bytes of what it replies, as they are; "" if it does not."""
        try:
            with self.link() as link:
                link.sendall(f"{' '.join(words)}\r\n".encode())
                return link.recv(65536).decode(errors="replace")
        except OSError:
            return ""

    def link(self) -> socket.socket:
        """A connection to it; raises OSError."""
        return socket.create_connection((self.host, self.port), timeout=1.0)

    def cli(self, *words: str) -> str:
        """What redis-cli, run beside the server, prints."""
        inside = (
            ("-p", "6379") if self.kind == "docker" else ("-h", self.host, "-p", str(self.port))
        )
        return self.exec("redis-cli", *inside, *words)


def redis_process(
    found: Plan,
    folder: Path,
    *flags: str,
    config: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> RedisServer:
    """A process on loopback, started, but perhaps not ready yet."""
    port = free_port()
    where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder))
    argv = (found.what, *([str(config)] if config else []), *where, *flags)
    server = RedisServer(Process(found.way, argv, folder, env), port)
    server.tls = b"SSL_CTX_" in Path(found.what).read_bytes()
    server.tls_port = server.inner_tls_port = free_port()
    server.machine.start()
    return server


class RedisSocket(RedisServer):
    """A server that listens on a Unix socket, ``path``, and on nothing else."""

    def __init__(self, machine: Machine, path: Path) -> None:
        super().__init__(machine, 0)
        self.path = path
        self.url = f"unix://{path}"

    @property
    def address(self) -> str:
        return str(self.path)

    def link(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(1.0)
        try:
            link.connect(str(self.path))
        except OSError:
            link.close()
            raise
        return link


def redis_plan() -> Plan:
    """How to get a Redis; skips the test if there is none."""
    found = prepared("redis")
    return found if found.way else lacking(str(found))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The server, shared by all tests of the run: each puts it back as it found it."""
    found = redis_plan()
    if found.way == "docker":
        port, tls_port = free_port(), free_port()
        settings = {
            "DISTJOB_REDIS_IMAGE": found.what,
            "DISTJOB_REDIS_PORT": str(port),
            "DISTJOB_REDIS_TLS_PORT": str(tls_port),
            **FSYNC,
        }
        with composed("redis/compose.yaml", settings) as services:
            server = RedisServer(services["redis"], port)
            server.tls_port, server.inner_tls_port = tls_port, 6380
            server.wait_until_ready()
            with running("redis_server", server):
                yield server
        return
    server = redis_process(found, tmp_path_factory.mktemp("redis"), *PERSISTENT)
    try:
        server.wait_until_ready()
        with running("redis_server", server):
            yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[RedisSocket]:
    """A server on a Unix socket. Always a process, as a socket does not leave a container."""
    found = process_plan("redis")
    # Not pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="distjob-") as name:
        folder = Path(name)
        path = folder / "redis.sock"
        where = ("--port", "0", "--unixsocket", str(path), "--dir", str(folder))
        server = RedisSocket(Process(found.way, (found.what, *where, *PERSISTENT), folder), path)
        server.machine.start()
        try:
            server.wait_until_ready()
            with running("redis_socket", server):
                yield server
        finally:
            server.kill()


class RedisClock(RedisServer):
    """A server whose wall clock can be set, by a file that its clock is read from."""

    file: Path

    def set_by(self, seconds: float) -> None:
        """From now on it is so far from this host's; it takes a moment to look at the file."""
        self.file.write_text(f"{seconds:+f}\n")

        def shown() -> bool:
            ahead = int(re.findall(r"\d+", self.ask("TIME"))[2]) - clock.wall()
            return abs(ahead - seconds) < 1.5

        wait_for(shown, f"a clock that is set by {seconds:+g} s")


@pytest.fixture
def redis_clock(tmp_path: Path) -> Iterator[RedisClock]:
    """A server of the test's own. Always a process, which is given a library of Debian's."""
    found, library = process_plan("redis"), faketime()
    if isinstance(library, str):
        lacking(library)
    file = tmp_path / "clock"
    file.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    server = redis_process(found, tmp_path, *PERSISTENT, env=env)
    made = RedisClock(server.machine, server.port)
    made.file = file
    try:
        made.wait_until_ready()
        yield made
    finally:
        made.kill()
