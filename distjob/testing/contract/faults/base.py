"""The fixtures of the fault contract, and steps that its tests share."""

from __future__ import annotations

import asyncio
import gc
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Protocol

import pytest

from distjob import clock
from distjob.errors import BackendUnavailable
from distjob.store import AsyncStore, Committed, Event, Missed, Store, Woken
from distjob.testing.contract.faults.harness import At, Harness
from distjob.testing.contract.faults.proxy import Proxy
from distjob.testing.contract.helpers import PATIENCE
from distjob.testing.onloop import LoopThread, OnLoop

TTL = 10.0
"""Seconds, of sessions that outlive their test."""
TIMEOUT = 2.0
"""Seconds that a store waits for an answer, if a test does not say otherwise."""
SETTLED = 1.0
"""Seconds in which what was on its way has arrived."""


class Connect(Protocol):
    """Opens a store, which is closed after the test."""

    def __call__(
        self,
        address: str = "",
        *,
        ttl: float = TTL,
        timeout: float = TIMEOUT,
        namespace: str = "",
        **more: Any,
    ) -> Store: ...


class Faults:
    """What the tests ask for. `harness` is to be overridden."""

    @pytest.fixture
    def harness(self) -> Harness:
        """The server, and what can be done to it."""
        msg = "override the fixture `harness`"
        raise NotImplementedError(msg)

    @pytest.fixture
    def namespace(self) -> str:
        return f"faults-{secrets.token_hex(6)}"

    @pytest.fixture(params=["threads", "asyncio"])
    def connect(
        self, request: pytest.FixtureRequest, harness: Harness, namespace: str
    ) -> Iterator[Connect]:
        """Opens stores: blocking ones, or such as each call is a task of a loop that they share."""
        ours = namespace
        with ExitStack() as closing:
            thread = LoopThread() if request.param == "asyncio" else None
            if thread is not None:
                closing.callback(ended, thread)

            def connect(
                address: str = "",
                *,
                ttl: float = TTL,
                timeout: float = TIMEOUT,
                namespace: str = "",
                **more: Any,
            ) -> Store:
                at = At(
                    address=address or harness.address,
                    namespace=namespace or ours,
                    ttl=ttl,
                    timeout=timeout,
                    more=more,
                )
                store: Store = (
                    harness.opened(at)
                    if thread is None
                    else OnLoop(partial(harness.opened_async, at), thread)
                )
                closing.callback(store.close)
                return store

            yield connect

    @pytest.fixture
    def proxy(self, harness: Harness) -> Iterator[Proxy]:
        """Leads to the server, and loses what it is told to lose."""
        harness.need("network")
        with Proxy((harness.host, harness.port)) as proxy:
            yield proxy

    @pytest.fixture
    def through(self, connect: Connect, proxy: Proxy) -> Store:
        """A store behind the proxy."""
        return connect(proxy.address)

    @pytest.fixture
    def opened(self, harness: Harness, namespace: str) -> Callable[..., Any]:
        """In a running loop: ``async with opened(address) as store``."""

        @asynccontextmanager
        async def opened(address: str = "", timeout: float = TIMEOUT) -> AsyncIterator[AsyncStore]:
            at = At(
                address=address or harness.address, namespace=namespace, ttl=TTL, timeout=timeout
            )
            store = await harness.opened_async(at)
            try:
                yield store
            finally:
                await store.close()

        return opened


def ended(thread: LoopThread) -> None:
    """End a loop, in which nothing may be left."""
    left = thread.close()
    assert not left, left


def failed(verb: Callable[[], object]) -> BackendUnavailable:
    """What ``verb`` raises."""
    with pytest.raises(BackendUnavailable) as caught:
        verb()
    return caught.value


async def async_failed(verb: Coroutine[Any, Any, object]) -> BackendUnavailable:
    """What ``verb`` raises."""
    with pytest.raises(BackendUnavailable) as caught:
        await verb
    return caught.value


def received(store: Store, session: str, *until: Event | type[Event]) -> list[Event]:
    """Events, up to the first that is one of these or of these kinds, whatever is raised."""
    events: list[Event] = []
    end = clock.monotonic() + PATIENCE
    while not any(event in until or type(event) in until for event in events):
        assert clock.monotonic() < end, f"none of {until} came; there were {events}"
        with suppress(BackendUnavailable):
            events += store.receive(session, 1.0)
    return events


def made(store: Store, vm: str, author: str, *wake: str, value: bytes | None = b"x") -> int:
    """Write ``value`` over whatever is there, again until it is answered; the new version."""
    end = clock.monotonic() + PATIENCE
    while True:
        assert clock.monotonic() < end, "the store did not come back"
        try:
            reply = store.commit(vm, store.read(vm).version, value, author, wake)
        except BackendUnavailable:
            threading.Event().wait(0.05)
            continue
        if isinstance(reply, Committed):
            return reply.version


def woken_or_missed(events: list[Event], version: int) -> bool:
    """Whether who got ``events`` knows that there is ``version``."""
    return any(
        isinstance(event, Missed) or (isinstance(event, Woken) and event.version >= version)
        for event in events
    )


def play(steps: Coroutine[Any, Any, None]) -> None:
    """Run ``steps`` in a loop, where no task may be left, nor a complaint."""

    async def watched() -> None:
        complaints: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: complaints.append(str(told)))
        await asyncio.wait_for(steps, 3 * PATIENCE)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left
        gc.collect()
        await asyncio.sleep(0)
        assert not complaints, complaints

    asyncio.run(watched())
