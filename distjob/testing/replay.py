"""Play recorded libvirt traces through the public client: each actor a client with its own session.

    python -m distjob.testing.replay TRACES.json [--config FILE.yaml] [--asyncio]

A trace is ``{"max_queued": N, "steps": [{"actor", "op", "args", "expect"}]}``, as told in
docs/semantics.md. After each step it compares the step's own result, libvirt's message and which
waiters the step let in, by `Client.status` and by the begin calls that return. Without --config
it plays on the memory store. Exit status 1 if a trace failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from distjob import clock
from distjob.client import Client
from distjob.config import Settings, load, open_backend, open_backend_async
from distjob.errors import DistjobError, QueueFull
from distjob.jobs import AgentJob, AsyncJob, Job
from distjob.lease import AsyncJobLease, Lease
from distjob.offloop import OffLoop
from distjob.protocol.look import JobStatus
from distjob.store import AsyncStore
from distjob.testing.memory import MemoryServer, MemoryStore
from distjob.testing.onloop import ProxyClient

PATIENCE = 20.0
"""Seconds that a call which must return may take, on a slow machine."""
AT_A_TIME = 4
"""Traces that are played at once: with a store on the network most of the time is waiting."""
Connect = Callable[..., Client]
Clients = Callable[[str, int], Client]
"""(actor, max_queued) -> its client."""


class Difference(AssertionError):
    """distjob did not do what the trace says."""


class Actor:
    """One of a trace's actors: the leases that it holds, and the begin call it is in."""

    def __init__(self, client: Client, pool: ThreadPoolExecutor) -> None:
        self.client = client
        self.leases: dict[str, Lease] = {}
        self.call: Future[Lease | None] | None = None
        self.slot = ""
        self._pool = pool

    def begin(self, vm: str, op: str, args: list[str], api: str) -> None:
        """Call the client in a thread of its own, as it may wait."""
        self.slot = {"begin_agent": "agent", "begin_async": "async"}.get(op, "sync")
        self.call = self._pool.submit(self._begin, vm, op, args, api)

    def _begin(self, vm: str, op: str, args: list[str], api: str) -> Lease | None:
        match op:
            case "begin":
                return self.client.begin(vm, Job(args[0]), api=api)
            case "begin_nowait":
                return self.client.try_begin(vm, Job(args[0]), api=api)
            case "begin_agent":
                return self.client.begin_agent(vm, AgentJob(args[0]), api=api)
            case "begin_async":
                return self.client.begin_async(vm, AsyncJob(args[0]), api=api)
            case _:
                return self.parent(args[0]).nested(api=api)

    def parent(self, kind: str) -> AsyncJobLease:
        lease = self.leases["async"]
        if getattr(lease, "kind", None) != kind:
            raise Difference(f"the actor holds {lease}, the trace names a step of {kind!r}")
        return cast("AsyncJobLease", lease)

    def collect(self, timeout: float) -> Lease | None:
        """What the begin call has returned; raises what it raised, or NotDone."""
        call = self.call
        if call is None:
            raise Difference("no begin call is under way")
        call.exception(timeout)
        self.call = None
        if lease := call.result():
            self.leases[self.slot] = lease
        return lease


class Player:
    """One trace on one VM."""

    def __init__(self, trace: dict[str, Any], vm: str, clients: Clients) -> None:
        self.vm = vm
        self.steps: list[dict[str, Any]] = trace["steps"]
        self.max_queued: int = trace["max_queued"]
        names = sorted({step["actor"] for step in self.steps})
        self._pool = ThreadPoolExecutor(len(names), "actor")
        self.actors = {n: Actor(clients(n, self.max_queued), self._pool) for n in names}
        self._watch = next(iter(self.actors.values())).client
        self._line: list[str] = []
        """The actors that waited after the last step: nobody else touches this VM."""

    def play(self) -> None:
        """Raises Difference, naming the step."""
        try:
            for number, step in enumerate(self.steps):
                try:
                    self._step(step["actor"], step["op"], step["args"], step["expect"])
                except (Difference, DistjobError, NotDone) as error:
                    told = f"{step['actor']} {step['op']} {' '.join(map(str, step['args']))}"
                    raise Difference(f"step {number} ({told.strip()}): {error!r}") from error
        finally:
            self._finish()
            self._pool.shutdown()

    def _step(self, name: str, op: str, args: list[Any], expect: dict[str, Any]) -> None:
        actor = self.actors[name]
        before = self._line
        if op.startswith("begin"):
            actor.begin(self.vm, op, args, f"api-{name}")
            result, message = self._outcome(name)
            _same("result", result, expect["result"])
            _same("message", message, expect.get("message"))
        elif op == "set_mask":
            cast("AsyncJobLease", actor.leases["async"]).allow(*args[0])
            _same("mask", [*map(str, self._watch.status(self.vm).mask or ())], expect["mask"])
        else:
            slot = {"end": "sync", "end_agent": "agent", "end_async": "async"}[op]
            actor.leases.pop(slot).end()
        still = self._line = self._waiting()
        let_in = [waiter for waiter in before if waiter not in still]
        if one_of := expect.get("granted_one_of"):
            oldest = next(waiter for waiter in before if waiter in one_of)
            if oldest not in let_in or not set(let_in) <= set(one_of):
                raise Difference(f"let in: {let_in}, the oldest of {one_of} is {oldest}")
        else:
            _same("let in", sorted(let_in), expect["granted"])
        for waiter in let_in:
            self.actors[waiter].collect(PATIENCE)

    def _outcome(self, name: str) -> tuple[str, str | None]:
        """Of a begin call: it returns or raises, or stands in the queue."""
        actor, until, pause = self.actors[name], clock.monotonic() + PATIENCE, 0.002
        while clock.monotonic() < until:
            try:
                lease = actor.collect(pause)
            except NotDone:
                pause = min(2 * pause, 0.05)
                if name in self._waiting():
                    return "waiting", None
            except QueueFull as full:
                return "refused", f"operation failed: {full.libvirt_text}"
            else:
                return ("granted" if lease else "refused"), None
        raise Difference("the begin call neither returns nor waits")

    def _waiting(self) -> list[str]:
        """The actors that wait, oldest first."""
        waiters: Sequence[JobStatus] = self._watch.status(self.vm).waiters
        return [waiter.api.removeprefix("api-") for waiter in waiters]

    def _finish(self) -> None:
        """End what is held, steps before their async job, until nobody waits any more."""
        order = ("sync", "agent", "async")
        while held := [
            (order.index(slot), name) for name, a in self.actors.items() for slot in a.leases
        ]:
            rank, name = min(held)
            self.actors[name].leases.pop(order[rank]).end()
            waiting = self._waiting()
            for name, actor in self.actors.items():
                if actor.call and name not in waiting:
                    actor.collect(PATIENCE)
        if not self._watch.status(self.vm).idle:
            raise Difference(f"left behind: {self._watch.status(self.vm)}")


def _same(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise Difference(f"{what}: {got!r}, libvirt: {expected!r}")


@contextmanager
def clients_of(connect: Connect) -> Iterator[Clients]:
    """Clients by actor and limit, each connected once and closed in the end."""
    with ExitStack() as stack:
        made: dict[tuple[str, int], Client] = {}
        making = threading.Lock()

        def client(actor: str, max_queued: int) -> Client:
            key = (actor, max_queued)
            with making:
                if key not in made:
                    new = connect(controller=actor, max_queued=max_queued, wait=60.0)
                    made[key] = stack.enter_context(new)
                return made[key]

        yield client


def replay(traces: Sequence[dict[str, Any]], connect: Connect) -> list[str]:
    """Play each trace on a VM of its own, some at a time; returns what differed, a line each.

    ``connect`` makes a client of the arguments ``controller``, ``max_queued`` and ``wait``.
    """
    run = uuid.uuid4().hex[:8]

    def play(number: int) -> str | None:
        trace = traces[number]
        try:
            Player(trace, f"replay-{run}-{number}", clients).play()
        except Difference as difference:
            return f"trace {number} (seed {trace.get('seed', '-')}): {difference}"
        return None

    with clients_of(connect) as clients, ThreadPoolExecutor(AT_A_TIME) as pool:
        return [told for told in pool.map(play, range(len(traces))) if told]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m distjob.testing.replay", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("traces", type=Path, help="JSON file with a list of traces")
    parser.add_argument("--config", help="settings of the store to play on")
    parser.add_argument("--asyncio", action="store_true", help="by distjob.aio's client")
    options = parser.parse_args(arguments)
    traces = json.loads(options.traces.read_text())
    server = MemoryServer()
    settings = load(options.config) if options.config else None

    def connect(**arguments: Any) -> Any:
        if options.asyncio:
            return ProxyClient(_opens_async(settings, server), **arguments)
        store = open_backend(settings) if settings else MemoryStore(server)
        return Client(store, **arguments)

    differences = replay(traces, connect)
    for line in differences:
        print(line)
    print(f"{len(traces) - len(differences)} passed, {len(differences)} failed")
    return 1 if differences else 0


def _opens_async(
    settings: Settings | None, server: MemoryServer
) -> Callable[[], Awaitable[AsyncStore]]:
    if settings:
        return partial(open_backend_async, settings)
    return partial(OffLoop.connect, partial(MemoryStore, server))


if __name__ == "__main__":
    sys.exit(main())
