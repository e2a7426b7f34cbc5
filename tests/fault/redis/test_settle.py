"""No commit arrives late: what was sent before its session was settled is applied, or never is.

A commit whose reply never came is held back on its way, and delivered much later, when its VM is
idle again, so that "absent" is expected and found.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from distjob.backend.world import now
from distjob.store import ABSENT, Committed, Gone, Settled, Store, Versioned
from distjob_redis import RedisSettings
from distjob_redis.layout import COMMIT, SETTLE
from on_redis import TTL, Connect, connected, connected_async, failed, source_of
from proxy import Proxy
from servers import RedisServer, wait_for

if TYPE_CHECKING:
    import redis

TIMEOUT = 0.3
NOTHING = Versioned(version=ABSENT, value=None)


def number(admin: redis.Redis, namespace: str, session: str) -> int:
    """What Redis itself holds."""
    held: Any = admin.get(f"distjob:{{{namespace}}}:session:{session}")
    return int(held.partition(b":")[0])


def scripts(admin: redis.Redis) -> int:
    """How many were carried out, also such that compared in vain."""
    stats: Any = admin.info("commandstats")
    return sum(int(stats[name]["calls"]) for name in stats if name.startswith("cmdstat_eval"))


@pytest.fixture
def store(connect: Connect, proxy: Proxy) -> Store:
    return connect(f"redis://{proxy.address}/0", timeout=TIMEOUT)


def hold_back(store: Store, proxy: Proxy, me: str) -> None:
    """Send a commit that is given up, and is on its way."""
    proxy.hold_next_request(holding=COMMIT.digest.encode())
    assert failed(lambda: store.commit("vm", ABSENT, b"late", me, ())).unanswered
    assert proxy.holding.is_set()


def let_arrive(proxy: Proxy, admin: redis.Redis) -> None:
    """Deliver it; return when the server has answered it."""
    before = scripts(admin)
    proxy.release()
    wait_for(lambda: scripts(admin) > before, "the late commit to be answered")


def test_without_a_settling_a_commit_arrives_late(
    store: Store, proxy: Proxy, admin: redis.Redis
) -> None:
    """Else nothing below would show anything."""
    me = store.open_session(60.0, "me")
    hold_back(store, proxy, me)
    assert store.read("vm") == NOTHING
    let_arrive(proxy, admin)
    assert store.read("vm").value == b"late"


def test_it_never_does(connect: Connect, redis_server: RedisServer, admin: redis.Redis) -> None:
    """The same, twenty times, each with another VM's life in between."""
    direct = connect()
    you = direct.open_session(60.0, "you")
    for turn in range(20):
        with Proxy((redis_server.host, redis_server.port)) as proxy:
            store = connect(f"redis://{proxy.address}/0", timeout=TIMEOUT)
            me = store.open_session(60.0, "me")
            hold_back(store, proxy, me)
            store.settle(me)
            between = direct.commit("vm", ABSENT, b"%d" % turn, you, ())
            assert isinstance(between, Committed)
            assert isinstance(direct.commit("vm", between.version, None, you, ()), Committed)
            let_arrive(proxy, admin)
            assert direct.read("vm") == NOTHING
            store.close()


def test_a_settling_whose_reply_was_lost(
    store: Store, proxy: Proxy, admin: redis.Redis, fresh_namespace: str
) -> None:
    """Its number is learnt by the next commit, which is sent again; twice is the same as once."""
    me = store.open_session(60.0, "me")
    for turn in range(1, 6):
        proxy.drop_next_reply(to=SETTLE.digest.encode())
        assert failed(lambda: store.settle(me)).unanswered
        assert number(admin, fresh_namespace, me) == turn + 1
        if turn % 2:
            store.settle(me)
            assert number(admin, fresh_namespace, me) == turn + 1
        else:
            assert store.commit(f"vm-{turn}", ABSENT, b"x", me, ()) == Settled()
        assert isinstance(store.commit(f"vm-{turn}", ABSENT, b"x", me, ()), Committed)


def test_a_session_that_was_settled_is_renewed_and_ends(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    """It keeps its TTL, and what people read."""
    store = connect()
    me = store.open_session(TTL, "ctl-a: \N{SNOWMAN}")
    key = f"distjob:{{{fresh_namespace}}}:session:{me}"
    for _ in range(3):
        store.settle(me)
    assert number(admin, fresh_namespace, me) == 4
    assert 0 < int(admin.pttl(key)) <= 1000 * TTL  # type: ignore[arg-type]
    held: Any = admin.get(key)
    assert held.decode().endswith(":ctl-a: \N{SNOWMAN}")
    assert store.keep_alive(me)
    store.close_session(me)
    assert not admin.exists(key)


def test_who_does_not_know_of_a_settling_learns_it_from_the_answer(connect: Connect) -> None:
    """Another store that commits for the session; an ended author is told before that."""
    store, other = connect(), connect()
    me = store.open_session(TTL, "me")
    store.settle(me)
    assert other.commit("vm", ABSENT, b"x", me, ("no such session",)) == Settled()
    assert other.commit("vm", ABSENT, b"x", me, ("no such session",)) == Gone(
        frozenset({"no such session"})
    )
    assert isinstance(other.commit("vm", ABSENT, b"x", me, ()), Committed)
    other.settle(me)  # which raises it once more
    assert store.commit("other", 77, b"x", me, ()) == Settled()  # before it is stale
    store.close_session(me)
    assert store.commit("vm", ABSENT, b"x", me, ()) == Gone(frozenset({me}))


def test_a_settling_that_a_fail_over_has_lost_is_made_good(
    connect: Connect, admin: redis.Redis, fresh_namespace: str
) -> None:
    """By the next commit: what was sent before the settling is refused after it."""
    store, other = connect(), connect()
    me = store.open_session(TTL, "me")
    key = f"distjob:{{{fresh_namespace}}}:session:{me}"
    before: Any = admin.get(key)
    store.settle(me)
    store.settle(me)
    admin.set(key, before, keepttl=True)
    assert isinstance(store.commit("vm", ABSENT, b"x", me, ()), Committed)
    assert number(admin, fresh_namespace, me) == 3
    assert other.commit("other", ABSENT, b"early", me, ()) == Settled()
    admin.set(key, before, keepttl=True)
    store.settle(me)
    assert number(admin, fresh_namespace, me) == 4
    assert 0 < int(admin.pttl(key)) <= 1000 * TTL  # type: ignore[arg-type]


def test_settlings_among_commits_on_asyncio(
    redis_server: RedisServer, fresh_namespace: str
) -> None:
    """Each commit is made, or said to be overtaken, and then made by sending it again."""

    async def steps() -> None:
        store: Any = await connected_async(RedisSettings(url=redis_server.url), fresh_namespace)
        overtaken = 0

        async def commits(vm: str) -> None:
            nonlocal overtaken
            version = ABSENT
            for turn in range(30):
                reply = await store.commit(vm, version, b"%d" % turn, me, ())
                while isinstance(reply, Settled):
                    overtaken += 1
                    reply = await store.commit(vm, version, b"%d" % turn, me, ())
                assert isinstance(reply, Committed)
                version = reply.version
            assert (await store.read(vm)).value == b"29"

        async def settles() -> None:
            for _ in range(10):
                await store.settle(me)

        me = await store.open_session(60.0, "me")
        await asyncio.gather(settles(), settles(), *(commits(f"vm-{n}") for n in range(20)))
        assert overtaken
        await store.close()

    asyncio.run(steps())


def test_what_a_late_commit_is_answered(redis_server: RedisServer, fresh_namespace: str) -> None:
    """Overtaken, before anything else but an ended author; and the number from now on."""
    store = connected(RedisSettings(url=redis_server.url), fresh_namespace)
    source = source_of(store)
    me = store.open_session(TTL, "me")
    early = source._layout.commit("vm", 77, b"x", (me, "no such session"))
    store.settle(me)
    assert now(source.place.run(COMMIT, *early)) == [-1, 2]
    store.close_session(me)
    assert now(source.place.run(COMMIT, *early)) == [0]
    store.close()
