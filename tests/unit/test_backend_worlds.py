"""The two real worlds: what `distjob.backend.world` says of locks, bells, lanes and answers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from distjob.backend.tasks import Tasks
from distjob.backend.threads import Threads
from distjob.backend.world import World, now
from distjob.errors import BackendUnavailable

LONG = 30.0
"""Seconds; an event ends every wait that is so long."""
Play = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


def in_threads(steps: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    world = Threads()
    now(steps(world))
    world.close()


def in_tasks(steps: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        world = Tasks()
        await steps(world)
        world.close()

    asyncio.run(main())


@pytest.fixture(params=[in_threads, in_tasks], ids=["threads", "tasks"])
def play(request: pytest.FixtureRequest) -> Play:
    found: Play = request.param
    return found


def test_a_bell_that_was_rung_before_ends_the_next_wait(play: Play) -> None:
    async def steps(world: World) -> None:
        world.bell.ring()
        await world.bell.wait(LONG)

    play(steps)


@pytest.mark.parametrize("with_file", [False, True])
def test_a_bell_is_rung_from_another_thread(play: Play, with_file: bool) -> None:
    async def steps(world: World) -> None:
        read, write = os.pipe()
        ringer = threading.Timer(0.05, world.bell.ring)
        ringer.start()
        await world.bell.wait(LONG, [read] if with_file else [])
        await world.aside(ringer.join)
        os.close(read)
        os.close(write)

    play(steps)


def test_a_bell_hears_a_file_and_a_number_that_is_used_again(play: Play) -> None:
    async def steps(world: World) -> None:
        for _ in range(3):
            read, write = os.pipe()
            os.write(write, b"!")
            await world.bell.wait(LONG, [read])
            os.close(read)
            os.close(write)

    play(steps)


def test_a_bell_gives_up_in_time(play: Play) -> None:
    async def steps(world: World) -> None:
        await world.bell.wait(0.01)
        await world.bell.wait(0.0)

    play(steps)


def test_a_lock_is_had_by_one(play: Play) -> None:
    async def steps(world: World) -> None:
        lock = world.lock()
        async with lock:
            assert not await lock.take(0.0)
            assert not await lock.take(0.01)
        assert await lock.take(0.0)
        lock.leave()

    play(steps)


def test_answered_by_another_thread_at_once_or_never(play: Play) -> None:
    async def steps(world: World) -> None:
        def later(done: Callable[[], None]) -> None:
            threading.Timer(0.02, done).start()

        assert await world.answered(later, LONG)
        assert await world.answered(lambda done: done(), LONG)
        assert not await world.answered(lambda _: None, 0.01)

    play(steps)


def test_what_is_put_aside_returns_or_raises(play: Play) -> None:
    async def steps(world: World) -> None:
        assert await world.aside(lambda: 3) == 3
        assert await world.aside(threading.get_ident, lane="x") == await world.aside(
            threading.get_ident, lane="x"
        )
        with pytest.raises(KeyError):
            await world.aside(lambda: {}[1])

    play(steps)


def test_what_is_spawned_runs_beside(play: Play) -> None:
    async def steps(world: World) -> None:
        async def beside() -> None:
            world.bell.ring()

        running = world.spawn(beside(), "beside")
        await world.bell.wait(LONG)
        await running.stop(LONG)

    play(steps)


def test_calls_of_a_lane_are_carried_out_in_order_though_nobody_waits() -> None:
    async def main() -> list[int]:
        world, order, go = Tasks(), list[int](), threading.Event()

        def first() -> None:
            go.wait(LONG)
            order.append(1)

        cancelled = asyncio.create_task(world.aside(first, lane="x"))
        await asyncio.sleep(0)
        second = asyncio.create_task(world.aside(lambda: order.append(2), lane="x"))
        await asyncio.sleep(0)
        cancelled.cancel()
        go.set()
        await second
        world.close()
        return order

    assert asyncio.run(main()) == [1, 2]


def test_what_nobody_waits_for_is_undone() -> None:
    async def main() -> None:
        world, go, undone = Tasks(), threading.Event(), threading.Event()
        task = asyncio.create_task(world.aside(lambda: go.wait(LONG), undone.set))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        assert await asyncio.to_thread(undone.wait, LONG)

    asyncio.run(main())


def test_a_cancelled_wait_loses_no_ring() -> None:
    async def main() -> None:
        world = Tasks()
        waiting = asyncio.create_task(world.bell.wait(LONG))
        await asyncio.sleep(0)
        world.bell.ring()
        waiting.cancel()
        await asyncio.wait([waiting])
        await world.bell.wait(LONG)

    asyncio.run(main())


def test_another_loop_is_refused() -> None:
    async def make() -> Tasks:
        return Tasks()

    world = asyncio.run(make())

    async def use() -> None:
        with pytest.raises(BackendUnavailable, match="another event loop"):
            world.check()

    asyncio.run(use())


def test_tasks_without_a_loop_are_refused() -> None:
    """As in a child that was forked under one, where the parent's does not count."""
    with pytest.raises(BackendUnavailable, match="no event loop runs here"):
        Tasks()
