"""The ZooKeeper store on asyncio: tasks side by side, and cancelled at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Event, Missed, Woken
from distjob_zookeeper.layout import Layout
from proxy import Proxy
from zookeeper_stores import TTL, kazoo_of, source_of
from zookeeper_tasks import (
    PATIENCE,
    committed,
    connect,
    connected,
    play,
    try_until,
    under_way,
)

if TYPE_CHECKING:
    from kazoo.client import KazooClient


# -- side by side ---------------------------------------------------------------------------------


def test_many_commits_share_one_connection_and_make_no_thread(
    hosts: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(hosts, fresh_namespace, 30.0, timeout=30.0) as store:
            me = await store.open_session(60.0, "me")
            receiving = asyncio.create_task(store.receive(me, 60.0))
            before, most = threading.active_count(), 0
            pipelined = 0
            commits = [
                asyncio.create_task(store.commit(f"vm-{n}", ABSENT, b"x", me, ()))
                for n in range(500)
            ]
            while any(not commit.done() for commit in commits):
                await asyncio.sleep(0)
                most = max(most, threading.active_count())
                pipelined = max(pipelined, len(kazoo_of(store)._pending))
            replies = await asyncio.gather(*commits)
            assert most == before
            assert pipelined > 10
            assert len({reply.version for reply in replies}) == 500
            assert {vm async for vm, _ in store.scan()} == {f"vm-{n}" for n in range(500)}
            await asyncio.gather(*(store.keep_alive(me) for _ in range(50)))
            store.interrupt()
            assert await receiving == []

    play(steps())


def test_a_silent_server_holds_up_no_other_task(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    """More than kazoo's pipe can take: what does not fit is not sent."""

    async def steps() -> None:
        async with connected(through, fresh_namespace, timeout=6.0) as store:
            me = await store.open_session(30.0, "me")
            proxy.stall()
            begun, longest = clock.monotonic(), 0.0
            commits = [
                asyncio.create_task(store.commit(f"vm-{n}", ABSENT, b"x" * 20_000, me, ()))
                for n in range(1000)
            ]
            while any(not commit.done() for commit in commits):
                last = clock.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, clock.monotonic() - last)
            assert clock.monotonic() - begun < 20
            assert longest < 4, "the loop was held up"
            errors = [commit.exception() for commit in commits]
            assert all(isinstance(error, BackendUnavailable) for error in errors)
            unanswered = [getattr(error, "unanswered", None) for error in errors]
            assert unanswered[0] is True
            assert unanswered[-1] is False
            proxy.flow()
            assert await try_until(lambda: store.keep_alive(me))
            await try_until(lambda: committed(store, "vm-999", me))

    play(steps())


def test_a_renewal_does_not_stand_in_line(hosts: str, fresh_namespace: str) -> None:
    async def steps() -> None:
        async with connected(hosts, fresh_namespace, 30.0, timeout=30.0) as store:
            me = await store.open_session(60.0, "me")
            commits = [
                asyncio.create_task(store.commit(f"vm-{n}", ABSENT, b"x", me, ()))
                for n in range(1000)
            ]
            await asyncio.sleep(0)
            assert await store.keep_alive(me)
            assert sum(commit.done() for commit in commits) < 300
            assert all(isinstance(reply, Committed) for reply in await asyncio.gather(*commits))

    play(steps())


# -- cancelled ------------------------------------------------------------------------------------


def test_a_cancelled_commit_disturbs_no_neighbour(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace, timeout=10.0) as store:
            me = await store.open_session(TTL, "me")
            proxy.stall()
            commits = await under_way(store, me, 60)
            for commit in commits[::2]:
                commit.cancel()
            await asyncio.wait(commits[::2])
            proxy.flow()
            replies = await asyncio.gather(*commits[1::2])
            assert all(isinstance(reply, Committed) for reply in replies)
            assert all(commit.cancelled() for commit in commits[::2])
            for number, commit in enumerate(commits):
                found = await store.read(f"vm-{number}")
                if not commit.cancelled():
                    assert found.version == commit.result().version
                assert found.value == b"x", "it was sent"
                again = await store.commit(f"vm-{number}", found.version, None, me, ())
                assert isinstance(again, Committed)

    play(steps())


def test_a_session_whose_opening_was_cancelled_leaves_no_node(
    proxy: Proxy, through: str, admin: KazooClient, fresh_namespace: str, layout: Layout
) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace) as store:
            proxy.stall()
            opening = asyncio.create_task(store.open_session(TTL, "me"))
            while len(kazoo_of(store)._pending) < 3:
                await asyncio.sleep(0.01)
            opening.cancel()
            await asyncio.wait([opening])
            proxy.flow()
            other = await try_until(lambda: store.open_session(TTL, "other"))
            for folder in (layout.sessions, layout.beats, layout.wakes):
                assert admin.get_children(folder) == [other]

    play(steps())


def test_a_receive_that_is_cancelled_loses_nothing(hosts: str, fresh_namespace: str) -> None:
    async def steps() -> None:
        async with (
            connected(hosts, fresh_namespace) as store,
            connected(hosts, fresh_namespace) as other,
        ):
            me, you = await store.open_session(30.0, "me"), await other.open_session(30.0, "you")
            versions: list[int] = []
            woken: list[Event] = []
            cancelled = 0
            for number in range(100):
                receiving = asyncio.create_task(store.receive(me, PATIENCE))
                committing = asyncio.create_task(committed(other, f"vm-{number}", you, me))
                for _ in range(number):  # at every moment of its way
                    await asyncio.sleep(0)
                receiving.cancel()
                versions.append(await committing)
                await asyncio.wait([receiving])
                if receiving.cancelled():
                    cancelled += 1
                    woken += await store.receive(me, PATIENCE)
                else:
                    woken += receiving.result()
            assert cancelled
            assert [event.version for event in woken if isinstance(event, Woken)] == versions
            assert len(woken) == 100

    play(steps())


def test_what_was_missed_is_told_although_who_asked_first_was_cancelled(
    proxy: Proxy, through: str, hosts: str, fresh_namespace: str
) -> None:
    """The watch that it set fires all the same, and so hides that there was a gap."""

    async def steps() -> None:
        async with (
            connected(through, fresh_namespace) as store,
            connected(hosts, fresh_namespace) as other,
        ):
            me, you = await store.open_session(TTL, "me"), await other.open_session(TTL, "you")
            client, feed = kazoo_of(store), source_of(store)._sessions.feed
            proxy.cut()
            await try_until(lambda: store.read("vm"))
            proxy.stall()
            receiving = asyncio.create_task(store.receive(me, PATIENCE))
            while not client._pending:
                await asyncio.sleep(0.01)
            receiving.cancel()
            await asyncio.wait([receiving])
            proxy.flow()
            version = await committed(other, "vm", you, me)
            while not feed._come:
                await asyncio.sleep(0.01)
            events = [*await store.receive(me, PATIENCE), *await store.receive(me, 0.0)]
            assert set(map(type, events)) == {Missed, Woken}
            assert Woken(vm="vm", version=version, value=b"x") in events

    play(steps())


@pytest.mark.usefixtures("no_thread_left")
def test_connecting_is_cancelled(proxy: Proxy, through: str, fresh_namespace: str) -> None:
    async def steps() -> None:
        proxy.stall()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect(through, fresh_namespace, timeout=1.0), 0.2)
        proxy.flow()
        for patience in (0.0, 0.001, 0.005, 0.02, 0.05):
            with contextlib.suppress(TimeoutError):
                connecting = connect(through, fresh_namespace, timeout=1.0)
                store = await asyncio.wait_for(connecting, patience)
                await store.close()

    play(steps())
