"""What distjob costs on Redis, as ratios that are taken beside a yardstick in the same run.

    python -m distjob.testing.bench [--url redis://localhost:6379/0] [--quick]

1. begin + end of an idle VM, against two bare EVALSHA round trips of the same redis-py client:
   of a script that does nothing, and of the commit script itself with the same arguments.
2. hand-over: from the holder's end() to the return of the waiter's begin() in another process,
   in round trips; and what the server was asked while the waiter waited.
3. 10,000 held jobs: threads, memory a lease, commands a TTL.

An absolute time says something of the machine only; the ratios say something of distjob.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.resources import files
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

import redis  # noqa: TC002  so that a missing extra is told at once

from distjob import clock
from distjob.client import Client
from distjob.jobs import Job
from distjob_redis import RedisSettings
from distjob_redis.server import client_for
from distjob_redis.store import RedisStore

TTL = 3.0


def a_client(url: str) -> redis.Redis:
    """One that is configured as distjob configures its own."""
    return client_for(RedisSettings(url=url))


def seconds(call: Callable[[], object], times: int) -> float:
    """Of one call, on average over ``times`` of them."""
    started = perf_counter()
    for _ in range(times):
        call()
    return (perf_counter() - started) / times


def begin_and_end(url: str, namespace: str, blocks: int) -> None:
    server = a_client(url)
    nothing = server.script_load("return 1")
    commit = files("distjob_redis").joinpath("commit.lua").read_text(encoding="utf-8")
    digest = server.script_load(commit)
    prefix = f"distjob:{{{namespace}-bare}}:"
    keys = [prefix + "version", prefix + "vm:vm-42", prefix + "session:me"]
    server.set(keys[2], "me", ex=3600)

    with Client(RedisStore(server, namespace, TTL), controller="bench", ttl=TTL) as jobs:
        with jobs.begin("vm-42", Job.MODIFY):
            held: Any = server.get(f"distjob:{{{namespace}}}:vm:vm-42")
        value = b":" + held.partition(b":")[2]

        def bare() -> None:
            server.evalsha(nothing, 0)
            server.evalsha(nothing, 0)

        def bare_commits() -> None:
            version = server.evalsha(digest, 3, *keys, 0, value)
            server.evalsha(digest, 3, *keys, version, b"")

        def ours() -> None:
            jobs.begin("vm-42", Job.MODIFY).end()

        calls = (bare, bare_commits, ours)
        for call in calls:
            seconds(call, 300)
        rows = [[seconds(call, 300) for call in calls] for _ in range(blocks)]
    server.delete(*keys)
    for number, name in enumerate(
        ("two EVALSHA of 'return 1'", "two EVALSHA of the commit script")
    ):
        ratios = sorted(row[2] / row[number] for row in rows)
        _say(
            f"begin + end / {name}",
            f"{statistics.median(ratios):.2f} (min {ratios[0]:.2f}, max {ratios[-1]:.2f}"
            f" of {blocks} blocks)",
        )
    server.close()


def _waiter(url: str, namespace: str, pipe: Connection) -> None:
    """The other process: begins when told, says when it held, ends."""
    server = a_client(url)
    with Client(RedisStore(server, namespace, TTL), controller="waiter", ttl=TTL) as jobs:
        while pipe.recv():
            with jobs.begin("vm-42", Job.MODIFY):
                held = clock.monotonic()
            pipe.send(held)
    server.close()


def hand_over(url: str, namespace: str, rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    other = context.Process(target=_waiter, args=(url, namespace, theirs))
    other.start()
    server = a_client(url)
    nothing = server.script_load("return 1")
    trips: list[float] = []
    hand_overs: list[float] = []
    pause = threading.Event()
    with Client(RedisStore(server, namespace, TTL), controller="holder", ttl=TTL) as jobs:
        for _ in range(rounds):
            lease = jobs.begin("vm-42", Job.MODIFY)
            pipe.send("begin")
            while not jobs.status("vm-42").waiters:
                pass
            pause.wait(0.002)  # all who take part are asleep, before the yardstick and before
            trip = seconds(lambda: server.evalsha(nothing, 0), 1)
            pause.wait(0.002)  # what it measures
            ended = clock.monotonic()
            lease.end()
            trips.append(trip)
            hand_overs.append(pipe.recv() - ended)
        lease = jobs.begin("vm-42", Job.MODIFY)
        pipe.send("begin")
        while not jobs.status("vm-42").waiters:
            pass
        before = _commands(server)
        threading.Event().wait(TTL)
        asked = _difference(before, _commands(server))
        lease.end()
        pipe.recv()
    pipe.send("")
    other.join()
    server.close()
    ratio = statistics.median(hand_overs) / statistics.median(trips)
    each = sorted(one / trip for one, trip in zip(hand_overs, trips, strict=True))
    _say(
        "hand-over between two processes / one EVALSHA",
        f"{ratio:.2f} (of the medians; quartiles of the pairs {each[rounds // 4]:.2f} to"
        f" {each[rounds * 3 // 4]:.2f} of {rounds} rounds)",
    )
    _say("asked of the server in one TTL, by holder and waiter", asked)


def held_jobs(url: str, namespace: str, count: int) -> None:
    server, watcher = a_client(url), a_client(url)
    with Client(RedisStore(server, namespace, TTL), controller="bench", ttl=TTL) as jobs:
        jobs.begin("vm-0", Job.MODIFY).end()
        idle = _per_ttl(watcher)
        threads, memory = threading.active_count(), _resident()
        leases = [jobs.begin(f"vm-{number}", Job.MODIFY) for number in range(count)]
        memory = _resident() - memory
        busy = _per_ttl(watcher)
        _say(
            f"threads with {count:,} held jobs / before", f"{threading.active_count()} / {threads}"
        )
        _say("memory a lease (resident set)", f"{memory / count:,.0f} bytes")
        _say("commands a TTL with none held", idle)
        _say(f"commands a TTL with {count:,} held", busy)
        if any(lease.lost for lease in leases):
            raise AssertionError("a lease was lost")
        for lease in leases:
            lease.end()
    server.close()
    watcher.close()


def _commands(server: redis.Redis) -> dict[str, int]:
    stats: dict[str, Any] = server.info("commandstats")
    return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in stats.items()}


def _difference(before: dict[str, int], after: dict[str, int]) -> str:
    rise = {name: calls - before.get(name, 0) for name, calls in after.items()}
    rise["info"] = rise.get("info", 0) - 1  # our own look
    return (
        ", ".join(f"{calls} {name}" for name, calls in sorted(rise.items()) if calls) or "nothing"
    )


def _per_ttl(server: redis.Redis) -> str:
    before = _commands(server)
    threading.Event().wait(TTL)
    return _difference(before, _commands(server))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def _say(what: str, result: str) -> None:
    print(f"{what:<56} {result}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m distjob.testing.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", default="redis://localhost:6379/0")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    options = parser.parse_args(arguments)
    share = 10 if options.quick else 1
    namespace = f"bench-{secrets.token_hex(4)}"
    begin_and_end(options.url, namespace, 20 // share + 1)
    hand_over(options.url, namespace, 300 // share)
    held_jobs(options.url, namespace, 10_000 // share)
    server = a_client(options.url)
    left = list(server.scan_iter(f"distjob:{{{namespace}*", count=1000))
    server.delete(*left)
    server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
