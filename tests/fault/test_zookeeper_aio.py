"""The ZooKeeper store on asyncio: tasks side by side, cancelled, cut off, the loop closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from kazoo.client import KazooClient
from kazoo.protocol.states import KeeperState

from distjob import clock
from distjob.errors import BackendUnavailable, ConfigError
from distjob.store import ABSENT, Committed, Ended, Event, Missed, Woken
from distjob_zookeeper import ZookeeperSettings, backend
from distjob_zookeeper.aio import connect, open_store
from distjob_zookeeper.asyncstore import AsyncZookeeperStore
from distjob_zookeeper.layout import Layout
from proxy import Proxy
from servers import ZookeeperCluster, ZookeeperNode, free_port, wait_for

T = TypeVar("T")
TTL = 10.0
PATIENCE = 20.0


@pytest.fixture
def proxy(zookeeper_server: ZookeeperNode) -> Iterator[Proxy]:
    with Proxy((zookeeper_server.host, zookeeper_server.port)) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy) -> str:
    return f"127.0.0.1:{proxy.port}"


@pytest.fixture
def hosts(zookeeper_server: ZookeeperNode) -> str:
    return zookeeper_server.hosts


@pytest.fixture
def users(hosts: str) -> Iterator[KazooClient]:
    """A client of the user's, and the tests' own look at the nodes."""
    client = KazooClient(hosts=hosts, timeout=15.0)
    client.start()
    yield client
    client.stop()
    client.close()


@pytest.fixture
def no_thread_left(zookeeper_server: ZookeeperNode) -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_for(lambda: set(threading.enumerate()) <= before, "all threads ended", 5.0)


def play(steps: Coroutine[Any, Any, None]) -> None:
    """Run ``steps``; afterwards no task may be left, and the loop must not have complained."""

    async def watched() -> None:
        complaints: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(str(told)))
        await asyncio.wait_for(steps, 60.0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left
        gc.collect()
        await asyncio.sleep(0)
        assert not complaints

    asyncio.run(watched())


@contextlib.asynccontextmanager
async def connected(
    hosts: str, namespace: str, ttl: float = TTL, **settings: Any
) -> AsyncIterator[AsyncZookeeperStore]:
    store = await connect(ZookeeperSettings(hosts=hosts, **settings), namespace, ttl)
    try:
        yield store
    finally:
        await store.close()


async def committed(store: AsyncZookeeperStore, vm: str, author: str, *wake: str) -> int:
    reply = await store.commit(vm, (await store.read(vm)).version, b"x", author, wake)
    assert isinstance(reply, Committed)
    return reply.version


async def failed(verb: Awaitable[object]) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        await verb
    return caught.value


async def try_until(call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` returns, once the store can be reached again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await call()
            except BackendUnavailable:
                await asyncio.sleep(0.05)


async def under_way(store: AsyncZookeeperStore, me: str, vms: int) -> list[asyncio.Task[Any]]:
    """Commits that are sent and not answered, if the proxy is stalled."""
    tasks = [
        asyncio.create_task(store.commit(f"vm-{number}", ABSENT, b"x", me, ()))
        for number in range(vms)
    ]
    client = store.connection.client
    async with asyncio.timeout(PATIENCE):
        while len(client._pending) < 2 * vms:  # each looks at its node in the same breath
            await asyncio.sleep(0.01)
    return tasks


# -- side by side ---------------------------------------------------------------------------------


def test_many_commits_share_one_connection_and_make_no_thread(
    hosts: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(hosts, fresh_namespace, timeout=20.0) as store:
            me = await store.open_session(TTL, "me")
            receiving = asyncio.create_task(store.receive(me, PATIENCE))
            before, most = threading.active_count(), 0
            pipelined = 0
            commits = [
                asyncio.create_task(store.commit(f"vm-{n}", ABSENT, b"x", me, ()))
                for n in range(500)
            ]
            while any(not commit.done() for commit in commits):
                await asyncio.sleep(0)
                most = max(most, threading.active_count())
                pipelined = max(pipelined, len(store.connection.client._pending))
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
        async with connected(through, fresh_namespace, timeout=1.0) as store:
            me = await store.open_session(TTL, "me")
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
            assert clock.monotonic() - begun < 5
            assert longest < 0.9, "the loop was held up"
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
        async with connected(hosts, fresh_namespace, timeout=20.0) as store:
            me = await store.open_session(TTL, "me")
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
    proxy: Proxy, through: str, users: KazooClient, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace) as store:
            proxy.stall()
            opening = asyncio.create_task(store.open_session(TTL, "me"))
            client = store.connection.client
            while len(client._pending) < 3:
                await asyncio.sleep(0.01)
            opening.cancel()
            await asyncio.wait([opening])
            proxy.flow()
            other = await try_until(lambda: store.open_session(TTL, "other"))
            folder = Layout(fresh_namespace).sessions
            async with asyncio.timeout(TTL / 2):
                while users.get_children(folder) != [other]:
                    await asyncio.sleep(0.01)

    play(steps())


def test_a_receive_that_is_cancelled_loses_nothing(hosts: str, fresh_namespace: str) -> None:
    async def steps() -> None:
        async with (
            connected(hosts, fresh_namespace) as store,
            connected(hosts, fresh_namespace) as other,
        ):
            me, you = await store.open_session(TTL, "me"), await other.open_session(TTL, "you")
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
            found = [event.version for event in woken if isinstance(event, Woken)]
            assert found == versions
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
            client = store.connection.client
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
            session = store._keeping.own(me)
            assert session is not None
            while not session._events:
                await asyncio.sleep(0.01)
            events = await store.receive(me, PATIENCE)
            assert events == [Missed(), Woken(vm="vm", version=version, value=b"x")]

    play(steps())


@pytest.mark.usefixtures("no_thread_left")
def test_connecting_is_cancelled(
    proxy: Proxy, through: str, users: KazooClient, fresh_namespace: str
) -> None:
    async def steps() -> None:
        proxy.stall()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                connect(ZookeeperSettings(hosts=through, timeout=1.0), fresh_namespace, TTL), 0.2
            )
        proxy.flow()
        for patience in (0.0, 0.001, 0.005, 0.02, 0.05):
            with contextlib.suppress(TimeoutError):
                settings = ZookeeperSettings(hosts=through, timeout=1.0)
                store = await asyncio.wait_for(connect(settings, fresh_namespace, TTL), patience)
                await store.close()
            opening = asyncio.create_task(open_store(users, fresh_namespace, TTL))
            await asyncio.sleep(patience)
            opening.cancel()
            await asyncio.wait([opening])
            if not opening.cancelled():
                await opening.result().close()

    play(steps())
    wait_for(lambda: not users.state_listeners, "the user's client let go of", 5.0)


# -- lost and back --------------------------------------------------------------------------------


def test_a_server_that_is_lost_and_comes_back(
    zookeeper_server: ZookeeperNode, hosts: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(hosts, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            version = await committed(store, "vm", me)
            receiving = asyncio.create_task(store.receive(me, PATIENCE))
            await asyncio.sleep(0)
            await asyncio.to_thread(zookeeper_server.kill)
            assert "not connected" in str(await failed(receiving))
            begun = clock.monotonic()
            for verb in (
                store.commit("vm", version, b"y", me, ()),
                store.keep_alive(me),
                store.read("vm"),
                store.open_session(TTL, "again"),
                store.receive(me, PATIENCE),
            ):
                assert not (await failed(verb)).unanswered
            assert clock.monotonic() - begun < 2
            await asyncio.to_thread(zookeeper_server.start)
            assert await try_until(lambda: store.receive(me, 1.0)) == [Missed()]
            assert await store.keep_alive(me)
            reply = await store.commit("vm", version, b"y", me, (me,))
            assert isinstance(reply, Committed)
            assert await store.receive(me, PATIENCE) == [
                Woken(vm="vm", version=reply.version, value=b"y")
            ]

    play(steps())


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
            assert await other.remaining([session]) == {session: 0.5}
            receiving = asyncio.create_task(store.receive(session, PATIENCE))
            assert await other.receive(watching, PATIENCE) == [Ended(session=session)]
            assert await receiving == [Missed()]
            assert not await store.keep_alive(session)

    play(steps())


def test_the_leader_dies_under_a_crowd(
    zookeeper_cluster: ZookeeperCluster, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(zookeeper_cluster.hosts, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")

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


# -- connecting and letting go --------------------------------------------------------------------


@pytest.mark.usefixtures("no_thread_left")
def test_what_is_wrong_is_said_as_by_the_blocking_store(
    hosts: str, users: KazooClient, fresh_namespace: str
) -> None:
    below = f"{hosts}/{fresh_namespace}"
    owner = ZookeeperSettings(hosts=below, user="distjob", password="s3cret")
    backend.connect(owner, "default", TTL).close()
    wrong: list[tuple[ZookeeperSettings, float]] = [
        (ZookeeperSettings(hosts=f"127.0.0.1:{free_port()}", timeout=1.0), TTL),
        (ZookeeperSettings(hosts=below, user="distjob", password="other"), TTL),
        (ZookeeperSettings(hosts=below), TTL),
        (ZookeeperSettings(hosts=hosts, password="s3cret"), TTL),
        (ZookeeperSettings(hosts=hosts), 41.0),
    ]

    async def steps() -> None:
        assert backend.connect_async is not None
        for settings, ttl in wrong:
            with pytest.raises((BackendUnavailable, ConfigError)) as blocking:
                backend.connect(settings, "default", ttl)
            with pytest.raises(type(blocking.value)) as caught:
                await backend.connect_async(settings, "default", ttl)
            assert str(caught.value) == str(blocking.value)
            assert "s3cret" not in str(caught.value)
        with pytest.raises(ConfigError, match=r"start\(\)"):
            await open_store(KazooClient(hosts=hosts), fresh_namespace, TTL)
        with pytest.raises(ConfigError, match=r"KazooClient\(timeout=30\)"):
            await open_store(users, fresh_namespace, 20.0)
        assert not users.state_listeners

    play(steps())


@pytest.mark.usefixtures("no_thread_left")
def test_close_under_all_that_is_under_way(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        store = await connect(ZookeeperSettings(hosts=through), fresh_namespace, TTL)
        me = await store.open_session(TTL, "me")
        receiving = asyncio.create_task(store.receive(me, PATIENCE))
        await asyncio.sleep(0)
        proxy.stall()
        commits = await under_way(store, me, 20)
        await asyncio.gather(store.close(), store.close())
        assert "closed" in str(await failed(receiving))
        for commit in commits:
            assert (await failed(commit)).unanswered
        for verb in (store.read("vm"), store.keep_alive(me), store.receive(me, 0.0)):
            assert "closed" in str(await failed(verb))
        with pytest.raises(BackendUnavailable, match="closed"):
            await anext(store.scan())

    begun = clock.monotonic()
    play(steps())
    assert clock.monotonic() - begun < 10


@pytest.mark.usefixtures("no_thread_left")
def test_a_close_that_is_cancelled_closes(hosts: str, fresh_namespace: str) -> None:
    async def steps() -> None:
        for patience in range(4):
            store = await connect(ZookeeperSettings(hosts=hosts), fresh_namespace, TTL)
            closing = asyncio.create_task(store.close())
            for _ in range(patience):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            await store.close()

    play(steps())


def test_a_client_of_the_users_is_left_alone(users: KazooClient, fresh_namespace: str) -> None:
    folder = Layout(fresh_namespace).sessions

    async def steps() -> None:
        store = await open_store(users, fresh_namespace, TTL)
        session = await store.open_session(0.5, "me")
        await committed(store, "vm", session)
        receiving = asyncio.create_task(store.receive(session, PATIENCE))
        await asyncio.sleep(0)
        await store.close()
        assert "closed" in str(await failed(receiving))
        assert users.get_children(folder) == [session]

    play(steps())
    wait_for(lambda: not users.get_children(folder), "the session ended by its TTL", 5.0)
    wait_for(lambda: not users.state_listeners, "the client let go of", 5.0)
    assert users.connected
    assert users.client_state == KeeperState.CONNECTED


def test_answers_that_come_when_the_loop_is_closed(
    proxy: Proxy, through: str, fresh_namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = KazooClient(hosts=through, timeout=15.0)
    client.start()

    async def steps() -> None:
        store = await open_store(client, fresh_namespace, TTL)
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
        assert len(client.get_children(Layout(fresh_namespace).vms)) == 20
        client.stop()
        client.close()
    assert caplog.records == []


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
