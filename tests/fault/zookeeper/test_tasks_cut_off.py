"""The ZooKeeper store on asyncio: servers that are lost and come back, and letting go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Ended
from distjob_zookeeper.layout import Layout
from proxy import Proxy
from servers import ZookeeperCluster, wait_for
from zookeeper_stores import TTL, kazoo_of
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


# -- lost and back --------------------------------------------------------------------------------


@pytest.mark.parametrize("applied", [True, False])
def test_all_that_is_under_way_on_a_connection_is_unanswered(
    proxy: Proxy, through: str, fresh_namespace: str, applied: bool
) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            (proxy.drop_next_reply if applied else proxy.drop_next_request)(b"/vm/")
            replies = await asyncio.gather(
                *(store.commit(f"vm-{n}", ABSENT, b"x", me, ()) for n in range(50)),
                return_exceptions=True,
            )
            lost = [reply for reply in replies if isinstance(reply, BackendUnavailable)]
            assert lost
            assert any(error.unanswered for error in lost)
            assert await try_until(lambda: store.keep_alive(me))
            for number, reply in enumerate(replies):
                found = await store.read(f"vm-{number}")
                if isinstance(reply, Committed):
                    assert found.version == reply.version
                elif isinstance(reply, BackendUnavailable) and not reply.unanswered:
                    assert found.version == ABSENT
                await committed(store, f"vm-{number}", me)

    play(steps())


def test_the_end_of_a_session_that_is_not_renewed(hosts: str, fresh_namespace: str) -> None:
    async def steps() -> None:
        async with (
            connected(hosts, fresh_namespace) as store,
            connected(hosts, fresh_namespace) as other,
        ):
            watching = await other.open_session(TTL, "watching")
            session = await store.open_session(0.5, "me")
            receiving = asyncio.create_task(store.receive(session, PATIENCE))
            async with asyncio.timeout(PATIENCE):
                while (left := (await other.remaining([session]))[session]) > 0:
                    await asyncio.sleep(left)
            assert await other.receive(watching, PATIENCE) == [Ended(session=session)]
            assert await receiving == [Ended(session=session)]
            assert not await store.keep_alive(session)

    play(steps())


def test_the_leader_dies_under_a_crowd(
    zookeeper_cluster: ZookeeperCluster, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(zookeeper_cluster.hosts, fresh_namespace) as store:
            me = await store.open_session(60.0, "me")

            async def count(vm: str) -> int:
                """By compare-and-set; how often it was surely done."""
                surely = 0
                for _ in range(20):
                    found = await try_until(lambda: store.read(vm))
                    value = b"%d" % (int(found.value or b"0") + 1)
                    with contextlib.suppress(BackendUnavailable):
                        reply = await store.commit(vm, found.version, value, me, ())
                        surely += isinstance(reply, Committed)
                return surely

            counting = [asyncio.create_task(count(f"vm-{n}")) for n in range(20)]
            await asyncio.sleep(0.1)
            await asyncio.to_thread(zookeeper_cluster.leader().kill)
            surely = await asyncio.gather(*counting)
            assert await try_until(lambda: store.keep_alive(me))
            for number, times in enumerate(surely):
                found = await try_until(lambda n=number: store.read(f"vm-{n}"))
                assert times <= int(found.value or b"0") <= 20

    play(steps())


# -- letting go -----------------------------------------------------------------------------------


def test_answers_that_come_when_the_loop_is_closed(
    proxy: Proxy,
    through: str,
    fresh_namespace: str,
    admin: KazooClient,
    layout: Layout,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clients: list[Any] = []

    async def steps() -> None:
        store = await connect(through, fresh_namespace)
        clients.append(kazoo_of(store))
        me = await store.open_session(TTL, "me")
        proxy.stall()
        for commit in await under_way(store, me, 20):
            commit.cancel()
        receiving = asyncio.create_task(store.receive(me, PATIENCE))
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        # It is not closed: the loop ends first.

    with caplog.at_level(logging.WARNING):
        play(steps())
        proxy.flow()
        wait_for(lambda: len(admin.get_children(layout.vms)) == 20, "all applied")
        clients[0].stop()
        clients[0].close()
    assert [record for record in caplog.records if record.name != "asyncio"] == []


@pytest.mark.usefixtures("no_thread_left")
def test_no_noise(
    proxy: Proxy, through: str, fresh_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace) as store:
            proxy.cut()
            await try_until(lambda: store.read("vm"))

    with caplog.at_level(logging.INFO):
        play(steps())
    assert [record for record in caplog.records if record.name != "asyncio"] == []
