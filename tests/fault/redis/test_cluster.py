"""The Redis store on a cluster whose nodes die, change places, hand over slots or lose data."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis

from distjob import Client, clock
from distjob.errors import BackendUnavailable, ConfigError
from distjob.jobs import Job
from distjob.store import ABSENT, Committed, Gone, Missed, Stale, Store, Woken
from distjob.testing.contract import committed, try_until
from distjob.testing.onloop import OnLoop
from distjob_redis import ClusterSettings, RedisSettings, backend
from servers import RedisCluster, RedisServer, wait_for

TTL = 10.0
PATIENCE = 30.0
VMS = [f"vm-{number}" for number in range(40)]
Connect = Callable[..., Store]


def opened(world: str, settings: RedisSettings, namespace: str, ttl: float) -> Store:
    """A store that blocks; or one on asyncio, in a loop of its own."""
    if world == "asyncio":
        assert backend.connect_async is not None
        return OnLoop(partial(backend.connect_async, settings, namespace, ttl))
    return backend.connect(settings, namespace, ttl)


def verbs_of(store: Store) -> Any:
    """What it is made of."""
    return store.store if isinstance(store, OnLoop) else store.verbs


@pytest.fixture(params=["threads", "asyncio"])
def connect(
    redis_cluster: RedisCluster, fresh_namespace: str, request: pytest.FixtureRequest
) -> Iterator[Connect]:
    hosts = tuple(f"{host}:{port}" for host, port in redis_cluster.startup)
    with contextlib.ExitStack() as closing:

        def connect(ttl: float = TTL, timeout: float = 1.0, **cluster: Any) -> Store:
            section = ClusterSettings(hosts=hosts, **cluster)
            settings = RedisSettings(cluster=section, timeout=timeout)
            store = opened(request.param, settings, fresh_namespace, ttl)
            closing.callback(store.close)
            return store

        yield connect


@contextlib.contextmanager
def asking(node: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis(host=node.host, port=node.port, protocol=2) as client:
        yield client


def keys_of(cluster: RedisCluster, namespace: str, part: str = "") -> set[str]:
    found: set[str] = set()
    for node in cluster.primaries():
        with asking(node) as client:
            found |= {key.decode() for key in client.scan_iter(f"distjob:{{{namespace}*{part}*")}
    return found


def in_step(node: RedisServer) -> None:
    """Wait until the replica has all, so that a fail-over loses nothing."""

    def equal() -> bool:
        with asking(node) as client:
            facts: Any = client.info("replication")
        return bool(facts["slave0"]["offset"] == facts["master_repl_offset"])

    wait_for(equal, "a replica in step")


def left_of(cluster: RedisCluster, key: bytes) -> int:
    """Milliseconds that a key has yet."""
    with asking(cluster.owner(redis.crc.key_slot(key))) as client:
        return int(client.pttl(key))


def by_shard(store: Store) -> dict[int, str]:
    """A VM of each shard, by the shard's number."""
    return {verbs_of(store)._shard(vm).number: vm for vm in reversed(VMS)}


def slot_of(store: Store, vm: str) -> int:
    return int(redis.crc.key_slot(verbs_of(store)._shard(vm).prefix))


def kept_apart(store: Store, cluster: RedisCluster, session: str) -> tuple[str, str]:
    """A VM on the node of the session's home, and one on another node."""
    home = cluster.owner(redis.crc.key_slot(verbs_of(store)._sessions._home(session).prefix))
    near = next(vm for vm in VMS if cluster.owner(slot_of(store, vm)) is home)
    far = next(vm for vm in VMS if cluster.owner(slot_of(store, vm)) is not home)
    return near, far


class Counting:
    """Threads that count up in VMs of all shards, and know what they have counted."""

    def __init__(self, connect: Connect, threads: int = 4) -> None:
        self._stores = [connect() for _ in range(threads)]
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self.counted = 0
        self._lock = threading.Lock()
        self._running = [
            self._pool.submit(self._count, store, number)
            for number, store in enumerate(self._stores)
        ]

    def _count(self, store: Store, number: int) -> None:
        me = store.open_session(60.0, "counter")
        mine = VMS[number :: len(self._stores)]  # nobody else writes there: each commit is known
        versions, counts = dict.fromkeys(mine, ABSENT), dict.fromkeys(mine, 0)
        while not self._stop.is_set():
            for vm in mine:
                value = b"%d" % (counts[vm] + 1)
                try:
                    reply = store.commit(vm, versions[vm], value, me, ())
                except BackendUnavailable as error:
                    found, in_doubt = try_until(lambda: store.read(vm)), error.unanswered  # noqa: B023
                    applied = found.value == value
                    if applied > in_doubt or (not applied and found.version != versions[vm]):
                        msg = f"{error} was answered by {found} in the place of {versions[vm]}"
                        raise AssertionError(msg) from error
                    versions[vm] = found.version
                    counts[vm] += applied
                    continue
                assert isinstance(reply, Committed), reply
                assert reply.version > versions[vm]
                versions[vm] = reply.version
                counts[vm] += 1
            with self._lock:
                self.counted += len(mine)
        for vm in mine:
            held = try_until(lambda: store.read(vm))  # noqa: B023
            assert held.value == b"%d" % counts[vm], "a commit was lost, or made twice"

    def goes_on(self) -> None:
        """Return when it has counted all VMs anew."""
        before = self.counted
        wait_for(lambda: self.counted > before + 2 * len(VMS) or self._failed(), "more commits")

    def end(self) -> None:
        self._stop.set()
        for one in self._running:
            one.result(PATIENCE)
        self._pool.shutdown()

    def _failed(self) -> bool:
        return any(one.done() for one in self._running)


# -- nodes and slots that move ------------------------------------------------------------------


def test_no_commit_is_lost_or_made_twice_while_a_slot_moves(
    connect: Connect, redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    store = connect()
    counting = Counting(connect)
    counting.goes_on()
    slot = slot_of(store, VMS[0])
    old = redis_cluster.owner(slot)
    new = next(node for node in redis_cluster.primaries() if node is not old)
    move(redis_cluster, slot, old, new, between=lambda: threading.Event().wait(0.3))
    counting.goes_on()
    counting.end()
    assert redis_cluster.owner(slot) is new
    with asking(new) as client:
        assert client.exists(
            f"distjob:{{{fresh_namespace}:{verbs_of(store)._shard(VMS[0]).number}}}:version"
        )


def move(
    cluster: RedisCluster,
    slot: int,
    old: RedisServer,
    new: RedisServer,
    between: Callable[[], object] = lambda: None,
) -> None:
    """What redis-cli --cluster reshard does."""
    with asking(old) as source, asking(new) as target:
        ids: list[Any] = [one.execute_command("CLUSTER MYID") for one in (source, target)]
        target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        while keys := source.execute_command("CLUSTER GETKEYSINSLOT", slot, 3):
            source.execute_command("MIGRATE", new.host, new.port, "", 0, 5000, "KEYS", *keys)
            between()
            between = lambda: None  # noqa: E731
        for one in (target, source):
            one.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
    for node in cluster.primaries():
        with asking(node) as client:
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])


def test_no_commit_is_lost_or_made_twice_in_an_orderly_fail_over(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    counting = Counting(connect)
    counting.goes_on()
    redis_cluster.fail_over()
    counting.goes_on()
    counting.end()


def test_a_moved_slot_is_heard_at_its_new_node(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    vm = VMS[0]
    version = committed(other, vm, b"one", you, me)
    assert store.receive(me, 5.0) == [Woken(vm, version, b"one")]
    slot = slot_of(store, vm)
    old = redis_cluster.owner(slot)
    new = next(node for node in redis_cluster.primaries() if node is not old)

    def half_way() -> None:
        """What asks for one key only finds it, here or there."""
        assert store.read(vm).version == version
        assert store.keep_alive(me)
        assert other.keep_alive(you)

    move(redis_cluster, slot, old, new, between=half_way)
    assert list(store.receive(me, 5.0)) == [Missed()]
    version = try_until(lambda: committed(other, vm, b"two", you, me))
    assert list(store.receive(me, 5.0)) == [Woken(vm, version, b"two")]


def test_a_killed_primary_is_replaced(connect: Connect, redis_cluster: RedisCluster) -> None:
    store, other = connect(), connect()
    me = store.open_session(3 * TTL, "me")
    last = {vm: committed(store, vm, b"x", me) for vm in by_shard(store).values()}
    assert list(store.receive(me, 0.0)) == []
    dying = redis_cluster.owner(slot_of(store, VMS[0]))
    in_step(dying)
    dying.kill()
    assert Missed() in store.receive(me, 20.0)
    assert try_until(lambda: store.keep_alive(me))
    you = try_until(lambda: other.open_session(TTL, "you"))
    for vm, version in last.items():
        assert try_until(lambda: committed(other, vm, b"y", you, me)) > version  # noqa: B023
    for vm in last:  # what was sent before the new primary was listened to was missed
        woken = list[object]()

        def is_woken(vm: str = vm, woken: list[object] = woken) -> bool:
            version = committed(other, vm, b"z", you, me)
            woken.extend(store.receive(me, 1.0))
            return Woken(vm, version, b"z") in woken

        wait_for(is_woken, f"a wake-up for {vm}")


def test_clients_go_on_through_a_fail_over(connect: Connect, redis_cluster: RedisCluster) -> None:
    """The whole client: what is begun is one's own, tokens rise, and nothing is left behind."""
    tokens: dict[str, list[int]] = {vm: [] for vm in VMS[:8]}
    holders = dict.fromkeys(tokens, 0)
    done = threading.Event()

    def work(number: int) -> None:
        with Client(connect(ttl=6.0), controller=f"c{number}", ttl=6.0) as jobs:
            while not done.is_set():
                for vm, seen in tokens.items():
                    with contextlib.suppress(BackendUnavailable):
                        lease = jobs.begin(vm, Job.MODIFY)
                        holders[vm] += 1
                        assert holders[vm] == 1
                        seen.append(lease.token)
                        holders[vm] -= 1
                        with contextlib.suppress(BackendUnavailable):
                            lease.end()

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, number) for number in range(2)]
        wait_for(lambda: all(len(seen) > 5 for seen in tokens.values()), "jobs")
        redis_cluster.fail_over()
        before = {vm: len(seen) for vm, seen in tokens.items()}
        wait_for(
            lambda: all(len(seen) > before[vm] + 5 for vm, seen in tokens.items()), "more jobs"
        )
        done.set()
        for one in working:
            one.result(PATIENCE)
    for seen in tokens.values():
        assert seen == sorted(set(seen))
    assert list(connect().scan()) == []


# -- sessions over several shards -----------------------------------------------------------------


def test_a_session_has_a_key_in_the_shards_it_commits_in_and_leaves_none(
    connect: Connect, redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    assert len(keys_of(redis_cluster, fresh_namespace, me)) == 1
    for vm in by_shard(store).values():
        version = committed(store, vm, b"x", me, me)
        store.commit(vm, version, None, me, ())
    assert len(keys_of(redis_cluster, fresh_namespace, me)) == 8
    assert store.keep_alive(me)
    store.close_session(me)
    left = keys_of(redis_cluster, fresh_namespace)
    assert {key.rpartition(":")[2] for key in left} == {"version", "format"}
    assert store.commit(VMS[0], ABSENT, b"x", me, ()) == Gone(frozenset({me}))


def test_a_session_that_ends_in_one_shard_ends_in_all(
    connect: Connect, redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    store, other = connect(), connect()
    me = store.open_session(TTL, "me")
    vms = by_shard(store)
    for vm in vms.values():
        committed(store, vm, b"x", me)
    lost = next(n for n in vms if n != verbs_of(store)._sessions._home(me).number)
    key = verbs_of(store)._shards[lost].session(me)
    with asking(redis_cluster.owner(redis.crc.key_slot(key))) as client:
        client.delete(key)  # as a fail-over may
    assert not store.keep_alive(me)
    assert keys_of(redis_cluster, fresh_namespace, me) == set()
    assert other.remaining([me]) == {me: 0.0}
    for vm in vms.values():
        assert store.commit(vm, ABSENT, b"y", me, ()) == Gone(frozenset({me}))


def test_an_author_whose_shard_lost_its_data_is_gone(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    store, other = connect(), connect()
    me = store.open_session(TTL, "me")
    _, far = kept_apart(store, redis_cluster, me)
    committed(store, far, b"x", me)
    with asking(redis_cluster.owner(slot_of(store, far))) as client:
        client.flushall()
    assert store.commit(far, ABSENT, b"y", me, ()) == Gone(frozenset({me}))
    assert not store.keep_alive(me)
    assert other.remaining([me]) == {me: 0.0}


def test_whom_a_shard_has_never_seen_can_be_woken_there(connect: Connect) -> None:
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    assert store.receive(me, 0.0) == []
    for vm in by_shard(store).values():
        version = committed(other, vm, b"x", you, me)
        assert store.receive(me, 5.0) == [Woken(vm, version, b"x")]
    store.close_session(me)
    reply = other.commit(VMS[0], other.read(VMS[0]).version, b"y", you, (me,))
    assert reply == Gone(frozenset({me}))


def test_a_shard_entered_during_a_renewal_is_renewed_with_it(
    connect: Connect, redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its key would end before the deadline that the renewal has moved."""
    store = connect()
    me = store.open_session(3.0, "me")
    _, far = kept_apart(store, redis_cluster, me)
    shard = verbs_of(store)._shard(far)
    there = shard.place

    class Meanwhile:
        """The shard's place, where a renewal overtakes the answer of the first SET."""

        renewed = False

        async def ask(self, *command: Any, change: bool = False) -> Any:
            reply = await there.ask(*command, change=change)
            if command[0] == "SET" and not self.renewed:
                self.renewed = True
                assert await verbs_of(store).keep_alive(me)
            return reply

        def __getattr__(self, name: str) -> Any:
            return getattr(there, name)

    monkeypatch.setattr(shard, "place", Meanwhile())
    threading.Event().wait(1.0)
    assert isinstance(store.commit(far, ABSENT, b"x", me, ()), Committed)
    assert left_of(redis_cluster, shard.session(me)) > 2500


def test_a_session_that_may_have_ended_enters_no_shard(
    connect: Connect, redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    store, other = connect(), connect()
    me = store.open_session(0.5, "me")
    _, far = kept_apart(store, redis_cluster, me)
    assert other.keep_alive(me)  # its home lives on, but `store` does not know
    threading.Event().wait(0.55)
    assert other.remaining([me])[me] > 0
    assert store.commit(far, ABSENT, b"x", me, ()) == Gone(frozenset({me}))
    assert keys_of(redis_cluster, fresh_namespace, me) == set()
    assert not store.keep_alive(me)


# -- a part of the cluster is down ----------------------------------------------------------------


def test_the_other_shards_go_on_while_one_is_down(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    store, other = connect(), connect()
    me, you = store.open_session(60.0, "me"), other.open_session(60.0, "you")
    used = store.open_session(60.0, "used")
    homes = [verbs_of(store)._sessions._home(one).prefix for one in (me, you)]
    nodes = {redis_cluster.owner(redis.crc.key_slot(prefix)) for prefix in homes}
    dead = next(node for node in redis_cluster.primaries() if node not in nodes)
    down = next(vm for vm in VMS if redis_cluster.owner(slot_of(store, vm)) is dead)
    up = next(vm for vm in VMS if redis_cluster.owner(slot_of(store, vm)) in nodes)
    committed(store, down, b"x", used)
    assert store.receive(me, 0.0) == []
    redis_cluster.replica_of(dead).kill()
    dead.kill()

    events = list(store.receive(me, 5.0))
    assert events == [Missed()]  # something may have been lost there
    version = committed(other, up, b"x", you, me)
    woken: list[object] = []
    wait_for(lambda: bool(woken.extend(store.receive(me, 1.0)) or woken), "a wake-up", 10.0)
    assert woken == [Woken(up, version, b"x")]
    with pytest.raises(BackendUnavailable) as caught:
        store.commit(down, ABSENT, b"y", me, ())
    assert not caught.value.unanswered
    assert store.keep_alive(me)
    assert isinstance(store.commit(up, version, None, me, ()), Committed)
    with pytest.raises(BackendUnavailable):
        store.keep_alive(used)


def test_subscriptions_that_are_cut_are_missed(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    assert list(store.receive(me, 0.0)) == []
    for node in redis_cluster.primaries():
        with asking(node) as client:
            assert client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        events: list[object] = []
        with contextlib.suppress(BackendUnavailable):
            events += store.receive(me, 5.0)
        events += store.receive(me, 0.0)
        assert Missed() in events
        vm = next(vm for vm in VMS if redis_cluster.owner(slot_of(store, vm)) is node)
        version = committed(store, vm, b"x", me, me)
        woken: list[object] = []
        while not any(isinstance(event, Woken) for event in woken):
            woken += store.receive(me, 5.0)
        assert Woken(vm, version, b"x") in woken


def test_a_node_that_hangs_is_given_up_in_time(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    store = connect(timeout=0.5)
    me = store.open_session(60.0, "me")
    near, far = kept_apart(store, redis_cluster, me)
    version = committed(store, far, b"x", me)
    hung = redis_cluster.owner(slot_of(store, far))
    hung.pause()
    begun = clock.monotonic()
    with pytest.raises(BackendUnavailable) as caught:
        store.commit(far, version, b"y", me, ())
    assert caught.value.unanswered
    assert clock.monotonic() - begun < 2.0
    assert isinstance(store.commit(near, ABSENT, b"z", me, ()), Committed)
    reply = try_until(lambda: store.commit(far, version, b"z", me, ()))
    assert isinstance(reply, Committed | Stale | Gone)


# -- what controllers must agree on ---------------------------------------------------------------


def test_another_number_of_shards_is_refused(connect: Connect) -> None:
    connect(shards=4)
    with pytest.raises(ConfigError, match=r"has 4 shards, redis.cluster.shards is 8"):
        connect()
    connect(shards=4)


def test_one_server_and_a_cluster_do_not_share_a_format(
    connect: Connect, redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    key = f"distjob:{{{fresh_namespace}}}:format"
    with asking(redis_cluster.owner(redis.crc.key_slot(key.encode()))) as client:
        client.set(key, "1")
    with pytest.raises(ConfigError, match=r"format 1, .*shards=8"):
        connect()


def test_a_namespace_of_an_older_cluster_wakes_as_it_did(
    connect: Connect, redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    """Its first controller came before Redis 7: PUBLISH, which reaches every node."""
    key = f"distjob:{{{fresh_namespace}}}:format"
    with asking(redis_cluster.owner(redis.crc.key_slot(key.encode()))) as client:
        client.set(key, "1 shards=8 wake=PUBLISH")
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    assert store.receive(me, 0.0) == []
    for vm in by_shard(store).values():
        version = committed(other, vm, b"x", you, me)
        assert store.receive(me, 5.0) == [Woken(vm, version, b"x")]
