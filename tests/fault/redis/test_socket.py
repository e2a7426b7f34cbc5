"""Redis on a Unix socket: the same store, and what is said when nobody listens there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from distjob import aio, connect
from distjob.errors import BackendUnavailable, ConfigError
from distjob.hooks import Event, Waiting
from distjob.testing.contract.helpers import try_until
from servers import RedisSocket

SECRET = "s3cret-p@ss/w?rd"
ENCODED = "s3cret-p%40ss%2Fw%3Frd"


@pytest.fixture
def settings(redis_socket: RedisSocket, fresh_namespace: str) -> dict[str, Any]:
    section = {"url": f"{redis_socket.url}?db=3"}
    return {"namespace": fresh_namespace, "backend": "redis", "redis": section}


@pytest.fixture
def admin(redis_socket: RedisSocket):
    with redis.Redis(unix_socket_path=str(redis_socket.path), db=3) as client:
        yield client


def test_a_job_is_handed_over(settings: dict[str, Any], admin: Any, fresh_namespace: str) -> None:
    waiting = threading.Event()

    def hook(event: Event) -> None:
        if isinstance(event, Waiting):
            waiting.set()

    tokens = []

    def wait() -> None:
        with b.begin("vm", "modify", wait=60) as lease:
            tokens.append(lease.token)

    with connect(settings) as a, connect(settings, hooks=[hook]) as b:
        with a.begin("vm", "modify") as lease:
            waiter = threading.Thread(target=wait)
            waiter.start()
            assert waiting.wait(60)
            assert admin.exists(f"distjob:{{{fresh_namespace}}}:vm:vm")
        waiter.join()
    assert tokens > [lease.token]


def test_so_it_is_on_asyncio(settings: dict[str, Any], admin: Any, fresh_namespace: str) -> None:
    async def wait(jobs: aio.AsyncClient) -> int:
        async with jobs.begin("vm", "modify", wait=60) as lease:
            return lease.token

    async def main() -> None:
        waiting = asyncio.Event()

        def hook(event: Event) -> None:
            if isinstance(event, Waiting):
                waiting.set()

        async with aio.connect(settings) as a, aio.connect(settings, hooks=[hook]) as b:
            async with a.begin("vm", "modify") as lease:
                waiter = asyncio.create_task(wait(b))
                await waiting.wait()
                assert admin.exists(f"distjob:{{{fresh_namespace}}}:vm:vm")
            assert await waiter > lease.token

    asyncio.run(main())


@pytest.mark.parametrize("more", ["", "&username=distjob&password={}"])
def test_a_user(more: str, settings: dict[str, Any], admin: Any, redis_socket: RedisSocket) -> None:
    admin.execute_command(
        *("ACL", "SETUSER", "distjob", "reset", "on", f">{SECRET}", "~*", "&*", "+@all")
    )
    try:
        login = "" if more else "distjob:{}@"
        form = f"unix://{login}{redis_socket.path}?db=3{more}"
        for password in (ENCODED, "other"):
            section = {"url": form.format(password)}
            if password == ENCODED:
                with connect(settings | {"redis": section}) as jobs:
                    assert jobs.list() == []
                    assert b"user=distjob" in admin.execute_command("CLIENT", "LIST")
            else:
                with pytest.raises(ConfigError, match="password was refused"):
                    connect(settings | {"redis": section})
    finally:
        admin.execute_command("ACL", "DELUSER", "distjob")


def test_a_server_that_comes_back(settings: dict[str, Any], redis_socket: RedisSocket) -> None:
    with connect(settings) as jobs:
        lease = jobs.begin("vm", "modify")
        redis_socket.kill()
        with pytest.raises(BackendUnavailable, match=str(redis_socket.path)):
            connect(settings)
        redis_socket.start()
        try_until(lease.end)
        jobs.begin("vm", "modify").end()


def test_the_command(settings: dict[str, Any], redis_socket: RedisSocket, tmp_path: Path) -> None:
    file = tmp_path / "distjob.yaml"
    file.write_text(json.dumps(settings))
    command = [Path(sys.executable).parent / "distjob", "config", "check", file, "--connect"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "reached: redis" in done.stdout) == (0, True), done.stderr
    settings["redis"]["url"] = f"unix://{tmp_path}/nobody.sock"
    file.write_text(json.dumps(settings))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "nobody.sock" in done.stderr) == (75, True), done.stderr
