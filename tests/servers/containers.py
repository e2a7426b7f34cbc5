"""Servers in containers: those of a compose file in `deploy/`, or one made for a single test.

It must not know what kind of server that is, nor when it is ready.
"""

from __future__ import annotations

import io
import secrets
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_docker.plugin import DockerComposeExecutor, get_docker_services

from servers.machine import Machine, output
from servers.plan import DEPLOYMENTS, compose_command
from servers.reaper import name_of_this_run

BUSY = ("Pool overlaps", "port is already allocated", "address already in use")
"""What an engine says of a port or a network that somebody else took meanwhile."""


class Container(Machine):
    """A container that was made already; ``address`` is its own, if the network gave it one."""

    way = "docker"

    def __init__(self, name: str, address: str = "") -> None:
        self.name = name
        self.address = address
        self._network = ""

    def start(self) -> None:
        self._docker("start")

    def stop(self) -> None:
        self._docker("stop")

    def kill(self) -> None:
        self._docker("kill")

    def pause(self) -> None:
        self._docker("pause")

    def resume(self) -> None:
        self._docker("unpause")

    def exec(self, *command: str) -> str:
        return self._docker("exec", *command)

    def give(self, file: Path) -> str:
        # As an archive: it makes the folder, too, and sets the mode in an image without a shell.
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(f"given/{file.name}")
            entry.size, entry.mode = file.stat().st_size, 0o644
            archive.addfile(entry, io.BytesIO(file.read_bytes()))
        output(["docker", "cp", "-", f"{self.name}:/"], give=packed.getvalue())
        return f"/given/{file.name}"

    def cut_off(self) -> None:
        networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}"
        self._network = output(["docker", "inspect", "-f", networks, self.name]).strip()
        output(["docker", "network", "disconnect", self._network, self.name])

    def rejoin(self) -> None:
        where = ["--ip", self.address] if self.address else []
        output(["docker", "network", "connect", *where, self._network, self.name])

    def log(self) -> str:
        done = subprocess.run(
            ["docker", "logs", "--tail", "30", self.name],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        return done.stdout.decode(errors="replace")[-2000:]

    def _docker(self, verb: str, *words: str) -> str:
        return output(["docker", verb, self.name, *words])


@contextmanager
def composed(
    file: str, settings: Mapping[str, str], net: str = ""
) -> Iterator[dict[str, Container]]:
    """The containers of ``deploy``'s ``file``, by service; removed at the end with all they made.

    ``net`` names the variable that takes a network's first three numbers: one nobody uses is found.
    """
    project = f"{name_of_this_run()}-{secrets.token_hex(4)}"
    command, path = compose_command(), str(DEPLOYMENTS / file)
    with get_docker_services(command, path, project, [], ["down -v -t 0"]):
        compose = DockerComposeExecutor(command, path, project)
        for left in range(9, -1, -1):
            chosen = (
                {net: f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}"} if net else {}
            )
            with pytest.MonkeyPatch.context() as patch:
                for name, value in {**settings, **chosen}.items():
                    patch.setenv(name, value)
                try:
                    compose.execute("up -d")
                    break
                except Exception as error:  # pytest-docker raises nothing finer
                    if not left or not any(words in str(error) for words in BUSY):
                        raise
        yield _containers(project)


def _containers(project: str) -> dict[str, Container]:
    facts = (
        '{{index .Config.Labels "com.docker.compose.service"}} {{.Id}} '
        "{{range .NetworkSettings.Networks}}{{with .IPAMConfig}}{{.IPv4Address}}{{end}}{{end}}"
    )
    label = f"label=com.docker.compose.project={project}"
    ids = output(["docker", "ps", "-aq", "--filter", label]).split()
    lines = output(["docker", "inspect", "-f", facts, *ids]).splitlines()
    found = [line.split(" ") for line in lines]
    return {service: Container(name, address) for service, name, address in found}


@contextmanager
def contained(
    image: str,
    command: Sequence[str],
    ports: Mapping[int, int],
    give: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Container]:
    """One container that no compose file names, with ``ports`` of loopback led to its own.

    It is made and has its files, but is not started; it is removed at the end.
    """
    words = [f"--publish=127.0.0.1:{ours}:{theirs}" for ours, theirs in ports.items()]
    words += [f"--env={name}={value}" for name, value in (env or {}).items()]
    name = f"{name_of_this_run()}-{secrets.token_hex(4)}"
    output(["docker", "create", "--name", name, *words, image, *command])
    try:
        container = Container(name)
        for file in give:
            container.give(file)
        yield container
    finally:
        output(["docker", "rm", "--force", "--volumes", name])
