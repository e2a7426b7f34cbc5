"""The etcd store on asyncio: tasks side by side, cancelled, closed under each other.

What both worlds have in common is in the other files.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any

import pytest

from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, AsyncStore, Committed, Event, Woken
from distjob_etcd import EtcdSettings
from on_etcd import TTL, opened_async
from proxy import Proxy
from servers import EtcdNode


def play(steps: Coroutine[Any, Any, None]) -> None:
    """Run ``steps``; no task or thread may be left then, and the loop must not have complained."""

    async def watched() -> None:
        complaints: list[str] = []
        threads = set(threading.enumerate())
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(str(told)))
        await asyncio.wait_for(steps, 60.0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left
        for one in set(threading.enumerate()) - threads:
            if one.name == "distjob-etcd-watch":
                one.join(5.0)  # it has said its last word, and may not be gone yet
                assert not one.is_alive()
        gc.collect()
        await asyncio.sleep(0)
        assert not complaints

    asyncio.run(watched())


async def connect(address: str, namespace: str) -> AsyncStore:
    return await opened_async(EtcdSettings(endpoints=(address,), timeout=5.0), namespace)


@contextlib.asynccontextmanager
async def connected(address: str, namespace: str) -> AsyncIterator[AsyncStore]:
    store = await connect(address, namespace)
    try:
        yield store
    finally:
        await store.close()


async def committed(store: AsyncStore, vm: str, value: bytes, author: str, *wake: str) -> int:
    reply = await store.commit(vm, (await store.read(vm)).version, value, author, wake)
    assert isinstance(reply, Committed)
    return reply.version


async def failed(verb: Awaitable[object]) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        await verb
    return caught.value


async def received(store: AsyncStore, session: str, last: Event) -> list[Event]:
    """Events up to ``last``, whatever is raised meanwhile."""
    events: list[Event] = []
    async with asyncio.timeout(20.0):
        while last not in events:
            with contextlib.suppress(BackendUnavailable):
                events += await store.receive(session, 1.0)
    return events


async def in_flight(commits: int, store: AsyncStore, me: str) -> list[asyncio.Task[Any]]:
    """Tasks whose commits are sent and not answered, if the proxy is stalled."""
    tasks = [
        asyncio.create_task(store.commit(f"vm-{number}", ABSENT, b"x", me, ()))
        for number in range(commits)
    ]
    await asyncio.sleep(0.1)
    return tasks


def test_many_commits_share_one_connection(proxy: Proxy, fresh_namespace: str) -> None:
    async def steps() -> None:
        async with connected(proxy.address, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            commits = [store.commit(f"vm-{i}", ABSENT, b"%d" % i, me, (me,)) for i in range(300)]
            replies = await asyncio.gather(*commits, store.keep_alive(me))
            assert replies.pop() is True
            versions = {f"vm-{i}": reply.version for i, reply in enumerate(replies)}  # type: ignore[union-attr]
            assert len(set(versions.values())) == 300
            assert len(proxy._clients) == 2  # and the watch's own
            found = {vm: value.version async for vm, value in store.scan()}
            assert found == versions
            last = max(versions, key=versions.__getitem__)
            events = await received(
                store, me, Woken(last, versions[last], last.partition("-")[2].encode())
            )
            assert len(events) == 300

    play(steps())


def test_the_next_loop_hears_nothing_of_calls_that_a_close_cut_off(
    proxy: Proxy, fresh_namespace: str
) -> None:
    """GRPC says the last word of a call later than its end, and to whichever loop is there then."""
    complaints: list[str] = []

    async def steps() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(str(told)))
        store = await connect(proxy.address, fresh_namespace)
        me = await store.open_session(TTL, "me")
        proxy.stall()
        tasks = await in_flight(1000, store, me)
        await store.close()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in found} == {BackendUnavailable}
        proxy.flow()

    for _ in range(5):
        asyncio.run(steps())  # and not a moment longer
    assert not complaints


def test_stores_come_and_go(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    async def steps() -> None:
        before = asyncio.all_tasks()
        for turn in range(10):
            async with connected(etcd_server.address, fresh_namespace) as store:
                if turn % 2:
                    me = await store.open_session(TTL, "me")
                    await committed(store, "vm", b"x", me, me)
            assert asyncio.all_tasks() == before

    play(steps())


def test_another_process_is_told(
    etcd_server: EtcdNode, fresh_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps() -> None:
        async with connected(etcd_server.address, fresh_namespace) as store:
            with monkeypatch.context() as forked:
                forked.setattr("os.getpid", lambda: -1)
                for verb in (store.read("vm"), store.receive("x", 1.0), store.keep_alive("x")):
                    assert "before a fork" in str(await failed(verb))
                store.interrupt()
                await store.close()
                with pytest.raises(BackendUnavailable, match="forked"):
                    await connect(etcd_server.address, fresh_namespace)
            assert (await store.read("vm")).value is None

    play(steps())
