"""Play recorded libvirt traces through the public client: each actor a client with its own session.

    python -m distjob.testing.replay TRACES.json [--config FILE.yaml] [--asyncio]

A trace is ``{"max_queued": N, "steps": [{"actor", "op", "args", "expect"}]}``, as told in
docs/reference/semantics.md. After each step it compares the step's own result, libvirt's message
and which waiters the step let in, by the begin calls that return and, where it can let somebody in,
by `Client.status`. Without --config it plays on the memory store. Exit status 1 if a trace failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

from distjob.client import Client
from distjob.config import Settings, load, open_backend, open_backend_async
from distjob.errors import DistjobError, QueueFull
from distjob.hooks import Event, Hook, Waiting
from distjob.lease import AsyncJobLease, Lease
from distjob.protocol.look import JobStatus
from distjob.rules.jobs import AgentJob, AsyncJob, Job
from distjob.store import AsyncStore
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from distjob.testing.onloop import ProxyClient

PATIENCE = 20.0
"""Seconds that a call which must return may take, on a slow machine."""
AT_A_TIME = 4
"""Traces that are played at once: with a store on the network most of the time is waiting."""
Connect = Callable[..., Client]


class Difference(AssertionError):
    """distjob did not do what the trace says."""


class Clients:
    """Clients by actor and limit, each connected once; they tell on which VM they wait."""

    def __init__(self, connect: Connect, stack: ExitStack) -> None:
        self._connect = connect
        self._stack = stack
        self._made: dict[tuple[str, int], Client] = {}
        self._making = threading.Lock()
        self._told: dict[tuple[str, str], Callable[[], None]] = {}

    def __call__(self, actor: str, max_queued: int) -> Client:
        key = (actor, max_queued)
        with self._making:
            if key not in self._made:
                new = self._connect(
                    controller=actor, max_queued=max_queued, wait=60.0, hooks=[self._hook(actor)]
                )
                self._made[key] = self._stack.enter_context(new)
            return self._made[key]

    def tell(self, actor: str, vm: str, waits: Callable[[], None]) -> None:
        """Have ``waits`` called when a begin of ``actor`` has got in line for ``vm``."""
        self._told[actor, vm] = waits

    def _hook(self, actor: str) -> Hook:
        def hook(event: Event) -> None:
            if isinstance(event, Waiting):
                self._told[actor, event.vm]()

        return hook


class Actor:
    """One of a trace's actors: the leases that it holds, and the begin call it is in."""

    def __init__(self, client: Client, pool: ThreadPoolExecutor) -> None:
        self.client = client
        self.leases: dict[str, Lease] = {}
        self.call: Future[Lease | None] | None = None
        self.slot = ""
        self.news: SimpleQueue[str] = SimpleQueue()
        """Of the begin call: that it waits, or returns."""
        self._pool = pool

    def begin(self, vm: str, op: str, args: list[str], api: str) -> None:
        """Call the client in a thread of its own, as it may wait."""
        self.slot = {"begin_agent": "agent", "begin_async": "async"}.get(op, "sync")
        self.news = news = SimpleQueue[str]()
        self.call = self._pool.submit(self._begin, vm, op, args, api)
        self.call.add_done_callback(lambda _: news.put("returns"))

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
        for name, actor in self.actors.items():
            clients.tell(name, vm, lambda actor=actor: actor.news.put("waits"))  # type: ignore[misc]
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
        if op.startswith("begin"):  # lets nobody in; if it did, the look after the next end says so
            still = before + [name] * bool(actor.call)
            let_in = [waiter for waiter in before if self._returned(waiter)]
        else:
            still = self._waiting() if before else []
            let_in = [waiter for waiter in before if waiter not in still]
        self._line = still
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
        actor = self.actors[name]
        try:
            if actor.news.get(timeout=PATIENCE) == "waits":
                return "waiting", None
        except Empty:
            raise Difference("the begin call neither returns nor waits") from None
        try:
            lease = actor.collect(PATIENCE)
        except QueueFull as full:
            return "refused", f"operation failed: {full.libvirt_text}"
        return ("granted" if lease else "refused"), None

    def _returned(self, waiter: str) -> bool:
        call = self.actors[waiter].call
        return call is None or call.done()

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


def replay(traces: Sequence[dict[str, Any]], connect: Connect) -> list[str]:
    """Play each trace on a VM of its own, some at a time; returns what differed, a line each.

    ``connect`` makes a client of the arguments ``controller``, ``max_queued``, ``wait``, ``hooks``.
    """
    run = uuid.uuid4().hex[:8]

    def play(number: int) -> str | None:
        trace = traces[number]
        try:
            Player(trace, f"replay-{run}-{number}", clients).play()
        except Difference as difference:
            return f"trace {number} (seed {trace.get('seed', '-')}): {difference}"
        return None

    with ExitStack() as stack, ThreadPoolExecutor(AT_A_TIME) as pool:
        clients = Clients(connect, stack)
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
    return partial(AsyncMemoryStore.connect, server)


if __name__ == "__main__":
    sys.exit(main())
