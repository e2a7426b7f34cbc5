"""Many who play or wait for one VM, and many VMs held by one: what is asked, what is left."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import redis

from distjob import Job, JobTimeout, clock
from distjob.config import load, open_backend
from distjob.testing.bench.crowd import play
from stores import settings_of

CROWD, TEAM = 60, 4


@pytest.fixture
def calls(redis_server):
    """How often the server was asked what, since the last look."""
    with redis.Redis.from_url(redis_server.url) as server:
        before = {}

        def look():
            now = {k[8:]: v["calls"] for k, v in server.info("commandstats").items()}
            rise = {name: count - before.get(name, 0) for name, count in now.items()}
            before.update(now)
            return rise

        look()
        yield look


@pytest.fixture
def team(clients):
    return [clients(f"ctl-{number}", wait=60, ttl=30) for number in range(TEAM)]


@pytest.fixture
def crowd():
    with ThreadPoolExecutor(CROWD) as pool:
        yield pool


def gather(crowd, team, lead, **wait):
    """A crowd that waits; each one ends its job as soon as it has it.

    Returns when all are in line, or the first has given up already.
    """
    order = []

    def work(client):
        with client.begin("vm", Job.MODIFY, **wait) as lease:
            order.append(lease.token)

    futures = [crowd.submit(work, team[number % TEAM]) for number in range(CROWD)]
    deadline, pause = clock.monotonic() + 60, threading.Event()
    while len(lead.status("vm").waiters) < CROWD and not any(map(Future.done, futures)):
        assert clock.monotonic() < deadline
        pause.wait(0.05)
    return futures, order


@pytest.mark.parametrize("open_store", ["redis"], indirect=True)
def test_an_end_wakes_only_those_it_concerns(clients, team, crowd, calls):
    lead = clients("lead", ttl=30)
    lease = lead.begin("vm", Job.MODIFY)
    futures, order = gather(crowd, team, lead)
    calls()
    lease.end()
    for future in futures:
        future.result(60)
    asked = calls()
    assert order == sorted(set(order))
    assert len(order) == CROWD
    # Each end wakes the one it lets in, and at most the next, if that watches others now.
    assert CROWD / 2 < asked["publish"] <= 2 * CROWD + TEAM
    # One commit to end each job, in which the script gets three keys, and those of whom it wakes;
    # a few looks besides.
    assert asked["evalsha"] <= CROWD * 1.5
    assert asked["get"] - 3 * asked["evalsha"] - asked["publish"] <= CROWD / 4
    assert lead.list() == []


@pytest.mark.parametrize(
    "open_store", ["memory", "sqlite", "redis", "etcd", "zookeeper"], indirect=True
)
def test_a_crowd_that_gives_up_leaves_nothing(clients, team, crowd):
    lead = clients("lead", ttl=30)
    with lead.begin("vm", Job.MODIFY):
        for wait in (4, 16, 64):  # on a busy machine it takes time to get in line
            futures, order = gather(crowd, team, lead, wait=wait)
            all_in_line = not any(map(Future.done, futures))
            for future in futures:
                with pytest.raises(JobTimeout):
                    future.result(wait + 60)
            assert lead.status("vm").waiters == ()
            assert order == []
            if all_in_line:
                break
        assert all_in_line
    assert lead.list() == []
    assert not any(client._me.waiters or client._me.views for client in team)


@pytest.mark.parametrize("kind", ["sqlite", "redis", "etcd", "zookeeper"])
def test_none_of_ten_processes_starves(kind, request, tmp_path, fresh_namespace):
    """When the first of them has had all its turns, each other has had half of its own."""
    settings = load(settings_of(kind, request, tmp_path, fresh_namespace))
    turns = play(settings, players=10, rounds=30)
    assert Counter(turn.player for turn in turns) == dict.fromkeys(range(10), 30)
    had = Counter()
    for turn in turns:
        had[turn.player] += 1
        if had[turn.player] == 30:
            break
    assert min(had[player] for player in range(10)) >= 15, had
    store = open_backend(settings)
    assert list(store.scan()) == []
    store.close()


@pytest.mark.parametrize("open_store", ["redis"], indirect=True)
def test_a_thousand_held_jobs_cost_what_one_costs(clients, calls):
    client = clients("ctl", ttl=1.5)
    threads = threading.active_count()
    leases = [client.begin(f"vm-{number}", Job.MODIFY) for number in range(1000)]
    calls()
    threading.Event().wait(1.5)
    asked = calls()
    assert sum(count for name, count in asked.items() if name not in ("info", "ping", "time")) <= 5
    assert threading.active_count() == threads
    assert not any(lease.lost for lease in leases)
    client.close()
    calls()
