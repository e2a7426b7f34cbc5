"""The Redis store on asyncio: many tasks on one connection, which is cut, or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis._parsers import _AsyncRESP2Parser, _AsyncRESP3Parser
from redis.credentials import CredentialProvider

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, AsyncStore, Committed, Missed, Woken
from distjob_redis import ClusterSettings, RedisRecipe, RedisSettings, SentinelSettings
from distjob_redis.client import lines, wire
from on_redis import TTL, connected_async, source_of
from proxy import Proxy
from servers import RedisCluster, RedisSentinel, RedisServer

MANY = 200


def on_loop(test: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
    """Run a test; fails if something complains in its loop, or a task is left."""

    async def run() -> None:
        complaints: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(str(told)))
        async with asyncio.timeout(60.0):
            await test(*given)
        gc.collect()
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert (left, complaints) == (set(), [])

    asyncio.run(run(), debug=True)


@pytest.fixture
def proxy(redis_server: RedisServer):
    with Proxy(("127.0.0.1", redis_server.port)) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def opened(
    port: int,
    namespace: str,
    timeout: float = 5.0,
    kind: type[RedisSettings] = RedisSettings,
    **more: Any,
) -> AsyncIterator[AsyncStore]:
    url = f"redis://127.0.0.1:{port}/0"
    store = await connected_async(kind(url=url, timeout=timeout, **more), namespace)
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def asking(server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis(host=server.host, port=server.port, protocol=2) as client:
        yield client


async def result(verb: Coroutine[Any, Any, Any]) -> Any:
    """What a verb returns, or raises."""
    try:
        return await verb
    except BackendUnavailable as error:
        return error


async def at_once(store: AsyncStore, me: str, count: int, value: bytes = b"x") -> list[Any]:
    """Commit to many VMs, each in a task of its own."""
    return await asyncio.gather(
        *(result(store.commit(f"vm-{number}", ABSENT, value, me, ())) for number in range(count))
    )


async def committed(store: AsyncStore, vm: str, me: str, *wake: str) -> int:
    reply = await store.commit(vm, (await store.read(vm)).version, b"x", me, wake)
    assert isinstance(reply, Committed)
    return reply.version


# -- round trips are shared -----------------------------------------------------------------------


def test_commits_share_a_connection_and_round_trips(
    redis_server: RedisServer, fresh_namespace: str
) -> None:
    async def test() -> None:
        async with asking(redis_server) as admin:
            before = {one["id"] for one in await admin.client_list()}
            async with opened(redis_server.port, fresh_namespace) as store:
                me = await store.open_session(TTL, "me")
                reads = (await admin.info("stats")).get("total_reads_processed")
                replies = await at_once(store, me, MANY)
                after = (await admin.info("stats")).get("total_reads_processed")
                assert all(isinstance(reply, Committed) for reply in replies)
                ours = [one for one in await admin.client_list() if one["id"] not in before]
                subscribed = [one for one in ours if one["sub"] != "0"]
                assert (len(ours), len(subscribed)) == (2, 1)
                if reads is not None:
                    assert after - reads < 20
            async with asyncio.timeout(5.0):  # the server hears of the end a moment later
                while {one["id"] for one in await admin.client_list()} != before:
                    await asyncio.sleep(0.01)

    on_loop(test)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("by", ["hiredis", "public names", "redis-py's parser"])
def test_with_and_without_hiredis_and_private_names(
    redis_server: RedisServer,
    fresh_namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    protocol: int,
    by: str,
) -> None:
    more: dict[str, Any] = {}
    if by != "hiredis":
        monkeypatch.setattr(wire, "_shown", lambda _: None)
    if by == "redis-py's parser":
        monkeypatch.setattr(wire, "hiredis", None)
        monkeypatch.setattr("redis.asyncio.connection.HIREDIS_AVAILABLE", False, raising=False)
        more["parser_class"] = _AsyncRESP2Parser if protocol == 2 else _AsyncRESP3Parser

    def make(module: Any, options: dict[str, Any]) -> Any:
        pool = module.ConnectionPool(**options | {"protocol": protocol} | more)
        return module.Redis.from_pool(pool)

    async def test() -> None:
        async with opened(redis_server.port, fresh_namespace, kind=RedisRecipe, make=make) as store:
            me = await store.open_session(TTL, "me \N{SNOWMAN}")
            replies = await at_once(store, me, MANY, b"x" * 5000)
            assert all(isinstance(reply, Committed) for reply in replies)
            assert {vm async for vm, _ in store.scan()} == {f"vm-{n}" for n in range(MANY)}
            assert (await store.read("nobody's")).version == ABSENT
            version = await committed(store, "vm", me, me)
            assert list(await store.receive(me, 5.0)) == [Woken("vm", version, b"x")]
            assert list(await store.receive(me, 0.1)) == []
            assert await store.keep_alive(me)

    on_loop(test)


def test_by_public_names_a_lost_connection_is_unanswered_and_missed(
    proxy: Proxy, fresh_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_shown", lambda _: None)

    async def test() -> None:
        async with opened(proxy.port, fresh_namespace, timeout=0.5) as store:
            me = await store.open_session(TTL, "me")
            proxy.drop_next_reply(to=b"EVALSHA")
            for told in await at_once(store, me, MANY):
                assert isinstance(told, BackendUnavailable)
                assert told.unanswered
            proxy.cut()
            assert Missed() in await store.receive(me, 5.0)
            version = await committed(store, "vm", me, me)
            assert list(await store.receive(me, 5.0)) == [Woken("vm", version, b"x")]
            proxy.stall()
            begun = clock.monotonic()
            assert isinstance(await result(store.read("vm")), BackendUnavailable)
            assert clock.monotonic() - begun < 2.0
            proxy.flow()

    on_loop(test)


# -- connections that are lost --------------------------------------------------------------------


def test_a_lost_connection_leaves_all_unanswered_and_the_next_one_serves(
    proxy: Proxy, redis_server: RedisServer, fresh_namespace: str
) -> None:
    async def test() -> None:
        async with opened(proxy.port, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            proxy.drop_next_reply(to=b"EVALSHA")
            replies = await at_once(store, me, MANY)
            assert all(isinstance(one, BackendUnavailable) for one in replies)
            assert all(one.unanswered for one in replies)
            again = await at_once(store, me, MANY)
            assert not any(isinstance(one, Exception) for one in again)
            versions = {(await store.read(f"vm-{n}")).version for n in range(MANY)}
            assert len(versions) == MANY

    on_loop(test)


def test_what_was_not_sent_goes_out_on_the_next_connection(
    proxy: Proxy, fresh_namespace: str
) -> None:
    """Though the loss of the old one was not looked at yet."""

    async def test() -> None:
        async with opened(proxy.port, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            proxy.stall()
            sent = asyncio.create_task(result(store.commit("sent", ABSENT, b"x", me, ())))
            await asyncio.sleep(0.05)
            (server,) = await source_of(store).place.servers()
            server._wire._writer.transport.abort()
            proxy.flow()
            assert isinstance(await store.commit("not yet", ABSENT, b"x", me, ()), Committed)
            assert (await sent).unanswered

    on_loop(test)


class _Moody(CredentialProvider):
    """A provider of credentials that may fail, or hang."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    def make(self, module: Any, options: dict[str, Any]) -> Any:
        self.client = module.Redis(**options, credential_provider=self)
        return self.client

    async def get_credentials_async(self) -> tuple[str, str]:
        self.asked.set()
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return "default", "any"


def test_credentials_that_can_not_be_had_once(proxy: Proxy, fresh_namespace: str) -> None:
    async def test() -> None:
        moody = _Moody()
        async with opened(proxy.port, fresh_namespace, kind=RedisRecipe, make=moody.make) as store:
            me = await store.open_session(TTL, "me")
            moody.error = RuntimeError("token service: 503")
            proxy.cut()
            for told in await asyncio.gather(*(result(store.read("vm")) for _ in range(3))):
                assert "RuntimeError: token service: 503" in str(told)
            with pytest.raises(BackendUnavailable, match="503"):
                await store.receive(me, 5.0)
            moody.error = None
            await committed(store, "vm", me, me)
            assert Missed() in await store.receive(me, 5.0)

    on_loop(test)


def test_a_connection_whose_greeting_was_cancelled_is_not_used(
    proxy: Proxy, fresh_namespace: str
) -> None:
    """Redis-py puts it back into the pool as if it had logged in."""

    async def test() -> None:
        moody = _Moody()
        async with opened(proxy.port, fresh_namespace, kind=RedisRecipe, make=moody.make) as store:
            me = await store.open_session(TTL, "me")
            moody.answers.clear()
            proxy.cut()
            moody.asked.clear()
            receiving = asyncio.create_task(store.receive(me, 5.0))
            await moody.asked.wait()
            receiving.cancel()
            await asyncio.wait([receiving])
            idle = moody.client.connection_pool._available_connections
            assert not any(connection.is_connected for connection in idle)
            moody.answers.set()
            assert Missed() in await store.receive(me, 5.0)

    on_loop(test)


def test_a_connection_that_ends_as_it_is_made_goes_back(
    redis_server: RedisServer, fresh_namespace: str
) -> None:
    """The user's own greeting cuts it: the pool has nothing in use then."""

    async def test() -> None:
        clients = []
        cut = True

        async def greet(connection: Any) -> None:
            await connection.on_connect()
            if cut:
                connection._writer.transport.abort()
                await asyncio.sleep(0)

        def make(module: Any, options: dict[str, Any]) -> Any:
            clients.append(module.Redis(**options, redis_connect_func=greet))
            return clients[-1]

        with pytest.raises(BackendUnavailable):
            async with opened(redis_server.port, fresh_namespace, kind=RedisRecipe, make=make):
                pass
        assert not clients[0].connection_pool._in_use_connections
        cut = False
        async with opened(redis_server.port, fresh_namespace, kind=RedisRecipe, make=make) as store:
            assert (await store.read("vm")).version == ABSENT

    on_loop(test)


def test_a_connection_cut_while_the_loop_was_held_up_costs_nothing(
    proxy: Proxy, fresh_namespace: str
) -> None:
    """What was not sent yet goes out on the next connection."""

    async def test() -> None:
        async with opened(proxy.port, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            for _ in range(3):
                proxy.cut()  # and the loop has had no turn since
                replies = await at_once(store, me, MANY)
                assert not any(isinstance(one, Exception) for one in replies)

    on_loop(test)


def test_who_can_not_be_reached_is_told_to_all_at_once(proxy: Proxy, fresh_namespace: str) -> None:
    async def test() -> None:
        async with opened(proxy.port, fresh_namespace, timeout=0.5) as store:
            me = await store.open_session(TTL, "me")
            proxy.refuse()
            replies = await at_once(store, me, MANY)
            assert all(isinstance(one, BackendUnavailable) for one in replies)
            assert not any(one.unanswered for one in replies)
            proxy.accept()
            proxy.stall()  # connected to, but never greeted
            begun = clock.monotonic()
            replies = await at_once(store, me, MANY)
            assert clock.monotonic() - begun < 3.0
            assert all(isinstance(one, BackendUnavailable) for one in replies)
            proxy.flow()
            replies = await at_once(store, me, 1)
            assert isinstance(replies[0], Committed | BackendUnavailable)

    on_loop(test)


def test_a_loop_that_is_held_up_loses_no_reply(
    redis_server: RedisServer, fresh_namespace: str
) -> None:
    async def test() -> None:
        async with opened(redis_server.port, fresh_namespace, timeout=0.2) as store:
            me = await store.open_session(TTL, "me")
            tasks = [asyncio.create_task(store.commit("vm", ABSENT, b"x", me, ()))]
            for _ in range(3):
                await asyncio.sleep(0)  # it has been sent
            threading.Event().wait(0.5)
            assert isinstance(await tasks[0], Committed)

    on_loop(test)


def test_a_connection_with_old_credentials_is_left_when_all_is_answered(
    redis_server: RedisServer, fresh_namespace: str
) -> None:
    """redis-py marks it so; a pool would log in anew when it gets it back."""

    async def test() -> None:
        async with (
            opened(redis_server.port, fresh_namespace) as store,
            asking(redis_server) as admin,
        ):
            me = await store.open_session(TTL, "me")
            before = {one["id"] for one in await admin.client_list()}
            tasks = [asyncio.create_task(at_once(store, me, MANY)) for _ in range(2)]
            await asyncio.sleep(0)
            (server,) = await source_of(store).place.servers()
            for one in server.client.connection_pool._in_use_connections:
                one.set_re_auth_token(object())
            tasks.append(asyncio.create_task(at_once(store, me, MANY)))
            for task in tasks:
                assert not any(isinstance(one, Exception) for one in await task)
            after = {one["id"] for one in await admin.client_list()}
            assert (len(before - after), len(after - before)) == (1, 1)

    on_loop(test)


@pytest.mark.parametrize("kind", ["url", "sentinel", "cluster"])
def test_close_leaves_no_connection(
    kind: str, request: pytest.FixtureRequest, fresh_namespace: str
) -> None:
    async def test() -> None:
        before = sockets()
        for _ in range(3):
            store = await connected_async(settings_of(kind, request), fresh_namespace)
            me = await store.open_session(TTL, "me")
            await at_once(store, me, MANY)
            assert await store.keep_alive(me)
            version = await committed(store, "vm", me, me)
            assert list(await store.receive(me, 5.0)) == [Woken("vm", version, b"x")]
            assert sockets() > before
            await store.close()
            for _ in range(5):
                await asyncio.sleep(0)
            assert sockets() == before
            assert len(asyncio.all_tasks()) == 1

    settings_of(kind, request)  # starts it
    on_loop(test)


def settings_of(kind: str, request: pytest.FixtureRequest) -> RedisSettings:
    if kind == "url":
        return RedisSettings(url=request.getfixturevalue("redis_server").url)
    if kind == "sentinel":
        there: RedisSentinel = request.getfixturevalue("redis_sentinel")
        hosts = tuple(f"{host}:{port}" for host, port in there.sentinels)
        return RedisSettings(sentinel=SentinelSettings(hosts=hosts, name=there.name))
    nodes: RedisCluster = request.getfixturevalue("redis_cluster")
    hosts = tuple(f"{host}:{port}" for host, port in nodes.startup)
    return RedisSettings(cluster=ClusterSettings(hosts=hosts))


def sockets() -> int:
    """How many this process has."""
    gc.collect()  # those of other tests that nobody closed
    found = 0
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(file.readlink()).startswith("socket:")
    return found


# -- receiving ------------------------------------------------------------------------------------


def test_one_who_never_receives_is_cut_off_and_told_so(
    redis_server: RedisServer, fresh_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST", 10_000)

    async def test() -> None:
        async with opened(redis_server.port, fresh_namespace) as store:
            me = await store.open_session(TTL, "me")
            for number in range(MANY):
                await store.commit(f"vm-{number}", ABSENT, b"x" * 100, me, (me,))
            events: list[Any] = []
            while Missed() not in events:
                told = await result(store.receive(me, 5.0))
                if not isinstance(told, BackendUnavailable):
                    events += told
            assert len(events) < MANY / 2
            version = await committed(store, "vm", me, me)
            assert list(await store.receive(me, 5.0)) == [Woken("vm", version, b"x")]

    on_loop(test)


def test_a_cluster_that_hangs_is_given_up_by_all_at_once(
    redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    async def test() -> None:
        hosts = tuple(f"{host}:{port}" for host, port in redis_cluster.startup)
        settings = RedisSettings(cluster=ClusterSettings(hosts=hosts), timeout=0.3)
        store = await connected_async(settings, fresh_namespace)
        me = await store.open_session(60.0, "me")
        await at_once(store, me, MANY)
        for node in redis_cluster.nodes:
            node.pause()
        try:
            for _ in range(2):  # the second time, the map of slots is in doubt
                begun = clock.monotonic()
                replies = await at_once(store, me, MANY)
                assert clock.monotonic() - begun < 10.0
                assert all(isinstance(one, BackendUnavailable) for one in replies)
        finally:
            for node in redis_cluster.nodes:
                node.resume()
        await store.close()

    on_loop(test)


def test_replies_stay_in_step_when_a_script_was_forgotten(
    redis_server: RedisServer, fresh_namespace: str
) -> None:
    async def test() -> None:
        async with opened(redis_server.port, fresh_namespace) as store, asking(redis_server) as it:
            me = await store.open_session(TTL, "me")
            await it.script_flush()
            replies = await at_once(store, me, MANY)
            assert all(isinstance(reply, Committed) for reply in replies)
            found = [await store.read(f"vm-{n}") for n in range(MANY)]
            assert [one.version for one in found] == [reply.version for reply in replies]

    on_loop(test)
