"""Stores that are broken, one for each of some sentences: the fault contract sees it.

That the sentences hold for the same stores as they are is shown by the contract's own runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from distjob.backend.opened import Blocking
from distjob.errors import BackendUnavailable
from distjob.store import AsyncStore, Event, Reply, Store, Versioned
from distjob.testing.contract import FaultContract
from distjob.testing.contract.faults import At, Harness, cancelled, forks
from distjob.testing.contract.faults.proxy import Proxy
from distjob.testing.memory import AsyncMemoryStore, MemoryFeed, MemoryServer, MemoryStore
from servers import EtcdNode

CONTRACT = FaultContract()
BROKEN = (AssertionError, pytest.fail.Exception)


class Honest(Blocking):
    """A store of which one verb is to be broken."""

    def __init__(self, store: Any) -> None:
        super().__init__(store.verbs)


class DeniesWhatMayBe(Honest):
    """Says that nothing was made when a reply was lost."""

    def commit(self, *given: Any) -> Reply:
        try:
            return super().commit(*given)
        except BackendUnavailable as error:
            raise BackendUnavailable(str(error)) from error


class SendsTwice(Honest):
    """Sees to it that what was sent is made."""

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        try:
            return super().commit(vm, expected, value, author, wake)
        except BackendUnavailable:
            super().commit(vm, self.read(vm).version, value, author, wake)
            raise


class DoubtsItsReading(Honest):
    """Says of a read, too, that something may have been made."""

    def read(self, vm: str) -> Versioned:
        try:
            return super().read(vm)
        except BackendUnavailable as error:
            raise BackendUnavailable(str(error), unanswered=True) from error


class SettlesNothing(Honest):
    def settle(self, session: str) -> None:
        """Return at once."""


class KeepsOldMail(Honest):
    """Gives what is left of a session to the next one."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._kept: list[Event] = []

    def close_session(self, session: str) -> None:
        self._kept += super().receive(session, 0.2)
        super().close_session(session)

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        kept, self._kept = self._kept, []
        return kept or super().receive(session, timeout)


class EtcdHarness(Harness):
    def section(self, at: At) -> tuple[str, dict[str, Any]]:
        return "etcd", {"endpoints": [at.address], "timeout": at.timeout}


@pytest.fixture
def proxy(etcd_server: EtcdNode) -> Iterator[Proxy]:
    with Proxy((etcd_server.host, etcd_server.port)) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: Proxy, fresh_namespace: str) -> Iterator[Callable[..., Store]]:
    """Opens a store on etcd, behind the proxy; ``broken`` says how."""
    stores: list[Store] = []

    def connect(broken: type[Honest], timeout: float = 2.0) -> Store:
        at = At(address=proxy.address, namespace=fresh_namespace, ttl=10.0, timeout=timeout)
        stores.append(EtcdHarness().opened(at))
        return broken(stores[-1])

    yield connect
    for store in stores:
        store.close()


@pytest.mark.parametrize("broken", [DeniesWhatMayBe, SendsTwice])
def test_a_lost_reply(connect: Callable[..., Store], proxy: Proxy, broken: type[Honest]) -> None:
    with pytest.raises(BROKEN):
        CONTRACT.test_a_lost_reply_is_unanswered_and_applied_once(
            lambda _, timeout: connect(broken, timeout), proxy, "silent"
        )


def test_reading(connect: Callable[..., Store], proxy: Proxy) -> None:
    with pytest.raises(BROKEN):
        CONTRACT.test_reading_is_never_unanswered(
            lambda _, timeout: connect(DoubtsItsReading, timeout), proxy
        )


def test_a_settling(connect: Callable[..., Store], proxy: Proxy) -> None:
    with pytest.raises(BROKEN):
        CONTRACT.test_a_commit_that_is_held_back_arrives_after_a_settling_and_is_not_made(
            lambda _, timeout: connect(SettlesNothing, timeout), proxy
        )


def test_wake_ups_of_an_earlier_session() -> None:
    server = MemoryServer()

    with pytest.raises(BROKEN):
        CONTRACT.test_wake_ups_of_an_earlier_session_are_dropped(
            lambda: KeepsOldMail(MemoryStore(server))
        )


def test_a_forked_child(
    tmp_path: Path, fresh_namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SqliteHarness(Harness):
        def section(self, at: At) -> tuple[str, dict[str, Any]]:
            return "sqlite", {"path": str(tmp_path / "jobs.db"), "busy_timeout": at.timeout}

    unaware = "from distjob.backend.life import Life\nLife.forked = False\n"
    monkeypatch.setattr(forks, "_THREADS", unaware + forks._THREADS)
    with pytest.raises(BROKEN, match="a child has used the store of its parent"):
        CONTRACT.test_a_forked_child_does_not_hang_nor_disturb(
            SqliteHarness(), fresh_namespace, "verbs"
        )


def test_a_cancelled_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a feed that awaits something when it has taken an event out."""
    server, take = MemoryServer(), MemoryFeed.take

    @asynccontextmanager
    async def opened() -> Any:
        store: AsyncStore = AsyncMemoryStore(server)
        try:
            yield store
        finally:
            await store.close()

    async def careless(self: MemoryFeed) -> Sequence[tuple[str, Event]]:
        events = await take(self)
        await asyncio.sleep(0.02)
        return events

    monkeypatch.setattr(cancelled, "PATIENCE", 2.0)
    monkeypatch.setattr(MemoryFeed, "take", careless)
    with pytest.raises((*BROKEN, TimeoutError)):
        CONTRACT.test_a_cancelled_receive_loses_no_event(opened)
