"""The ZooKeeper store on asyncio: tasks side by side, and cancelled at any moment."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Missed, Woken
from distjob_zookeeper.layout import Layout
from proxy import Proxy
from zookeeper_stores import TTL, kazoo_of, source_of
from zookeeper_tasks import (
    PATIENCE,
    committed,
    connected,
    play,
    try_until,
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
