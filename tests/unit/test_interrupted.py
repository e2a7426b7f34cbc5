"""An exception out of a signal's handler, at every place of begin and end: nobody holds the job.

A handler runs between two bytecodes of the main thread, and what it raises (a time limit, Ctrl-C)
comes out of any line. So a trace function raises at each line of ours in turn.
"""

from __future__ import annotations

import asyncio
import linecache
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import distjob
from distjob import Client, Job
from distjob.aio import AsyncClient
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from until import until

OURS = Path(distjob.__file__).parent
LET_BE = tuple(str(OURS / folder) for folder in ("testing", "backend"))
"""Of the store, which is any backend's."""


class TimeIsUp(Exception):
    """What the handler raises."""


class Tracer:
    """Raises at the first line of ours, of those that are run, at which it was not raised yet."""

    def __init__(self, seen: set[str]) -> None:
        self.seen = seen
        self.place = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(str(OURS)) or file.startswith(LET_BE):
            return None
        caller: FrameType | None = frame
        while caller and caller.f_code.co_name != "__del__":
            caller = caller.f_back
        if caller:  # nothing is raised out of a finalizer
            return None
        # Python calls no handler between taking a lock and the block, nor at that block's end.
        line = linecache.getline(file, frame.f_lineno).strip()
        if event == "line" and "lock:" not in line and line != "try:":
            place = f"{file.removeprefix(str(OURS))}:{frame.f_lineno}"
            if not self.place and place not in self.seen:
                self.seen.add(place)
                self.place = place
                raise TimeIsUp
        return self

    def __enter__(self) -> Tracer:
        sys.settrace(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def other(server: MemoryServer) -> Iterator[Client]:
    with Client(MemoryStore(server)) as client:
        yield client


def begin_and_end(jobs: Client, kind: str) -> None:
    if kind == "sync":
        jobs.begin("vm", Job.MODIFY, wait=5).end()
    elif kind == "many":
        jobs.begin_many({"vm": Job.MODIFY, "vm2": Job.MODIFY}, wait=5).end()
    else:
        with jobs.begin_async("vm", "backup", on_owner_loss="orphan", wait=5):
            pass


def free(other: Client, place: str) -> None:
    """The VM is idle at once, or as soon as the background has seen to it."""
    try:
        until(lambda: not other.list(), 5)
    except AssertionError:
        pytest.fail(f"{place}: {other.list()}")


def taken(jobs: Client | AsyncClient) -> list[str]:
    """VMs whose turn somebody has, now that nobody does anything."""
    return jobs._me.turns.taken()


@pytest.mark.parametrize("kind", ["sync", "many"])
def test_whatever_line_is_interrupted_nothing_is_held(
    kind: str, server: MemoryServer, other: Client
) -> None:
    places: set[str] = set()
    with warnings.catch_warnings(), Client(MemoryStore(server), ttl=60.0) as jobs:
        warnings.simplefilter("ignore", ResourceWarning)
        while True:
            with Tracer(places) as tracer, suppress(TimeIsUp):
                begin_and_end(jobs, kind)
            if not tracer.place:  # at all lines it was
                break
            free(other, tracer.place)
            until(lambda: not taken(jobs), 5)
    assert len(places) > 200


async def begin_and_end_async(jobs: AsyncClient, kind: str) -> None:
    if kind == "sync":
        lease = await jobs.begin("vm", Job.MODIFY, wait=5)
        await lease.end()
    elif kind == "many":
        leases = await jobs.begin_many({"vm": Job.MODIFY, "vm2": Job.MODIFY}, wait=5)
        await leases.end()
    else:
        async with jobs.begin_async("vm", "backup", on_owner_loss="orphan", wait=5):
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of coroutines
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # broken off before they were awaited
@pytest.mark.parametrize("kind", ["orphan", "many"])
def test_whatever_line_of_a_task_is_interrupted_nothing_is_held(
    kind: str, server: MemoryServer, other: Client
) -> None:
    async def main() -> int:
        places: set[str] = set()
        async with AsyncClient(await AsyncMemoryStore.connect(server), ttl=60.0) as jobs:
            while True:
                tracer = Tracer(places)
                await asyncio.gather(traced(tracer, begin_and_end_async(jobs, kind)))
                if not tracer.place:
                    return len(places)
                await asyncio.to_thread(free, other, tracer.place)
                await asyncio.to_thread(until, lambda: not taken(jobs), 5)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert asyncio.run(main()) > 200


async def traced(tracer: Tracer, steps: Awaitable[None]) -> None:
    """Trace this task, while it is it that runs."""
    await _Traced(tracer, steps)


class _Traced:
    def __init__(self, tracer: Tracer, steps: Awaitable[None]) -> None:
        self.tracer = tracer
        self.steps = steps.__await__()

    def __await__(self) -> Any:
        call: Callable[[], Any] = partial(self.steps.send, None)
        while True:
            try:
                with nullcontext() if self.tracer.place else self.tracer:
                    waits = call()
            except (StopIteration, TimeIsUp):
                return
            try:
                reply = yield waits
                call = partial(self.steps.send, reply)
            except BaseException as error:  # noqa: BLE001  passed on
                call = partial(self.steps.throw, error)
