"""What begin, end and hand-over ask of the servers, by the servers' own counters."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kazoo.client import KazooClient

from distjob import Client, Job
from distjob.config import Settings, load, open_backend
from distjob.rules.codec import decode, encode
from distjob.rules.ticket import Owner, Ticket
from distjob.store import Committed
from distjob.testing.bench.__main__ import yardstick
from distjob.testing.bench.yardstick import Yardstick
from stores import REAL, settings_of

NETWORK = [kind for kind in REAL if kind != "sqlite"]
_SCRIPT = {"evalsha": 1, "get": 3, "time": 1}
"""Redis counts what a script calls, too: with these the commit is the only thing that was sent."""
ONCE = {
    "redis": ({**_SCRIPT, "set": 2}, {**_SCRIPT, "set": 1, "del": 1}),
    "etcd": ({"Txn": 1}, {"Txn": 1}),
    "zookeeper": ({"packets_received": 1}, {"packets_received": 1}),
}
"""What begin and end ask, in one round trip each."""
QUIET = {"pexpire", "ping", "LeaseKeepAlive"}
"""What the background thread asks."""


@pytest.fixture(params=NETWORK)
def settings(request, tmp_path, fresh_namespace) -> Settings:
    return load(settings_of(request.param, request, tmp_path, fresh_namespace))


@pytest.fixture
def yard(settings: Settings) -> Iterator[Yardstick]:
    yard = yardstick(settings)
    yield yard
    yard.close()


def cost(yard: Yardstick, call: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    before = yard.asked()
    result = call()
    after = yard.asked()
    rise = {name: count - before.get(name, 0) for name, count in after.items()}
    return result, {name: count for name, count in rise.items() if count and name not in QUIET}


def test_begin_and_end_are_one_round_trip_each(settings: Settings, yard: Yardstick) -> None:
    """In one of several tries: now and then the background thread asks, too."""
    begins, ends = [], []
    with Client(open_backend(settings)) as jobs:
        jobs.begin("vm", Job.MODIFY).end()
        for _ in range(6):
            lease, asked = cost(yard, lambda: jobs.begin("vm", Job.MODIFY))
            begins.append(asked)
            ends.append(cost(yard, lease.end)[1])
    begin, end = ONCE[settings.backend]
    assert begin in begins, begins
    assert end in ends, ends


def test_an_unknown_vm_costs_no_more(settings: Settings, yard: Yardstick) -> None:
    with Client(open_backend(settings)) as jobs:
        jobs.begin("known", Job.MODIFY).end()
        told = []
        for number in range(6):
            lease, asked = cost(yard, lambda n=number: jobs.begin(f"vm-{n}", Job.MODIFY))
            told.append(asked)
            lease.end()
    assert ONCE[settings.backend][0] in told, told


def wakes(settings: Settings, yard: Yardstick) -> int:
    """How many wake-ups the servers have sent out, or puts and sets they have made of sessions."""
    if settings.backend == "redis":
        asked = yard.asked()
        return asked.get("publish", 0) + asked.get("spublish", 0)
    if settings.backend == "etcd":
        with urllib.request.urlopen(f"http://{settings.section.endpoints[0]}/metrics") as page:
            said = page.read().decode()
        found = re.search(r"^etcd_(?:debugging_)?mvcc_put_total (\S+)$", said, re.MULTILINE)
        return int(float(found[1]))
    client = KazooClient(hosts=settings.section.hosts)
    client.start()
    client.sync("/")
    folder = f"/distjob/{settings.namespace}/wake"
    stats = [client.exists(f"{folder}/{name}") for name in client.get_children(folder)]
    client.stop()
    client.close()
    return sum(stat.version for stat in stats if stat)


@pytest.mark.parametrize("crowd", [2, 200])
def test_a_hand_over_wakes_two_at_most(settings: Settings, yard: Yardstick, crowd: int) -> None:
    """One is let in, one is first in line from now on; the others sleep."""
    store = open_backend(settings)
    try:
        sessions = [store.open_session(60.0, "waiter") for _ in range(crowd)]
        with Client(open_backend(settings)) as jobs:
            lease = jobs.begin("vm", Job.MODIFY)
            seen: Any = store.read("vm")
            record, version = decode("vm", seen.version, seen.value), seen.version
            for session in sessions:
                ticket = Ticket(
                    id=f"{session}.1", session=session, owner=Owner("w", "host", 1), api="x",
                    asked=0.0, job=Job.MODIFY,
                )  # fmt: skip
                record = record.request(ticket, wall=0.0)[1]
                reply = store.commit("vm", version, encode(record), session, ())
                assert isinstance(reply, Committed)
                version = reply.version
            assert len(jobs.status("vm").waiters) == crowd
            before = wakes(settings, yard)
            lease.end()
            sent = wakes(settings, yard) - before
            if settings.backend == "etcd":
                sent -= 1  # the record's own put
            assert 1 <= sent <= 2
            assert [one.session for one in jobs.status("vm").holders] == sessions[:1]
    finally:
        for session in sessions:
            store.close_session(session)
        store.close()
