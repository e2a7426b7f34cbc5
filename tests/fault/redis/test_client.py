"""The client on a real Redis that is cut off, loses replies, restarts, is paused and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

import distjob_redis
from distjob import (
    BackendUnavailable,
    Client,
    Job,
    JobTimeout,
    LeaseLost,
    OutcomeUnknown,
    StaleToken,
    clock,
    connect,
)
from distjob.fencing import Guard
from distjob.rules.fence import Fence
from distjob.rules.jobs import Slot
from ends import started
from on_redis import connected
from proxy import Proxy

TTL = 1.5
HELD = 4.0
"""The TTL of another process, which may be slow to start."""
PATIENCE = 20.0


@pytest.fixture
def proxy(redis_server):
    with Proxy(("127.0.0.1", redis_server.port)) as proxy:
        yield proxy


@pytest.fixture
def make(fresh_namespace, proxy):
    made = []  # closed before the proxy is

    def make(port, name="ctl", **settings):
        there = distjob_redis.RedisSettings(url=f"redis://127.0.0.1:{port}/0", timeout=0.5)
        store = connected(there, fresh_namespace, TTL)
        made.append(Client(store, controller=name, **{"ttl": TTL, **settings}))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def keys(redis_server, fresh_namespace):
    """What the store holds of VMs and sessions."""
    with redis.Redis.from_url(redis_server.url) as server:
        yield lambda: [
            key
            for kind in ("vm", "session")
            for key in server.scan_iter(f"distjob:{{{fresh_namespace}}}:{kind}:*", count=1000)
        ]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def until(condition, seconds=PATIENCE):
    deadline, pause = clock.monotonic() + seconds, threading.Event()
    while not condition():
        assert clock.monotonic() < deadline, "it did not come about"
        pause.wait(0.01)


@pytest.mark.parametrize("what", ["drop_next_reply", "drop_next_request"])
@pytest.mark.parametrize("begun", [False, True], ids=["begin", "end"])
def test_a_lost_message_changes_nothing_that_the_caller_sees(
    make, proxy, redis_server, what, begun
):
    a, watch = make(proxy.port), make(redis_server.port, "watch")
    tokens = []
    for _ in range(3):
        if not begun:
            getattr(proxy, what)(b"EVALSHA")
        lease = a.begin("vm", Job.MODIFY, wait=5)
        tokens.append(lease.token)
        assert [holder.token for holder in watch.status("vm").holders] == [lease.token]
        if begun:
            getattr(proxy, what)(b"EVALSHA")
        lease.end()
        assert proxy.dropped.is_set()
        proxy.dropped.clear()
        assert watch.status("vm").idle
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("what", ["drop_next_reply", "drop_next_request"])
def test_a_lost_message_of_one_who_waits(make, proxy, redis_server, pool, what):
    a, b = make(redis_server.port, "a"), make(proxy.port, "b")
    lease = a.begin("vm", Job.MODIFY)
    getattr(proxy, what)(b"EVALSHA")
    call = pool.submit(b.begin, "vm", Job.MODIFY)
    until(lambda: len(a.status("vm").waiters) == 1)
    assert proxy.dropped.is_set()
    lease.end()
    call.result(PATIENCE).end()
    assert a.list() == []


def test_a_wake_up_that_is_lost_is_made_up_for(make, proxy, redis_server, pool):
    a, b = make(redis_server.port, "a"), make(proxy.port, "b")
    lease = a.begin("vm", Job.MODIFY)
    call = pool.submit(b.begin, "vm", Job.MODIFY)
    until(lambda: len(a.status("vm").waiters) == 1)
    proxy.cut()
    started = clock.monotonic()
    lease.end()
    call.result(PATIENCE).end()
    assert clock.monotonic() - started < TTL
    assert a.list() == []


def test_no_store_at_connect():
    with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1\b") as refused:
        connect({"backend": "redis", "redis": {"url": "redis://:sesame@127.0.0.1:1/0"}})
    assert "sesame" not in repr(refused.value)


def test_a_store_that_drops_out_while_one_waits_and_comes_back(make, proxy, redis_server, pool):
    a, b = make(redis_server.port, "a"), make(proxy.port, "b")
    lease = a.begin("vm", Job.MODIFY)
    call = pool.submit(b.begin, "vm", Job.MODIFY, wait=PATIENCE)
    until(lambda: len(a.status("vm").waiters) == 1)
    proxy.refuse()
    until(lambda: not a.status("vm").waiters[0].alive)  # longer than b's session lived
    proxy.accept()
    until(lambda: len({waiter.ticket for waiter in a.status("vm").waiters if waiter.alive}) == 1)
    lease.end()
    with call.result(PATIENCE) as won:
        assert won.token > lease.token
    assert a.list() == []


def test_a_store_that_stays_away_is_told_at_the_deadline(make, proxy, redis_server, keys):
    a, b = make(redis_server.port, "a"), make(proxy.port, "b")
    with a.begin("vm", Job.MODIFY):
        timer = threading.Timer(0.3, proxy.refuse)
        timer.start()
        started = clock.monotonic()
        with pytest.raises((OutcomeUnknown, BackendUnavailable), match=r"'vm'|session"):
            b.begin("vm", Job.MODIFY, wait=1.0)
        assert clock.monotonic() - started < 5
        proxy.accept()
        until(lambda: not [w for w in a.status("vm").waiters if w.alive])
    until(lambda: b.try_begin("vm", Job.MODIFY))


def test_a_holder_that_is_cut_off_learns_of_it_before_another_gets_the_job(
    make, proxy, redis_server
):
    a, b = make(proxy.port, "a"), make(redis_server.port, "b")
    lease, told = a.begin("vm", Job.MODIFY), threading.Event()
    when = []
    lease.on_lost(lambda: (when.append(clock.monotonic()), told.set()))
    proxy.stall()
    cut = clock.monotonic()
    with b.begin("vm", Job.MODIFY, wait=PATIENCE) as other:
        granted = clock.monotonic()
        assert lease.lost
        assert told.wait(PATIENCE)
        assert when[0] < granted
        assert granted - cut < TTL + 1
        assert other.token > lease.token
        with pytest.raises(LeaseLost, match=r"'vm'.*modify.*token"):
            lease.end()
        proxy.flow()
        other.check()
    until(lambda: a.try_begin("vm", Job.MODIFY))  # with a new session


def test_an_end_that_gets_no_answer_is_made_good_in_the_background(make, proxy, redis_server):
    a, b = make(proxy.port, "a", ttl=6.0), make(redis_server.port, "b")
    lease = a.begin("vm", Job.MODIFY)
    proxy.refuse()
    with pytest.raises(OutcomeUnknown, match=r"'vm'.*ended as soon as the store answers"):
        lease.end()
    assert b.try_begin("vm", Job.MODIFY) is None
    proxy.accept()
    started = clock.monotonic()
    b.begin("vm", Job.MODIFY, wait=PATIENCE).end()
    assert clock.monotonic() - started < 5
    assert not a.begin("vm", Job.MODIFY).lost  # the same session went on


def test_a_server_that_restarts_with_its_data(make, redis_server, pool):
    a, b = make(redis_server.port, "a", ttl=5.0), make(redis_server.port, "b", ttl=5.0)
    lease = a.begin("vm", Job.MODIFY)
    call = pool.submit(b.begin, "vm", Job.MODIFY)
    until(lambda: len(a.status("vm").waiters) == 1)
    redis_server.kill()
    redis_server.start()
    lease.end()
    with call.result(PATIENCE) as won:
        assert won.token > lease.token
    until(lambda: a.list() == [])


def test_a_server_that_lost_everything(make, redis_server, fresh_namespace):
    a, b = make(redis_server.port, "a"), make(redis_server.port, "b")
    lease = a.begin("vm", Job.MODIFY)
    with redis.Redis.from_url(redis_server.url) as server:
        for key in server.scan_iter(f"distjob:{{{fresh_namespace}}}*"):
            server.delete(key)
    with b.begin("vm", Job.MODIFY, wait=PATIENCE) as other:
        assert other.token > lease.token
        until(lambda: lease.lost)


def test_a_paused_server_is_waited_for(make, redis_server):
    a = make(redis_server.port, ttl=10.0)
    redis_server.pause()
    timer = threading.Timer(1.0, redis_server.resume)
    timer.start()
    try:
        with a.begin("vm", Job.MODIFY, wait=PATIENCE) as lease:
            assert [holder.token for holder in a.status("vm").holders] == [lease.token]
    finally:
        timer.join()
    assert a.list() == []


HOLD = """
import sys
from distjob import connect
from distjob.fencing import Guard
client = connect({"backend": "redis", "namespace": sys.argv[2],
                  "redis": {"url": sys.argv[1], "timeout": 1.0},
                  "session": {"ttl": float(sys.argv[4])}})
guard = Guard(sys.argv[3])
lease = client.begin("vm", "modify")
guard.admit("vm", lease.fence)
print(lease.token, flush=True)
sys.stdin.readline()
print(lease.lost, flush=True)
try:
    guard.admit("vm", lease.fence)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


@pytest.fixture
def holder(redis_server, fresh_namespace, tmp_path):
    """A process that holds the VM's job."""
    guard = str(tmp_path / "guard.db")
    with started(
        [sys.executable, "-c", HOLD, redis_server.url, fresh_namespace, guard, str(HELD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def test_a_killed_holder_is_succeeded_within_ttl_and_a_second(make, redis_server, holder):
    a = make(redis_server.port)
    token = int(holder.stdout.readline())
    os.kill(holder.pid, signal.SIGKILL)
    killed = clock.monotonic()
    with a.begin("vm", Job.MODIFY, wait=PATIENCE) as lease:
        assert clock.monotonic() - killed < HELD + 1
        assert lease.token > token
    assert a.list() == []


def test_a_stopped_holder_is_stale_when_it_wakes(make, redis_server, holder, tmp_path):
    a = make(redis_server.port)
    token = int(holder.stdout.readline())
    os.kill(holder.pid, signal.SIGSTOP)
    with a.begin("vm", Job.MODIFY, wait=PATIENCE) as lease, Guard(tmp_path / "guard.db") as guard:
        guard.admit("vm", lease.fence)
        os.kill(holder.pid, signal.SIGCONT)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "True\n"  # it knows, without asking the store
        assert holder.stdout.readline() == StaleToken.__name__ + "\n"
        with pytest.raises(StaleToken, match=f"{token}.*{lease.token}|{lease.token}.*{token}"):
            guard.admit("vm", Fence((Slot.SYNC,), token, token, token))


def test_ctrl_c_withdraws_one_who_waits(make, redis_server, fresh_namespace):
    a = make(redis_server.port)
    with a.begin("vm", Job.MODIFY):
        code = (
            "import sys\nfrom distjob import connect\n"
            "client = connect({'backend': 'redis', 'namespace': sys.argv[2],"
            " 'session': {'ttl': 60}, 'redis': {'url': sys.argv[1]}})\n"
            "try:\n    client.begin('vm', 'modify')\n"
            "except KeyboardInterrupt:\n    print(client.status('vm').waiters, flush=True)\n"
        )
        with started(
            [sys.executable, "-c", code, redis_server.url, fresh_namespace],
            stdout=subprocess.PIPE,
            text=True,
        ) as waiter:
            until(lambda: len(a.status("vm").waiters) == 1)
            waiter.send_signal(signal.SIGINT)
            assert waiter.communicate(timeout=PATIENCE)[0] == "()\n"
        assert a.status("vm").waiters == ()


def test_nothing_is_left_behind(make, redis_server, keys, pool):
    """After time-outs, tries, cancelled waits and closing, the store holds no VM and no session."""
    a, b = make(redis_server.port, "a"), make(redis_server.port, "b", wait=0.1)
    with a.begin("vm", Job.MODIFY):
        for _ in range(5):
            with pytest.raises(JobTimeout):
                b.begin("vm", Job.QUERY)
            assert b.try_begin("vm", Job.QUERY) is None
        pool.submit(b.begin, "vm", Job.MODIFY, wait=PATIENCE)
        until(lambda: len(a.status("vm").waiters) == 1)
        b.close()
    a.begin("held", Job.MODIFY)
    a.close()
    assert keys() == []
