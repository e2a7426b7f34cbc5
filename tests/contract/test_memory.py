"""The in-memory store, against the contract."""

from __future__ import annotations

import pytest

from distjob.store import Ended
from distjob.testing.contract import PATIENCE, TTL, Connect, StoreContract
from distjob.testing.memory import MemoryServer, MemoryStore


class TestMemory(StoreContract):
    @pytest.fixture
    def connect(self) -> Connect:
        server = MemoryServer()
        return lambda: MemoryStore(server)

    def test_ended_is_pushed(self, connect: Connect) -> None:
        store, other = connect(), connect()
        me = store.open_session(TTL, "me")
        closing, expiring = other.open_session(TTL, "closing"), other.open_session(0.3, "expiring")
        store.remaining([closing, expiring])
        other.close_session(closing)
        assert store.receive(me, PATIENCE) == [Ended(session=closing)]
        assert store.receive(me, PATIENCE) == [Ended(session=expiring)]


def test_the_server_runs_in_virtual_time() -> None:
    now = [100.0]
    server = MemoryServer(clock=lambda: now[0])
    session, watcher = server.open_session(10.0, "me"), server.open_session(1000.0, "watcher")
    assert server.remaining([session], watcher=watcher) == {session: 10.0}
    now[0] += 9.0
    assert server.keep_alive(session)
    assert server.quiet_for(watcher) == 10.0
    assert server.take(watcher) == []
    now[0] += 10.0
    assert server.take(watcher) == [Ended(session=session)]
    assert not server.keep_alive(session)
    now[0] -= 10.0
    assert server.remaining([session]) == {session: 0.0}, "a clock set back revives no session"
