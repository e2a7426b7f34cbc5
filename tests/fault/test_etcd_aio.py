"""The etcd store on asyncio: tasks side by side, cancelled, cut off, closed under each other."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from distjob.errors import BackendUnavailable, ConfigError
from distjob.store import ABSENT, AsyncStore, Committed, Ended, Event, Missed, Stale, Woken
from distjob_etcd import EtcdSettings, backend
from distjob_etcd.aio import open_store
from distjob_etcd.verbs import Verbs
from proxy import Proxy
from servers import EtcdNode

TTL = 10.0


@pytest.fixture
def proxy(etcd_server: EtcdNode) -> Iterator[Proxy]:
    with Proxy((etcd_server.host, etcd_server.port)) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy) -> str:
    return f"127.0.0.1:{proxy.port}"


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


async def connect(
    address: str, namespace: str, ttl: float = TTL, timeout: float = 5.0
) -> AsyncStore:
    assert backend.connect_async is not None
    chosen = EtcdSettings(endpoints=(address,), timeout=timeout)
    return await backend.connect_async(chosen, namespace, ttl)


@contextlib.asynccontextmanager
async def connected(address: str, namespace: str, **how: float) -> AsyncIterator[AsyncStore]:
    store = await connect(address, namespace, **how)
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


# -- side by side -----------------------------------------------------------------------------


def test_many_commits_share_one_connection(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            commits = [store.commit(f"vm-{i}", ABSENT, b"%d" % i, me, (me,)) for i in range(300)]
            replies = await asyncio.gather(*commits, store.keep_alive(me))
            assert replies.pop() is True
            versions = {f"vm-{i}": reply.version for i, reply in enumerate(replies)}  # type: ignore[union-attr]
            assert len(set(versions.values())) == 300
            assert len(proxy._clients) == 1
            found = {vm: value.version async for vm, value in store.scan()}
            assert found == versions
            last = max(versions, key=versions.__getitem__)
            events = await received(
                store, me, Woken(last, versions[last], last.partition("-")[2].encode())
            )
            assert len(events) == 300

    play(steps())


def test_a_cancelled_commit_does_not_disturb_its_neighbours(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            proxy.stall()
            tasks = await in_flight(40, store, me)
            for task in tasks[::2]:
                task.cancel()
            done = asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)
            proxy.flow()
            outcomes = await done
            assert all(isinstance(one, asyncio.CancelledError) for one in outcomes[::2])
            assert all(isinstance(one, Committed) for one in outcomes[1::2])
            for number in range(0, 40, 2):  # made, or not
                vm = f"vm-{number}"
                found = await store.read(vm)
                assert found.value in (None, b"x")
                reply = await store.commit(vm, found.version, b"y", me, ())
                assert isinstance(reply, Committed | Stale)

    play(steps())


def test_verbs_that_are_cancelled_anywhere_leave_the_store_usable(
    etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(etcd_server.address, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            for turns in range(12):
                verbs = [
                    asyncio.create_task(verb)
                    for verb in (
                        store.open_session(1.0, "x"),
                        store.keep_alive(me),
                        store.read("vm"),
                        store.commit("vm", ABSENT, None, me, (me,)),
                        store.remaining([me, "x"]),
                        store.receive(me, 5.0),
                        store.close_session("none"),
                    )
                ]
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                for verb in verbs:
                    verb.cancel()
                await asyncio.gather(*verbs, return_exceptions=True)
            version = await committed(store, "vm", b"last", me, me)
            await received(store, me, Woken("vm", version, b"last"))

    play(steps())


# -- receiving --------------------------------------------------------------------------------


def test_a_cancelled_receive_loses_no_event(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    async def steps() -> None:
        async with connected(etcd_server.address, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            seen: list[Event] = []
            sent: list[Event] = []
            version = ABSENT
            for turn in range(60):
                receiving = asyncio.create_task(store.receive(me, 5.0))
                reply = await store.commit("vm", version, b"%d" % turn, me, (me,))
                assert isinstance(reply, Committed)
                version = reply.version
                sent.append(Woken("vm", version, b"%d" % turn))
                for _ in range(turn % 4):
                    await asyncio.sleep(0)
                if not receiving.done():
                    receiving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    seen += await receiving
            if sent[-1] not in seen:
                seen += await received(store, me, sent[-1])
            assert seen == sent

    play(steps())


def test_interrupt_ends_the_receive_under_way_or_the_next(
    etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(etcd_server.address, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            receiving = asyncio.create_task(store.receive(me, 50.0))
            await asyncio.sleep(0.05)
            store.interrupt()
            assert list(await asyncio.wait_for(receiving, 5.0)) == []
            store.interrupt()
            assert list(await asyncio.wait_for(store.receive(me, 50.0), 5.0)) == []

    play(steps())


def test_a_watch_that_is_cut_goes_on_without_loss(
    proxy: Proxy, through: str, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with (
            connected(through, fresh_namespace) as store,
            connected(etcd_server.address, fresh_namespace) as direct,
        ):
            me = await store.open_session(30.0, "me")
            other = await direct.open_session(30.0, "other")
            assert (await store.remaining([other]))[other] > 0
            for turn in range(5):
                proxy.cut()
                version = await committed(direct, "vm", b"%d" % turn, other, me)
                woken = [Woken("vm", version, b"%d" % turn)]
                assert list(await store.receive(me, 10.0)) == woken
            proxy.refuse()
            for _ in range(2):
                await failed(store.receive(me, 10.0))
            version = await committed(direct, "vm", b"at last", other, me)
            proxy.accept()
            last = Woken("vm", version, b"at last")
            assert await received(store, me, last) == [Missed(), last]
            proxy.cut()
            await direct.close_session(other)
            assert list(await store.receive(me, 10.0)) == [Ended(other)]

    play(steps())


def test_a_half_dead_connection_is_noticed(
    proxy: Proxy, through: str, etcd_server: EtcdNode, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with (
            connected(through, fresh_namespace, ttl=1.5, timeout=1.0) as store,
            connected(etcd_server.address, fresh_namespace) as direct,
        ):
            me = await store.open_session(60.0, "me")
            assert list(await store.receive(me, 1.6)) == []  # silent, and asked, but alive
            proxy.stall()
            await asyncio.wait_for(failed(store.receive(me, 30.0)), 8.0)
            version = await committed(direct, "vm", b"x", me, me)
            proxy.flow()
            await received(store, me, Woken("vm", version, b"x"))

    play(steps())


# -- replies that never come ------------------------------------------------------------------


def test_a_lost_reply_is_unanswered_and_nobody_there_is_not(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            proxy.drop_next_reply(to=b"/vm/vm")
            assert (await failed(store.commit("vm", ABSENT, b"one", me, (me,)))).unanswered
            assert proxy.dropped.is_set()
            proxy.refuse()
            with contextlib.suppress(BackendUnavailable):
                await store.read("vm")  # the connection was cut under it, perhaps
            for verb in (
                store.commit("vm", ABSENT, b"one", me, ()),
                store.keep_alive(me),
                store.open_session(TTL, "me"),
            ):
                assert not (await failed(verb)).unanswered
            proxy.accept()

    play(steps())


def test_a_timeout_is_unanswered(proxy: Proxy, through: str, fresh_namespace: str) -> None:
    async def steps() -> None:
        async with connected(through, fresh_namespace, timeout=0.5) as store:
            me = await store.open_session(TTL, "me")
            proxy.stall()
            assert (await failed(store.commit("vm", ABSENT, b"one", me, ()))).unanswered
            proxy.flow()

    play(steps())


# -- connecting, and being refused ------------------------------------------------------------


def test_a_wrong_port_gives_the_blocking_stores_error() -> None:
    async def steps() -> None:
        with Proxy(("127.0.0.1", 1)) as nobody:
            nobody.refuse()
            address = f"127.0.0.1:{nobody.port}"
            error = await failed(connect(address, "ns"))
            with pytest.raises(BackendUnavailable) as blocking:
                backend.connect(EtcdSettings(endpoints=(address,)), "ns", TTL)
            assert not error.unanswered
            assert str(error).partition(":")[0] == str(blocking.value).partition(":")[0]
            assert address in str(error)
            nobody.accept()

    play(steps())


def test_a_connect_that_is_cancelled_leaves_nothing(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        proxy.stall()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect(through, fresh_namespace), 0.2)
        proxy.flow()

    play(steps())


def test_what_is_no_channel_of_this_loop(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    async def a_channel() -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(etcd_server.address)

    async def steps(strange: grpc.aio.Channel) -> None:
        with pytest.raises(ConfigError, match="another event loop"):
            await open_store(strange, fresh_namespace, TTL)
        with (
            grpc.insecure_channel(etcd_server.address) as blocking,
            pytest.raises(ConfigError, match=r"grpc\.aio\.Channel"),
        ):
            await open_store(blocking, fresh_namespace, TTL)  # type: ignore[arg-type]
        channel = await a_channel()
        with pytest.raises(ConfigError, match="namespace"):
            await open_store(channel, "", TTL)
        await channel.close()

    with asyncio.Runner() as runner:
        strange = runner.run(a_channel())
        play(steps(strange))
        runner.run(strange.close())


def test_a_store_of_another_loop(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(connect(etcd_server.address, fresh_namespace))

        async def elsewhere() -> None:
            for verb in (store.read("vm"), store.receive("x", 1.0), store.close()):
                assert "event loop" in str(await failed(verb))

        play(elsewhere())
        assert runner.run(store.read("vm")).value is None
        runner.run(store.close())


# -- closing ----------------------------------------------------------------------------------


def test_close_ends_what_is_under_way(proxy: Proxy, through: str, fresh_namespace: str) -> None:
    """And it ends by an error of ours: nobody has cancelled these tasks."""

    async def steps() -> None:
        store = await connect(through, fresh_namespace)
        me = await store.open_session(TTL, "me")
        receiving = asyncio.create_task(store.receive(me, 50.0))
        proxy.stall()
        tasks = await in_flight(3, store, me)
        reading = asyncio.create_task(store.read("vm"))
        await asyncio.sleep(0.05)
        await store.close()
        assert "closed" in str(await failed(receiving))
        for task in tasks:
            assert (await failed(task)).unanswered
        assert not (await failed(reading)).unanswered
        await store.close()
        for verb in (store.read("vm"), store.receive(me, 1.0), store.keep_alive(me)):
            assert "closed" in str(await failed(verb))
        store.interrupt()
        proxy.flow()

    play(steps())


def test_the_next_loop_hears_nothing_of_calls_that_a_close_cut_off(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    """GRPC says the last word of a call later than its end, and to whichever loop is there then."""
    complaints: list[str] = []

    async def steps() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(str(told)))
        store = await connect(through, fresh_namespace)
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


def test_the_users_channel_stays_open_or_is_closed_by_the_user(
    proxy: Proxy, through: str, fresh_namespace: str
) -> None:
    async def steps() -> None:
        channel = grpc.aio.insecure_channel(through)
        first = await open_store(channel, fresh_namespace, TTL)
        await first.open_session(TTL, "x")
        await first.close()
        store = await open_store(channel, fresh_namespace, TTL)
        me = await store.open_session(TTL, "me")
        proxy.stall()
        (commit,) = await in_flight(1, store, me)
        await channel.close()
        assert (await failed(commit)).unanswered
        proxy.flow()
        assert not (await failed(store.commit("vm", ABSENT, b"x", me, ()))).unanswered
        await store.close()

    play(steps())


def test_stores_come_and_go(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    async def steps() -> None:
        for turn in range(10):
            async with connected(etcd_server.address, fresh_namespace) as store:
                if turn % 2:
                    me = await store.open_session(TTL, "me")
                    await committed(store, "vm", b"x", me, me)
            assert asyncio.all_tasks() == {asyncio.current_task(), *_waiting()}

    def _waiting() -> set[asyncio.Task[Any]]:
        return {task for task in asyncio.all_tasks() if "watched" in repr(task.get_coro())}

    play(steps())


def test_a_loop_that_ends_before_its_store(
    etcd_server: EtcdNode, fresh_namespace: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def steps() -> None:
        store = await connect(etcd_server.address, fresh_namespace)
        me = await store.open_session(TTL, "me")
        await committed(store, "vm", b"x", me, me)

    asyncio.run(steps())
    gc.collect()
    assert "Traceback" not in capfd.readouterr().err


def test_a_reader_that_died_is_told(
    etcd_server: EtcdNode, fresh_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def steps() -> None:
        complaints: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        async with connected(etcd_server.address, fresh_namespace) as store:
            assert isinstance(store, Verbs)
            me = await store.open_session(TTL, "me")
            version = await committed(store, "vm", b"x", me, me)
            await received(store, me, Woken("vm", version, b"x"))

            def broken() -> None:
                msg = "broken"
                raise RuntimeError(msg)

            monkeypatch.setattr(store.server, "watch", broken)
            store._watching._hang_up()
            assert "died" in str(await failed(store.receive(me, 10.0)))
        assert "broken" in str(complaints)

    asyncio.run(steps())


# -- processes --------------------------------------------------------------------------------

_FORK = """
import asyncio, os, signal, sys
from distjob.errors import BackendUnavailable
from distjob_etcd import EtcdSettings, backend
settings = EtcdSettings(endpoints=(sys.argv[1],))

def connect():
    return backend.connect_async(settings, sys.argv[2], 10.0)

async def fails(words, *verbs):
    for verb in verbs:
        try:
            await verb
        except BackendUnavailable as error:
            assert words in str(error), error
        else:
            raise AssertionError

async def one():
    store = await connect()
    await store.read("vm")
    await store.close()

def ended(child, *how):
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (7, *how), code

def forked(does, *how):
    if not (child := os.fork()):
        asyncio.run(does())
        os._exit(7)
    ended(child, *how)

async def parent():
    store = await connect()
    me = await store.open_session(10.0, "me")
    child = os.fork()
    if not child:
        await fails("before a fork", store.read("vm"), store.receive(me, 5.0))
        await fails("forked", connect())
        store.interrupt()
        await store.close()
        os._exit(7)
    ended(child, -signal.SIGSEGV)
    reply = await store.commit("vm", 0, b"x", me, (me,))
    assert [event.version for event in await store.receive(me, 5.0)] == [reply.version]
    await store.close()

forked(one)
asyncio.run(parent())
forked(lambda: fails("forked", connect()), -signal.SIGSEGV)
"""


def test_a_forked_child_is_told(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    """One that was forked before its parent had a store may have its own.

    Later ones gRPC may crash in `os.fork`, before they can be told; they neither hang nor disturb.
    """
    command = [sys.executable, "-c", _FORK, etcd_server.address, fresh_namespace]
    subprocess.run(command, timeout=30, check=True, capture_output=True)


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


def test_a_blocking_store_beside_it(etcd_server: EtcdNode, fresh_namespace: str) -> None:
    """Both kinds side by side in one process, and under a running loop."""

    async def steps() -> None:
        async with connected(etcd_server.address, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            settings = EtcdSettings(endpoints=(etcd_server.address,))
            with contextlib.closing(backend.connect(settings, fresh_namespace, TTL)) as blocking:
                await committed(store, "vm", b"x", me)
                assert [vm for vm, _ in blocking.scan()] == ["vm"]
                assert backend.examine is not None
                assert list(backend.examine(blocking))

    play(steps())
