"""The Redis store on a cluster whose nodes die, change places, hand over slots or lose data."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

import distjob
from distjob import Client, clock
from distjob.errors import BackendUnavailable, ConfigError, LeaseLost, OutcomeUnknown
from distjob.rules.jobs import Job
from distjob.store import ABSENT, Committed, Gone, Missed, Stale, Store, Woken
from distjob.testing.contract import committed, try_until
from distjob_redis import ClusterSettings, RedisSettings
from distjob_redis.client.cluster import Slot
from distjob_redis.settings import SHARDS
from on_redis import TTL, Connect, asking, in_step, opened_shard, source_of
from servers import RedisCluster, RedisServer, wait_for

PATIENCE = 30.0
VMS = [f"vm-{number}" for number in range(40)]


@pytest.fixture
def connect(redis_cluster: RedisCluster, fresh_namespace: str, world: str) -> Iterator[Connect]:
    """Opens a store of one shard."""
    hosts = tuple(f"{host}:{port}" for host, port in redis_cluster.startup)
    with contextlib.ExitStack() as closing:

        def connect(
            shard: int = 0, ttl: float = TTL, timeout: float = 1.0, **cluster: Any
        ) -> Store:
            section = ClusterSettings(hosts=hosts, **cluster)
            settings = RedisSettings(cluster=section, timeout=timeout)
            store = opened_shard(world, settings, fresh_namespace, shard, ttl)
            closing.callback(store.close)
            return store

        yield connect


def keys_of(cluster: RedisCluster, namespace: str, part: str = "") -> set[str]:
    found: set[str] = set()
    for node in cluster.primaries():
        with asking(node) as client:
            found |= {key.decode() for key in client.scan_iter(f"distjob:{{{namespace}*{part}*")}
    return found


def slot_of(store: Store) -> int:
    place = source_of(store).place
    assert isinstance(place, Slot)
    return place.slot


def on_different_nodes(connect: Connect, cluster: RedisCluster, **more: Any) -> tuple[int, int]:
    """The numbers of two shards."""
    owners: dict[RedisServer, int] = {}
    for shard in range(SHARDS):
        store = connect(shard, **more)
        owners.setdefault(cluster.owner(slot_of(store)), shard)
        store.close()
    first, second, *_ = owners.values()
    return first, second


class Counting:
    """Threads that count up in VMs of a shard, and know what they have counted."""

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
    slot = slot_of(store)
    old = redis_cluster.owner(slot)
    new = next(node for node in redis_cluster.primaries() if node is not old)
    move(redis_cluster, slot, old, new, between=lambda: threading.Event().wait(0.3))
    counting.goes_on()
    counting.end()
    assert redis_cluster.owner(slot) is new
    with asking(new) as client:
        assert client.exists(f"distjob:{{{fresh_namespace}:0}}:version")


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
    slot = slot_of(store)
    old = redis_cluster.owner(slot)
    new = next(node for node in redis_cluster.primaries() if node is not old)

    def half_way() -> None:
        """What asks for one key only finds it, here or there."""
        assert store.read(vm).version == version
        assert [vm for vm, _ in store.scan()] == [vm]
        assert store.keep_alive(me)
        assert other.keep_alive(you)

    move(redis_cluster, slot, old, new, between=half_way)
    assert list(store.receive(me, 5.0)) == [Missed()]
    version = try_until(lambda: committed(other, vm, b"two", you, me))
    assert list(store.receive(me, 5.0)) == [Woken(vm, version, b"two")]


def test_a_killed_primary_is_replaced(connect: Connect, redis_cluster: RedisCluster) -> None:
    store, other = connect(), connect()
    me = store.open_session(3 * TTL, "me")
    last = committed(store, "vm", b"x", me)
    assert list(store.receive(me, 0.0)) == []
    dying = redis_cluster.owner(slot_of(store))
    in_step(dying)
    dying.kill()
    assert Missed() in try_until(lambda: store.receive(me, 20.0))
    assert try_until(lambda: store.keep_alive(me))
    you = try_until(lambda: other.open_session(TTL, "you"))
    version = try_until(lambda: committed(other, "vm", b"y", you, me))
    assert version > last
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, b"y")]


def test_clients_go_on_through_a_fail_over(connect: Connect, redis_cluster: RedisCluster) -> None:
    """The whole client: what is begun is one's own, tokens rise, and nothing is left behind."""
    tokens: dict[str, list[int]] = {vm: [] for vm in VMS[:8]}
    holders = dict.fromkeys(tokens, 0)
    done = threading.Event()

    def work(number: int) -> None:
        with Client(connect(ttl=6.0), controller=f"c{number}", ttl=6.0) as jobs:
            while not done.is_set():
                for vm, seen in tokens.items():
                    # The old primary keeps its clients waiting, perhaps for longer than the TTL.
                    with contextlib.suppress(BackendUnavailable, OutcomeUnknown, LeaseLost):
                        lease = jobs.begin(vm, Job.MODIFY)
                        holders[vm] += 1
                        assert holders[vm] == 1
                        seen.append(lease.token)
                        holders[vm] -= 1
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


# -- shards are apart ------------------------------------------------------------------------------


def test_every_shard_works_alone(
    connect: Connect, redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    """All of one is in one slot; nothing of it is seen in another."""
    stores = [connect(shard) for shard in range(SHARDS)]
    assert len({slot_of(store) for store in stores}) == SHARDS
    sessions = [store.open_session(TTL, "me") for store in stores]
    for number, (store, me) in enumerate(zip(stores, sessions, strict=True)):
        version = committed(store, "vm", b"%d" % number, me, me)
        assert list(store.receive(me, 5.0)) == [Woken("vm", version, b"%d" % number)]
        store.settle(me)
        assert store.keep_alive(me)
    for number, store in enumerate(stores):
        assert [held.value for _, held in store.scan()] == [b"%d" % number]
        assert store.remaining(sessions) == {
            me: pytest.approx(TTL, abs=2.0) if me == sessions[number] else 0.0 for me in sessions
        }
        committed(store, "vm", None, sessions[number])
        store.close_session(sessions[number])
    left = keys_of(redis_cluster, fresh_namespace)
    tags = [f"{fresh_namespace}:{number}" for number in range(SHARDS)]
    assert left == {
        f"distjob:{{{fresh_namespace}}}:format",
        *(f"distjob:{{{tag}}}:version" for tag in tags),
    }


def test_a_shard_that_is_lost_takes_nothing_else_along(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    far, near = on_different_nodes(connect, redis_cluster)
    lost, alive = connect(far), connect(near)
    me, you = lost.open_session(60.0, "me"), alive.open_session(60.0, "me")
    held = committed(alive, "vm", b"x", you)
    dead = redis_cluster.owner(slot_of(lost))
    redis_cluster.replica_of(dead).kill()
    dead.kill()
    for _ in range(3):
        with pytest.raises(BackendUnavailable) as caught:
            lost.commit("vm", ABSENT, b"y", me, ())
        assert not caught.value.unanswered
        with pytest.raises(BackendUnavailable):
            lost.keep_alive(me)
        assert alive.keep_alive(you)
        version = committed(alive, "vm", b"x", you, you)
        assert version > held
        assert list(alive.receive(you, 5.0)) == [Woken("vm", version, b"x")]


def test_the_death_of_a_primary_costs_the_jobs_on_it_and_no_other(
    redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    """Three primaries without replicas, forty jobs of one controller."""
    for primary in (primaries := redis_cluster.primaries()):
        redis_cluster.replica_of(primary).kill()
    hosts = [node.address for node in primaries]
    settings = {
        "backend": "redis",
        "namespace": fresh_namespace,
        "session": {"ttl": 5.0},
        "redis": {"cluster": {"hosts": hosts}, "timeout": 1.0},
    }
    with distjob.connect(settings) as jobs:
        leases = {vm: jobs.begin(vm, Job.MODIFY) for vm in VMS}
        there = {node: vms_at(node, fresh_namespace) for node in primaries}
        assert set().union(*there.values()) == set(VMS)
        dying = max(there, key=lambda node: len(there[node]))
        lost = {vm: threading.Event() for vm in there[dying]}
        assert 0 < len(lost) < len(VMS)
        for vm, event in lost.items():
            leases[vm].on_lost(event.set)
        dying.kill()
        for vm, event in lost.items():
            assert event.wait(PATIENCE), f"{vm} was not told"
        for vm in leases.keys() - lost.keys():  # renewed meanwhile: the others' time has run out
            leases[vm].check()
            leases[vm].end()
            jobs.begin(vm, Job.MODIFY).end()
        assert all(leases[vm].lost for vm in lost)


def vms_at(node: RedisServer, namespace: str) -> set[str]:
    with asking(node) as client:
        keys = [key.decode() for key in client.scan_iter(f"distjob:{{{namespace}:*:vm:*")]
    return {key.rpartition(":")[2] for key in keys}


def test_a_shard_can_be_connected_to_while_another_is_down(
    connect: Connect, redis_cluster: RedisCluster, fresh_namespace: str
) -> None:
    """Unless it is there that the namespace's format is kept."""
    far, near = on_different_nodes(connect, redis_cluster)
    key = f"distjob:{{{fresh_namespace}}}:format".encode()
    kept = redis_cluster.owner(redis.crc.key_slot(key))
    stores = {shard: connect(shard) for shard in (far, near)}
    owners = {shard: redis_cluster.owner(slot_of(store)) for shard, store in stores.items()}
    down = next(shard for shard, owner in owners.items() if owner is not kept)
    up = near if down == far else far
    redis_cluster.replica_of(owners[down]).kill()
    owners[down].kill()
    store = try_until(lambda: connect(up))
    assert isinstance(
        store.commit("vm", ABSENT, b"x", store.open_session(TTL, "me"), ()), Committed
    )
    with pytest.raises(BackendUnavailable):
        connect(down)


# -- a part of the cluster is down ----------------------------------------------------------------


def test_a_subscription_that_is_cut_is_missed(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    store = connect()
    me = store.open_session(TTL, "me")
    assert list(store.receive(me, 0.0)) == []
    with asking(redis_cluster.owner(slot_of(store))) as client:
        assert client.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
    assert list(store.receive(me, 5.0)) == [Missed()]
    version = committed(store, "vm", b"x", me, me)
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, b"x")]


def test_a_node_that_hangs_is_given_up_in_time(
    connect: Connect, redis_cluster: RedisCluster
) -> None:
    far, near = on_different_nodes(connect, redis_cluster)
    store, other = connect(far, timeout=0.5), connect(near, timeout=0.5)
    me, you = store.open_session(60.0, "me"), other.open_session(60.0, "you")
    version = committed(store, "vm", b"x", me)
    hung = redis_cluster.owner(slot_of(store))
    hung.pause()
    begun = clock.monotonic()
    with pytest.raises(BackendUnavailable) as caught:
        store.commit("vm", version, b"y", me, ())
    assert caught.value.unanswered
    assert clock.monotonic() - begun < 2.0
    assert isinstance(other.commit("vm", ABSENT, b"z", you, ()), Committed)
    reply = try_until(lambda: store.commit("vm", version, b"z", me, ()))
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
        client.set(key, "2 shards=8 wake=PUBLISH")
    store, other = connect(), connect()
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    assert store.receive(me, 0.0) == []
    version = committed(other, "vm", b"x", you, me)
    assert list(store.receive(me, 5.0)) == [Woken("vm", version, b"x")]
