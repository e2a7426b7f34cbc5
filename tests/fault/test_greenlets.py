"""Under eventlet and gevent: threads are greenlets, sockets wait in a hub, select lacks its poll.

Each program runs in a process of its own, as what was patched stays so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from stores import settings_of

PATCHED = {
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "gevent": "from gevent import monkey; monkey.patch_all()",
}
HAND_OVER = """
import json, sys, threading
from distjob import connect, hooks

settings = json.loads(sys.argv[1])
waiting, renewed, granted = threading.Event(), threading.Semaphore(0), []

def of_holder(event):
    if isinstance(event, hooks.Renewed):
        renewed.release()

def of_waiter(event):
    if isinstance(event, hooks.Waiting):
        waiting.set()

def wait():
    with b.begin("vm", "modify", wait=60) as lease:
        granted.append(lease.token)

with connect(settings, hooks=[of_holder]) as a, connect(settings, hooks=[of_waiter]) as b:
    with a.begin("vm", "modify") as lease:
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert waiting.wait(60)
        for _ in range(4):  # more than a TTL
            assert renewed.acquire(timeout=60)
        lease.check()
        assert not granted
    waiter.join(60)
    assert granted > [lease.token], granted
    assert a.list() == []
print("handed over")
"""


ON_A_LOOP = """
import asyncio, json, sys
from distjob import aio, hooks

settings = json.loads(sys.argv[1])

async def wait(jobs):
    async with jobs.begin("vm", "modify", wait=60) as lease:
        return lease.token

async def main():
    waiting, renewed = asyncio.Event(), asyncio.Semaphore(0)

    def of_holder(event):
        if isinstance(event, hooks.Renewed):
            renewed.release()

    def of_waiter(event):
        if isinstance(event, hooks.Waiting):
            waiting.set()

    async with (
        aio.connect(settings, hooks=[of_holder]) as a,
        aio.connect(settings, hooks=[of_waiter]) as b,
    ):
        async with a.begin("vm", "modify") as lease:
            waiter = asyncio.create_task(wait(b))
            await waiting.wait()
            for _ in range(4):
                await renewed.acquire()
            lease.check()
            assert not waiter.done()
        assert await waiter > lease.token
        assert await a.list() == []
    print("handed over")
"""
LOOPS = {
    "eventlet": (PATCHED["eventlet"], "asyncio.run(main())"),
    "eventlet's loop": (
        "import eventlet.hubs; eventlet.hubs.use_hub('asyncio'); " + PATCHED["eventlet"],
        "import eventlet.asyncio; eventlet.asyncio.spawn_for_awaitable(main()).wait()",
    ),
    "gevent": (PATCHED["gevent"], "asyncio.run(main())"),
}


def run(program: str, settings: dict[str, Any]) -> None:
    settings = settings | {"session": {"ttl": 3.0}}
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(settings)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stdout.strip() == "handed over", done.stderr


@pytest.mark.parametrize(
    ("kind", "hub"),
    [("zookeeper", "gevent"), *product(("sqlite", "redis", "redis-cluster"), PATCHED)],
)
def test_a_job_is_kept_waited_for_and_handed_over(
    kind: str, hub: str, request: pytest.FixtureRequest, tmp_path: Path, fresh_namespace: str
) -> None:
    run(PATCHED[hub] + HAND_OVER, settings_of(kind, request, tmp_path, fresh_namespace))


@pytest.mark.parametrize("hub", LOOPS)
@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_so_it_is_on_asyncio(
    hub: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path, fresh_namespace: str
) -> None:
    before, start = LOOPS[hub]
    program = before + ON_A_LOOP + start
    run(program, settings_of(kind, request, tmp_path, fresh_namespace))


REFUSED = """
import asyncio, sys
from distjob import ConfigError, connect
from distjob.config import load, open_backend_async

settings = {"backend": sys.argv[1]}
ways = connect, lambda settings: asyncio.run(open_backend_async(load(settings)))
for way in ways:
    try:
        way(settings)
    except ConfigError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("kind", "hub"), [("etcd", "eventlet"), ("etcd", "gevent"), ("zookeeper", "eventlet")]
)
def test_a_library_that_would_wait_for_ever_is_refused(kind: str, hub: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PATCHED[hub] + REFUSED, kind],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    told = done.stdout.splitlines()
    assert len(told) == 2
    for said in told:
        assert f"can't be used in a process whose threads are greenlets ({hub})" in said
