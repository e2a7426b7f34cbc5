"""The three parts of the benchmark, on any store that has a yardstick."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
from multiprocessing.connection import Connection

import msgspec

from distjob import clock
from distjob.client import Client
from distjob.config import SessionSettings, Settings
from distjob.rules.jobs import Job
from distjob.sharded import connect
from distjob.testing.bench.measure import difference, ratios, resident, say, seconds, spread
from distjob.testing.bench.yardstick import Yardstick

TTL = 3.0


def begin_and_end(yard: Yardstick, blocks: int, times: int) -> None:
    """Begin and end of an idle VM, beside bare writes and the library's own lock."""
    with Client(yard.store(TTL), controller="bench", ttl=TTL) as jobs:

        def ours() -> None:
            jobs.begin("vm-42", Job.MODIFY).end()

        lock, locking = yard.lock
        others = {**yard.bare, lock: locking}
        found = ratios(ours, list(others.values()), times, blocks)
    for name, values in zip(others, found, strict=True):
        say(f"begin + end / {name}", spread(values))


def _waiter(settings: Settings, pipe: Connection) -> None:
    """The other process: begins when told, says when it held, ends."""
    with connect(settings) as jobs:
        while pipe.recv():
            with jobs.begin("vm-42", Job.MODIFY):
                held = clock.monotonic()
            pipe.send(held)


def hand_over(yard: Yardstick, settings: Settings, rounds: int) -> None:
    """From one process's end to the return of another's begin."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    session = SessionSettings(ttl=TTL)
    there = msgspec.structs.replace(settings, controller="waiter", session=session)
    other = context.Process(target=_waiter, args=(there, theirs))
    other.start()
    trips: list[float] = []
    hand_overs: list[float] = []
    pause = threading.Event()
    with Client(yard.store(TTL), controller="holder", ttl=TTL) as jobs:
        for _ in range(rounds):
            lease = jobs.begin("vm-42", Job.MODIFY)
            pipe.send("begin")
            while not jobs.status("vm-42").waiters:
                pause.wait(0.001)
            pause.wait(0.002)  # all who take part are asleep, before the yardstick and before
            trip = seconds(yard.one_write, 1)
            pause.wait(0.002)  # what it measures
            ended = clock.monotonic()
            lease.end()
            trips.append(trip)
            hand_overs.append(pipe.recv() - ended)
        lease = jobs.begin("vm-42", Job.MODIFY)
        pipe.send("begin")
        while not jobs.status("vm-42").waiters:
            pause.wait(0.001)
        asked = _in_one_ttl(yard)
        lease.end()
        pipe.recv()
    pipe.send("")
    other.join()
    ratio = statistics.median(hand_overs) / statistics.median(trips)
    each = sorted(one / trip for one, trip in zip(hand_overs, trips, strict=True))
    say(
        "hand-over between two processes / one bare write",
        f"{ratio:.2f} (of the medians; quartiles of the pairs {each[rounds // 4]:.2f} to"
        f" {each[rounds * 3 // 4]:.2f} of {rounds} rounds)",
    )
    say("asked of the server in one TTL, by holder and waiter", asked)


def held_jobs(yard: Yardstick, count: int) -> None:
    """Many jobs in one client: nothing but memory may grow."""
    with Client(yard.store(TTL), controller="bench", ttl=TTL) as jobs:
        jobs.begin("vm-0", Job.MODIFY).end()
        idle = _in_one_ttl(yard)
        threads, memory = threading.active_count(), resident()
        leases = [jobs.begin(f"vm-{number}", Job.MODIFY) for number in range(count)]
        memory = resident() - memory
        busy = _in_one_ttl(yard)
        say(f"threads with {count:,} held jobs / before", f"{threading.active_count()} / {threads}")
        say("memory a lease (resident set)", f"{memory / count:,.0f} bytes")
        say("asked in a TTL with none held", idle)
        say(f"asked in a TTL with {count:,} held", busy)
        if any(lease.lost for lease in leases):
            raise AssertionError("a lease was lost")
        for lease in leases:
            lease.end()


def _in_one_ttl(yard: Yardstick) -> str:
    before = yard.asked()
    threading.Event().wait(TTL)
    return difference(before, yard.asked())
