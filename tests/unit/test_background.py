"""Nothing but the store's silence costs a client its leases: a heart that renews, hands, callbacks.

Each of the three is held up or broken here, and the heart goes on. On asyncio the user's callbacks
are called in the loop itself, so that one which blocks it can't be borne.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import zlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from distjob import Client, Job, clock
from distjob.aio import AsyncClient
from distjob.config import load, open_backend, open_backend_async
from distjob.protocol.holdings import Holdings
from distjob.store import AsyncStore, Committed, Reply, Store
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from keeping import keep

PATIENCE = 20.0
TTL = 0.5
Connect = Callable[[], Store]
ConnectAsync = Callable[[], Awaitable[AsyncStore]]


@pytest.fixture(params=["memory", "sqlite"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Connect:
    if request.param == "memory":
        return partial(MemoryStore, MemoryServer())
    settings = load({"sqlite": {"path": str(tmp_path / "jobs.db")}, "session": {"ttl": TTL}})
    return partial(open_backend, settings)


@pytest.fixture(params=["memory", "sqlite"])
def connect_async(request: pytest.FixtureRequest, tmp_path: Path) -> ConnectAsync:
    if request.param == "memory":
        return partial(AsyncMemoryStore.connect, MemoryServer())
    settings = load({"sqlite": {"path": str(tmp_path / "jobs.db")}, "session": {"ttl": TTL}})
    return partial(open_backend_async, settings)


class Beats:
    """Counts how often sessions were renewed, since the tests ask for so many beats to pass."""

    def __init__(self, store: Any) -> None:
        self.count = 0
        self._beat = threading.Condition()
        self._honest = store.keep_alive
        store.keep_alive = self._keep_alive

    def _keep_alive(self, session: str) -> bool:
        alive: bool = self._honest(session)
        with self._beat:
            self.count += 1
            self._beat.notify_all()
        return alive

    def wait(self, more: int) -> None:
        with self._beat:
            goal = self.count + more
            assert self._beat.wait_for(lambda: self.count >= goal, PATIENCE)


def test_a_callback_of_two_ttls_loses_no_lease(connect: Connect) -> None:
    store = connect()
    beats, started, free = Beats(store), threading.Event(), threading.Event()

    def slow(_: object) -> None:
        started.set()
        assert free.wait(PATIENCE)

    with Client(store, ttl=TTL) as jobs, Client(connect(), ttl=TTL) as other:
        long = jobs.begin_async("vm", "backup")
        lease = jobs.begin("other", Job.MODIFY)
        long.on_abort(slow)
        other.abort("vm")
        assert started.wait(PATIENCE)
        before = clock.monotonic()
        beats.wait(7)  # three are due in each TTL
        assert clock.monotonic() - before > 1.5 * TTL
        lease.check()
        long.check()
        assert long.abort_requested is not None
        jobs.begin("third", Job.MODIFY).end()
        free.set()


def test_a_chore_that_hangs_does_not_stop_renewal(connect: Connect) -> None:
    """The hands are in a commit that the store never answers."""
    store: Any = connect()
    beats, hangs, free = Beats(store), threading.Event(), threading.Event()
    honest = store.commit

    def commit(*given: Any) -> Reply:
        if threading.current_thread().name == "distjob-chores":
            hangs.set()
            assert free.wait(PATIENCE)
        reply: Reply = honest(*given)
        return reply

    with Client(store, ttl=TTL) as jobs:
        lease, left = jobs.begin("vm", Job.MODIFY), jobs.begin("left", Job.MODIFY)
        store.commit = commit
        jobs._me.leave("left", left._held.ticket.id)
        assert hangs.wait(PATIENCE)
        beats.wait(7)
        lease.check()
        jobs.begin("third", Job.MODIFY).end()
        free.set()


def deep_value() -> bytes:
    """Its checksum is right, and it is deeper than any decoder goes."""
    progress = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    deep = b'{"async":{"progress":' + progress + b"}}"
    return b"distjob/1 %08x " % zlib.crc32(deep) + deep


def test_a_value_that_is_too_deep_does_not_end_the_background(connect: Connect) -> None:
    store, hand = connect(), connect()
    beats, heard = Beats(store), threading.Event()
    with Client(store, ttl=TTL) as jobs, Client(connect(), ttl=TTL) as other:
        long, session = jobs.begin_async("vm", "backup"), jobs._me.session
        assert session is not None
        keep(jobs.begin("poisoned", Job.MODIFY))
        long.on_abort(lambda _: heard.set())
        version = hand.read("poisoned").version
        mine = hand.open_session(60.0, "hand")
        reply = hand.commit("poisoned", version, deep_value(), mine, {session.id})
        assert isinstance(reply, Committed)
        beats.wait(4)
        other.abort("vm")
        assert heard.wait(PATIENCE)
        long.check()
        hand.commit("poisoned", reply.version, None, mine, ())
    hand.close_session(mine)
    hand.close()


def test_the_hands_outlive_any_error(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    honest, broken = Holdings.judge, threading.Event()

    def judge(self: Holdings, *given: Any) -> None:
        if threading.current_thread().name == "distjob-chores" and not broken.is_set():
            broken.set()
            raise ZeroDivisionError("a bug of ours")
        honest(self, *given)

    heard = threading.Event()
    with Client(connect(), ttl=TTL) as jobs, Client(connect(), ttl=TTL) as other:
        keep(jobs.begin("vm", Job.MODIFY))
        long = jobs.begin_async("long", "backup")
        long.on_abort(lambda _: heard.set())
        monkeypatch.setattr(Holdings, "judge", judge)
        with caplog.at_level(logging.ERROR, "distjob"):
            with jobs._runner.lock:
                jobs._me.holdings.suspect("vm")
            other.abort("long")
            assert broken.wait(PATIENCE)
            assert heard.wait(PATIENCE)
        assert "ZeroDivisionError: a bug of ours" in caplog.text
        long.check()


class _Hanging:
    """Commits of ``store`` hang while they are told to; renewals do not."""

    hangs = False
    beats = 0

    def __init__(self, store: Any) -> None:
        self._keep_alive, self._commit = store.keep_alive, store.commit
        store.keep_alive, store.commit = self.keep_alive, self.commit

    async def keep_alive(self, session: str) -> bool:
        self.beats += 1
        alive: bool = await self._keep_alive(session)
        return alive

    async def commit(self, *given: Any) -> Reply:
        while self.hangs:
            await asyncio.sleep(0.005)
        reply: Reply = await self._commit(*given)
        return reply


def test_on_asyncio_a_chore_that_hangs_does_not_stop_renewal(connect_async: ConnectAsync) -> None:
    async def steps() -> None:
        opened = await connect_async()
        store = _Hanging(opened)
        async with AsyncClient(opened, ttl=TTL) as jobs:
            lease, left = await jobs.begin("vm", Job.MODIFY), await jobs.begin("left", Job.MODIFY)
            store.hangs, goal = True, store.beats + 7
            jobs._me.leave("left", left._held.ticket.id)
            async with asyncio.timeout(PATIENCE):
                while store.beats < goal:
                    await asyncio.sleep(0.01)
            lease.check()
            store.hangs = False

    asyncio.run(steps())
