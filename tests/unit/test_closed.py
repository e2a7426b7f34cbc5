"""A client that is closed, or used elsewhere, says so: whatever is asked of it, or of its leases.

Every public method is found by looking at the classes: one that is in no table here fails a test.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import distjob
from distjob import BackendUnavailable, Client, ClientClosed, LeaseLost, OutcomeUnknown, aio
from distjob.store import Reply, Versioned
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from distjob.testing.onloop import ProxyClient
from until import until

PATIENCE = 20.0
WORLDS = ("blocking", "asyncio")

OF_CLIENTS: dict[str, Callable[[Any], object]] = {
    "begin": lambda client: client.begin("vm", "modify"),
    "try_begin": lambda client: client.try_begin("vm", "modify"),
    "begin_agent": lambda client: client.begin_agent("vm", "modify"),
    "begin_async": lambda client: client.begin_async("vm", "save"),
    "begin_many": lambda client: client.begin_many({"vm": "modify"}),
    "adopt": lambda client: client.adopt("vm", "save"),
    "abort": lambda client: client.abort("vm"),
    "discard": lambda client: client.discard("vm"),
    "evict": lambda client: client.evict("vm", ["ticket"]),
    "status": lambda client: client.status("vm"),
    "list": lambda client: client.list(),
    "orphans": lambda client: client.orphans(),
    "with": lambda client: client.__enter__(),
}
"""What needs the store."""
AT_ANY_TIME = {"close"}
OF_LEASES: dict[str, Callable[[Any], object]] = {
    "end": lambda lease: lease.end(),
    "nested": lambda lease: lease.nested(),
    "allow": lambda lease: lease.allow("query"),
    "set_phase": lambda lease: lease.set_phase("copy"),
    "set_progress": lambda lease: lease.set_progress(1),
    "wait_abort": lambda lease: lease.wait_abort(PATIENCE),
    "detach": lambda lease: lease.detach(),
}
FACTS: dict[str, Callable[[Any], object]] = {
    "check": lambda lease: lease.check(),
    "on_lost": lambda lease: lease.on_lost(lambda: None),
    "on_abort": lambda lease: lease.on_abort(lambda _: None),
    "cancel_if_lost": lambda lease: lease.cancel_if_lost().__enter__(),
    "with": lambda lease: lease.__enter__(),
}
"""What is known without the store: that the job is lost is so when its client was closed, too."""


def methods(*kinds: type) -> set[str]:
    return {
        name
        for kind in kinds
        for name in dir(kind)
        if not name.startswith("_") and inspect.isroutine(inspect.getattr_static(kind, name))
    }


def test_no_method_is_forgotten() -> None:
    assert methods(Client, aio.AsyncClient) == OF_CLIENTS.keys() - {"with"} | AT_ANY_TIME
    leases = (distjob.Lease, distjob.AsyncJobLease, aio.Lease, aio.AsyncJobLease)
    assert methods(*leases) == (OF_LEASES.keys() | FACTS.keys()) - {"with"}


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture(params=WORLDS)
def client(request: pytest.FixtureRequest, server: MemoryServer) -> Iterator[Any]:
    if request.param == "blocking":
        client: Any = Client(StuckStore(server), ttl=2.0)
        yield client
        client.close()
    else:
        client = ProxyClient(partial(StuckAsyncStore.connect, server), ttl=2.0)
        yield client
        client.__exit__(None, None, None)


class Stuck:
    """A store whose next verb hangs, if that is wanted, until it is closed under it."""

    hangs: str | None = None
    """What is told of a change then; None: nothing hangs."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)  # type: ignore[call-arg]  of the store that it is mixed into
        self.hanging = threading.Event()
        self.over = threading.Event()

    def _hang(self) -> None:
        told, self.hangs = self.hangs, None
        if told is not None:
            self.hanging.set()
            assert self.over.wait(PATIENCE)
            raise BackendUnavailable("the connection was closed", unanswered=told == "unanswered")


class StuckStore(Stuck, MemoryStore):
    def read(self, vm: str) -> Versioned:
        self._hang()
        return super().read(vm)

    def commit(self, *given: Any) -> Reply:
        self._hang()
        return super().commit(*given)

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        self._hang()
        return super().scan()

    def close(self) -> None:
        super().close()
        self.over.set()


class StuckAsyncStore(Stuck, AsyncMemoryStore):
    async def read(self, vm: str) -> Versioned:
        await asyncio.to_thread(self._hang)
        return await super().read(vm)

    async def commit(self, *given: Any) -> Reply:
        await asyncio.to_thread(self._hang)
        return await super().commit(*given)

    async def scan(self) -> Any:
        await asyncio.to_thread(self._hang)
        async for found in super().scan():
            yield found

    async def close(self) -> None:
        await super().close()
        self.over.set()


def store_of(client: Any) -> Any:
    return client._thing._store if isinstance(client, ProxyClient) else client._store


def refusal(call: Callable[[Any], object], asked: Any) -> BaseException | None:
    try:
        call(asked)
    except Exception as error:  # noqa: BLE001  the test says which is right
        return error
    return None


# -- closed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_CLIENTS)
def test_a_closed_client_says_so(client: Any, name: str) -> None:
    client.close()
    error = refusal(OF_CLIENTS[name], client)
    assert type(error) is ClientClosed
    assert "this client is closed: connect anew" in str(error)
    client.close()


@pytest.mark.parametrize("name", OF_LEASES)
def test_so_does_a_lease_of_it(client: Any, name: str) -> None:
    job = client.begin_async("vm", "save")
    step = job.nested()
    other = client.begin("other", "modify", agent="query")
    client.close()
    for lease in (job, step, other):
        if name in methods(type(getattr(lease, "_thing", lease))):
            error = refusal(OF_LEASES[name], lease)
            assert type(error) is ClientClosed
            assert f"VM {lease.vm!r}: {lease.job} (token {lease.token})" in str(error)


@pytest.mark.parametrize("name", FACTS)
def test_what_a_lease_knows_by_itself_it_tells_still(client: Any, name: str) -> None:
    job = client.begin_async("vm", "save")
    client.close()
    assert job.lost
    assert job.remaining == 0
    if name == "on_lost":
        told: list[str] = []
        job.on_lost(lambda: told.append("at once"))
        assert told == ["at once"]
    elif name != "cancel_if_lost":
        assert type(refusal(FACTS[name], job)) is LeaseLost


def test_what_was_so_before_stays_so(client: Any, server: MemoryServer) -> None:
    """A job that was ended, or lost, before the client was closed."""
    ended = client.begin("ended", "modify")
    ended.end()
    taken = client.begin("taken", "modify")
    client.evict("taken", [holder.ticket for holder in client.status("taken").holders])
    until(lambda: taken.lost)
    lost = client.begin("lost", "modify")
    with server.changed:
        for session in list(server._sessions):
            server.close_session(session)
        server.changed.notify_all()
    until(lambda: lost.lost)
    client.close()
    for lease, kind in ((ended, distjob.NotOwner), (taken, LeaseLost), (lost, LeaseLost)):
        error = refusal(OF_LEASES["end"], lease)
        assert type(error) is kind


class Died(BaseException):
    """No error, which a heart outlives."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_client_whose_renewal_has_died_is_closed(client: Any) -> None:
    """Its store is not: whatever works yet must not be taken for a sign that it lives."""
    lease = client.begin("vm", "modify")

    def dies(_: str) -> bool:
        raise Died

    store_of(client).keep_alive = dies  # type: ignore[method-assign]
    until(lambda: lease.lost)
    for name, call in OF_CLIENTS.items():
        assert type(refusal(call, client)) is ClientClosed, name
    assert type(refusal(OF_LEASES["end"], lease)) is LeaseLost
    del store_of(client).keep_alive
    with contextlib.suppress(Died):  # the task has failed, and that is told once
        client.close()


# -- closed meanwhile -----------------------------------------------------------------------------


def close_under(client: Any) -> None:
    """Of a client whose calls are under way: the proxy's own would end them, too."""
    if isinstance(client, ProxyClient):
        client._thread.run(client._thing.close())
    else:
        client.close()


@pytest.mark.parametrize("name", sorted(OF_CLIENTS.keys() - {"with"}))
def test_what_was_under_way_says_so_too(client: Any, name: str) -> None:
    store = store_of(client)
    with ThreadPoolExecutor(1) as pool:
        store.hangs = "not made"
        call = pool.submit(OF_CLIENTS[name], client)
        assert store.hanging.wait(PATIENCE)
        close_under(client)
        error = call.exception(PATIENCE)
    assert type(error) is ClientClosed
    assert "this client is closed" in str(error)


@pytest.mark.parametrize("name", sorted(OF_LEASES.keys() - {"wait_abort"}))
def test_so_it_does_of_a_lease(client: Any, name: str) -> None:
    job, store = client.begin_async("vm", "save"), store_of(client)
    with ThreadPoolExecutor(1) as pool:
        store.hangs = "not made"
        call = pool.submit(OF_LEASES[name], job)
        assert store.hanging.wait(PATIENCE)
        close_under(client)
        assert type(call.exception(PATIENCE)) is ClientClosed


def test_so_does_a_wait_for_an_abort(client: Any) -> None:
    job = client.begin_async("vm", "save")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(OF_LEASES["wait_abort"], job)
        until(lambda: watched(job))
        close_under(client)
        assert type(call.exception(PATIENCE)) is ClientClosed


def watched(job: Any) -> bool:
    return bool(getattr(job, "_thing", job)._held.watchers)


@pytest.mark.parametrize("name", ["begin", "begin_async", "abort"])
def test_what_may_have_been_made_is_not_denied(client: Any, name: str) -> None:
    store = store_of(client)
    with ThreadPoolExecutor(1) as pool:
        store.hangs = "unanswered"
        call = pool.submit(OF_CLIENTS[name], client)
        assert store.hanging.wait(PATIENCE)
        close_under(client)
        assert type(call.exception(PATIENCE)) is OutcomeUnknown


# -- elsewhere ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.forks
def test_in_a_forked_child(client: Any) -> None:
    job = client.begin_async("vm", "save")
    calls = [(call, client) for call in OF_CLIENTS.values()]
    calls += [(call, job) for call in OF_LEASES.values()]
    calls += [(call, job) for name, call in FACTS.items() if name != "cancel_if_lost"]
    read, write = os.pipe()
    if (pid := os.fork()) == 0:  # pragma: no cover  the child
        refused = [refusal(call, asked) for call, asked in calls]
        told = [(type(error).__name__, str(error)) for error in refused]
        os.write(write, json.dumps(told).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        said = json.load(pipe)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(said) == len(calls)
    for name, text in said:
        assert name == "ClientClosed"
        assert f"this client belongs to process {os.getpid()}" in text
    job.end()


def test_in_another_loop(server: MemoryServer) -> None:
    async def steps() -> None:
        async with aio.AsyncClient(await StuckAsyncStore.connect(server)) as client:
            job = await client.begin_async("vm", "save")
            await asyncio.to_thread(asyncio.run, elsewhere(client, job))
            await job.end()

    asyncio.run(steps())


async def elsewhere(client: aio.AsyncClient, job: aio.AsyncJobLease) -> None:
    """Each is called, awaited or entered in a loop that is not the client's."""
    calls = [partial(call, client) for name, call in OF_CLIENTS.items() if name != "with"]
    calls += [partial(call, job) for call in OF_LEASES.values()]
    calls += [partial(FACTS[name], job) for name in ("check", "on_lost", "on_abort")]
    calls += [client.__aenter__, job.__aenter__, job.cancel_if_lost().__aenter__]
    for call in calls:
        with pytest.raises(ClientClosed, match="belongs to another event loop"):
            await call()  # type: ignore[misc]
