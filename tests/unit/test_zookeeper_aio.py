"""How it is waited on asyncio, with results of kazoo's own: late, twice, never, or at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from kazoo.handlers.threading import SequentialThreadingHandler

from distjob import clock
from distjob_zookeeper.links import Changes, Threads
from distjob_zookeeper.loop import MOST, Loop

PATIENCE = 20.0


@pytest.fixture
def handler() -> Iterator[SequentialThreadingHandler]:
    handler = SequentialThreadingHandler()
    handler.start()
    yield handler
    handler.stop()


def play(steps: Callable[[Loop], Coroutine[Any, Any, None]]) -> None:
    """Run ``steps`` on a new loop, which must have nothing to complain of."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> None:
        running = asyncio.get_running_loop()
        running.set_exception_handler(lambda _, told: complaints.append(told))
        async with asyncio.timeout(PATIENCE):
            await steps(Loop())

    asyncio.run(watched())
    assert complaints == []


# -- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 2, 3])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_all_answers_are_awaited(
    handler: SequentialThreadingHandler, before: int, order: tuple[int, ...]
) -> None:
    async def steps(link: Loop) -> None:
        results = [handler.async_result() for _ in order]
        for place in order[:before]:
            results[place].set(place)
        waiting = asyncio.create_task(link.answered(results, PATIENCE))
        for place in order[before:]:
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await asyncio.to_thread(results[place].set, place)
        await waiting
        assert [result.get_nowait() for result in results] == [0, 1, 2]

    play(steps)


def test_nobody_waits_longer_than_is_said(handler: SequentialThreadingHandler) -> None:
    async def steps(link: Loop) -> None:
        begun = clock.monotonic()
        await link.answered([handler.async_result()], 0.05)
        await link.changed(Changes(), 0, 0.05)
        assert 0.09 <= clock.monotonic() - begun < 5

    play(steps)


def test_a_result_that_is_told_twice(handler: SequentialThreadingHandler) -> None:
    """kazoo does so with what was queued when the connection broke."""

    async def steps(link: Loop) -> None:
        results = [handler.async_result() for _ in range(2)]
        waiting = asyncio.create_task(link.answered(results, PATIENCE))
        await asyncio.sleep(0)
        for _ in range(3):
            for result in results:
                result.set_exception(RuntimeError())
        await waiting
        await link.answered(results, PATIENCE)
        handler.completion_queue.join()
        await asyncio.sleep(0)

    play(steps)


def test_a_handler_that_was_stopped_calls_at_once(handler: SequentialThreadingHandler) -> None:
    """In the thread that links, or that sets: in the loop's own, too."""

    async def steps(link: Loop) -> None:
        results = [handler.async_result() for _ in range(2)]
        handler.stop()
        waiting = asyncio.create_task(link.answered(results, PATIENCE))
        await asyncio.sleep(0)
        for result in results:
            result.set(None)
        await waiting

    play(steps)


def test_an_answer_that_is_late_disturbs_nobody(handler: SequentialThreadingHandler) -> None:
    late, later = handler.async_result(), handler.async_result()

    async def steps(link: Loop) -> None:
        cancelled = asyncio.create_task(link.answered([late], PATIENCE))
        await asyncio.sleep(0)
        cancelled.cancel()
        await link.answered([later], 0.01)
        late.set(None)
        handler.completion_queue.join()
        await asyncio.sleep(0)
        assert cancelled.cancelled()

    play(steps)
    errors: list[object] = []
    later.rawlink(lambda _: errors.append(threading.current_thread()))
    later.set(None)  # the loop is closed
    handler.completion_queue.join()
    assert len(errors) == 1, "kazoo's thread lives on"


# -- room -----------------------------------------------------------------------------------------


def test_there_is_room_for_so_many_and_then_one_by_one_in_order(
    handler: SequentialThreadingHandler,
) -> None:
    async def steps(link: Loop) -> None:
        under_way = [handler.async_result() for _ in range(MOST)]
        await link.answered(under_way, 0.0)
        let_in: list[int] = []

        async def enter(number: int, asks: int) -> None:
            assert await link.room(asks, PATIENCE)
            let_in.append(number)

        tasks = [
            asyncio.create_task(enter(number, asks)) for number, asks in enumerate((1, MOST + 1, 1))
        ]
        assert not await link.room(1, 0.05), "not within its time"
        assert let_in == []
        await asyncio.to_thread(under_way.pop().set, None)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert let_in == [0]
        tasks[1].cancel()  # it would have waited for all of them
        await tasks[2]
        assert let_in == [0, 2]
        for result in under_way:
            result.set(None)
        assert await link.room(MOST + 1, PATIENCE), "alone, any batch has room"

    play(steps)


def test_room_is_found_again_where_nobody_called_back(handler: SequentialThreadingHandler) -> None:
    async def steps(link: Loop) -> None:
        under_way = [handler.async_result() for _ in range(MOST)]
        await link.answered(under_way, 0.0)
        for result in under_way:
            result._callbacks.clear()  # as if it was stopped just then
            result.set(None)
        assert await link.room(1, PATIENCE)

    play(steps)


# -- news -----------------------------------------------------------------------------------------


def test_news_that_came_first_is_not_waited_for() -> None:
    changes = Changes()
    with changes:
        changes.tell()

    async def steps(link: Loop) -> None:
        await link.changed(changes, 0, PATIENCE)

    play(steps)
    now = clock.monotonic()
    with pytest.raises(StopIteration):
        Threads().changed(changes, 0, PATIENCE).send(None)
    assert clock.monotonic() - now < 5


def test_news_from_another_thread() -> None:
    changes = Changes()

    def tell() -> None:
        with changes:
            changes.tell()

    async def steps(link: Loop) -> None:
        for seen in range(50):
            waiting = asyncio.create_task(link.changed(changes, seen, PATIENCE))
            await asyncio.sleep(0)
            await asyncio.to_thread(tell)
            await waiting
        gone = asyncio.create_task(link.changed(changes, 50, PATIENCE))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        assert not changes.wakers

    play(steps)
    tell()  # the loop is closed


# -- aside ----------------------------------------------------------------------------------------


def test_what_blocks_is_done_aside_in_a_thread_that_ends() -> None:
    before = set(threading.enumerate())

    async def steps(link: Loop) -> None:
        assert await link.aside(threading.current_thread) is not threading.main_thread()
        with pytest.raises(ZeroDivisionError):
            await link.aside(lambda: 1 // 0)

    play(steps)
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_what_nobody_waits_for_any_more_is_undone_after_it() -> None:
    told: list[str] = []
    begun, go, undone = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go.wait(PATIENCE)
        told.append("done")

    def undo() -> None:
        told.append("undone")
        undone.set()

    async def steps(link: Loop) -> None:
        task = asyncio.create_task(link.aside(call, undo))
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(steps)
    assert told == []
    go.set()
    assert undone.wait(PATIENCE)
    assert told == ["done", "undone"]
