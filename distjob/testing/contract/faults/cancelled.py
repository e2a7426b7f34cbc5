"""What asyncio adds: verbs that are cancelled at any moment, and loops that are not the store's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

from distjob.store import ABSENT, AsyncStore, Committed, Event, Settled, Stale, Woken
from distjob.testing.contract.faults.base import TTL, Faults, async_failed, play
from distjob.testing.contract.helpers import PATIENCE

if TYPE_CHECKING:
    from distjob.testing.contract.faults.proxy import Proxy

IDLE = 0.05
"""Seconds after which whoever receives has looked, and waits."""
Opened = Callable[..., AbstractAsyncContextManager[AsyncStore]]


class Cancelled(Faults):
    """It disturbs no neighbour, loses no event, leaves no task, thread or connection."""

    def test_a_cancelled_commit_disturbs_no_neighbour(self, opened: Opened) -> None:
        async def steps() -> None:
            async with opened(timeout=TTL) as store:
                me = await store.open_session(TTL, "me")
                for turns in range(6):
                    replies = await half_cancelled(store, me, f"vm-{turns}", turns)
                    await asyncio.wait_for(store.settle(me), PATIENCE)
                    for vm, reply in replies.items():
                        found = await store.read(vm)
                        if isinstance(reply, Committed):
                            assert found.version == reply.version
                        else:
                            assert isinstance(reply, asyncio.CancelledError), reply
                        again = await store.commit(vm, found.version, b"y", me, ())
                        assert isinstance(again, Committed), "it is known after a settling"

        play(steps())

    def test_so_it_is_when_nothing_is_answered(self, opened: Opened, proxy: Proxy) -> None:
        async def steps() -> None:
            async with opened(proxy.address, timeout=TTL) as store:
                me = await store.open_session(TTL, "me")
                proxy.stall()
                commits = [
                    asyncio.create_task(store.commit(f"vm-{number}", ABSENT, b"x", me, ()))
                    for number in range(20)
                ]
                await asyncio.sleep(0.2)
                for commit in commits[::2]:
                    commit.cancel()
                await asyncio.wait(commits[::2])
                proxy.flow()
                replies = await asyncio.gather(*commits[1::2])
                assert {type(reply) for reply in replies} == {Committed}

        play(steps())

    def test_a_cancelled_receive_loses_no_event(self, opened: Opened) -> None:
        async def steps() -> None:
            async with opened() as store, opened() as other:
                me = await store.open_session(3 * TTL, "me")
                you = await other.open_session(3 * TTL, "you")
                await store.receive(me, 0.0)
                seen: list[Event] = []
                sent: list[Event] = []
                for turn in range(40):
                    receiving = asyncio.create_task(store.receive(me, PATIENCE))
                    if turn % 2:
                        await asyncio.sleep(IDLE)
                    commit = other.commit(f"vm-{turn}", ABSENT, b"x", you, (me,))
                    committing = asyncio.create_task(commit)
                    if turn % 2:
                        await asyncio.wait([committing])
                    for _ in range(turn // 2):  # at every moment of its way, and of its arrival
                        await asyncio.sleep(0)
                    receiving.cancel()
                    reply = await committing
                    assert isinstance(reply, Committed)
                    sent.append(Woken(f"vm-{turn}", reply.version, b"x"))
                    await asyncio.wait([receiving])
                    if not receiving.cancelled():
                        seen += receiving.result()
                    async with asyncio.timeout(PATIENCE):
                        while len(seen) < len(sent):  # of several at once the first may be left out
                            seen += await store.receive(me, 1.0)
                assert seen == sent

        play(steps())

    def test_verbs_that_are_cancelled_anywhere_leave_the_store_usable(self, opened: Opened) -> None:
        async def steps() -> None:
            async with opened() as store:
                me = await store.open_session(TTL, "me")
                for turns in range(10):
                    verbs = [
                        asyncio.create_task(verb)
                        for verb in (
                            store.open_session(1.0, "x"),
                            store.keep_alive(me),
                            store.read("vm"),
                            store.commit("vm", ABSENT, None, me, (me,)),
                            store.remaining([me, "x"]),
                            store.receive(me, PATIENCE),
                            store.settle(me),
                            store.close_session("none"),
                        )
                    ]
                    for _ in range(turns):
                        await asyncio.sleep(0.0005)
                    for verb in verbs:
                        verb.cancel()
                    await asyncio.gather(*verbs, return_exceptions=True)
                await store.settle(me)
                seen = await store.read("vm")
                reply = await store.commit("vm", seen.version, b"last", me, (me,))
                assert isinstance(reply, Committed)
                async with asyncio.timeout(PATIENCE):
                    while Woken("vm", reply.version, b"last") not in await store.receive(me, 1.0):
                        pass

        play(steps())

    def test_a_connecting_that_is_cancelled_leaves_nothing(self, opened: Opened) -> None:
        async def steps() -> None:
            for patience in (0.0, 0.0005, 0.001, 0.005, 0.02):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience), opened():
                        pass
            async with opened() as store:
                assert (await store.read("vm")).version == ABSENT

        before = set(threading.enumerate())
        play(steps())
        for one in set(threading.enumerate()) - before:
            one.join(PATIENCE)
            assert not one.is_alive(), f"{one.name} is left"

    def test_so_it_is_when_the_server_is_silent(self, opened: Opened, proxy: Proxy) -> None:
        async def steps() -> None:
            proxy.stall()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2), opened(proxy.address):
                    pass
            proxy.flow()

        play(steps())

    def test_a_close_that_is_cancelled_closes(self, opened: Opened) -> None:
        async def steps() -> None:
            for turns in range(5):
                async with opened() as store:
                    me = await store.open_session(TTL, "me")
                    closing = asyncio.create_task(store.close())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    closing.cancel()
                    await asyncio.wait([closing])
                    if turns:
                        assert "closed" in str(await async_failed(store.keep_alive(me)))

        play(steps())

    def test_close_ends_what_is_under_way(self, opened: Opened, proxy: Proxy) -> None:
        """By an error of ours: nobody has cancelled these tasks."""

        async def steps() -> None:
            async with opened(proxy.address, timeout=TTL) as store:
                me = await store.open_session(TTL, "me")
                receiving = asyncio.create_task(store.receive(me, 3 * PATIENCE))
                proxy.stall()
                commits = [
                    asyncio.create_task(store.commit(f"vm-{number}", ABSENT, b"x", me, ()))
                    for number in range(3)
                ]
                reading = asyncio.create_task(store.read("vm"))
                await asyncio.sleep(0.2)
                await asyncio.gather(store.close(), store.close())
                await asyncio.wait([receiving], timeout=PATIENCE)
                error = receiving.exception()
                assert error is None or "closed" in str(error)
                for commit in commits:
                    assert (await async_failed(_result(commit))).unanswered
                assert not (await async_failed(_result(reading))).unanswered
                proxy.flow()

        play(steps())

    def test_another_loop_is_told(self, opened: Opened) -> None:
        async def elsewhere(store: AsyncStore) -> None:
            for verb in (store.read("vm"), store.receive("x", 1.0), store.close()):
                assert "event loop" in str(await async_failed(verb))

        async def steps() -> None:
            async with opened() as store:
                await asyncio.to_thread(asyncio.run, elsewhere(store))
                assert (await store.read("vm")).value is None

        play(steps())


async def half_cancelled(store: AsyncStore, me: str, vm: str, turns: int) -> dict[str, object]:
    """What ten commits return; each other one is cancelled after some turns of the loop."""
    commits = {
        f"{vm}-{number}": asyncio.create_task(store.commit(f"{vm}-{number}", ABSENT, b"x", me, ()))
        for number in range(10)
    }
    for _ in range(turns):
        await asyncio.sleep(0)
    for commit in list(commits.values())[::2]:
        commit.cancel()
    found = await asyncio.gather(*commits.values(), return_exceptions=True)
    assert not any(isinstance(reply, Settled | Stale) for reply in found)
    assert all(isinstance(reply, Committed) for reply in found[1::2])
    return dict(zip(commits, found, strict=True))


async def _result(task: asyncio.Task[object]) -> object:
    return await task
