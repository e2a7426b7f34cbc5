"""Claims: what a store says in its `Guarantees`, held against what it does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from distjob import clock
from distjob.errors import RecordError
from distjob.store import ABSENT, Committed, Ended, Store, Versioned
from distjob.testing.contract.helpers import (
    PATIENCE,
    TTL,
    Connect,
    Receiving,
    committed,
    increment,
    try_until,
    wait_until_ended,
)

_READ_ELSEWHERE = """
import json, sys
from distjob.config import load, open_backend
store = open_backend(load(json.loads(sys.argv[1])))
print(store.read("vm").version)
store.close()
"""
_OPEN_AND_DIE = """
import json, os, sys
from distjob.config import load, open_backend
store = open_backend(load(json.loads(sys.argv[1])))
print(store.open_session(float(sys.argv[2]), "dies"), flush=True)
sys.stdin.read()
os._exit(0)
"""


class Claims:
    """Each field of `Guarantees` has its test; a claim that needs a server's help, its fixture."""

    def test_reach(self, store: Store, me: str, settings: Mapping[str, Any] | None) -> None:
        """That other hosts reach it, too, is the server's; here another process does."""
        if store.guarantees.reach == "process":
            return
        assert settings is not None, "the store claims reach: override the fixture `settings`"
        version = committed(store, "vm", b"x", me)
        command = [sys.executable, "-c", _READ_ELSEWHERE, json.dumps(settings)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert int(done.stdout) == version

    def test_durable(self, connect: Connect, restart: Callable[[], None] | None) -> None:
        store = connect()
        if not store.guarantees.durable:
            return
        assert restart is not None, "the store claims `durable`: override the fixture `restart`"
        me = store.open_session(TTL, "me")
        kept = {f"vm-{n}": committed(store, f"vm-{n}", b"%d" % n, me) for n in range(20)}
        last = committed(store, "vm-0", None, me)
        del kept["vm-0"]
        store.close()
        restart()
        again = connect()
        assert {vm: found.version for vm, found in again.scan()} == kept
        assert committed(again, "vm-0", b"x", again.open_session(TTL, "me")) > last

    def test_versions_survive_loss(self, connect: Connect, lose: Callable[[], None] | None) -> None:
        store = connect()
        if not store.guarantees.versions_survive_loss:
            return
        assert lose is not None, "the store claims `versions_survive_loss`: override `lose`"
        me = store.open_session(TTL, "me")
        last = max(increment(store, "vm", me, 50))
        store.close()
        lose()
        again = connect()
        assert list(again.scan()) == []
        assert not again.keep_alive(me)
        assert committed(again, "vm", b"x", again.open_session(TTL, "me")) > last

    def test_failover(self, connect: Connect, fail_over: Callable[[], None] | None) -> None:
        """Another server takes over, and the store goes on; with all it had, if it says so."""
        store = connect()
        claimed = store.guarantees.failover
        if claimed == "none":
            return
        assert fail_over is not None, "the store claims `failover`: override `fail_over`"
        me = store.open_session(3 * TTL, "me")
        kept = {f"vm-{n}": committed(store, f"vm-{n}", b"%d" % n, me) for n in range(10)}
        fail_over()
        assert try_until(lambda: store.read("vm-0")) is not None
        if claimed == "quorum":
            assert try_until(lambda: store.keep_alive(me))
            assert {vm: found.version for vm, found in store.scan()} == kept
            author = me
        else:
            author = try_until(lambda: store.open_session(TTL, "me"))
        again = try_until(lambda: committed(store, "vm-0", b"again", author))
        assert again > kept["vm-0"]
        assert connect().read("vm-0") == Versioned(version=again, value=b"again")

    def test_ends_are_told(self, connect: Connect) -> None:
        store, other = connect(), connect()
        if store.guarantees.ends != "told":
            return
        session, watched = store.open_session(TTL, "me"), other.open_session(TTL, "watched")
        assert list(store.receive(session, 0.0)) == []
        assert store.remaining([watched])[watched] > 0
        receiving = Receiving(store, session, PATIENCE)
        other.close_session(watched)
        assert receiving.result() == [Ended(session=watched)]
        assert receiving.seconds < 2
        assert store.remaining([watched]) == {watched: 0.0}

    def test_grace(self, store: Store, short: float, settings: Mapping[str, Any] | None) -> None:
        """A process that dies leaves a session that lives no longer than is said."""
        if store.guarantees.reach == "process":
            return
        assert settings is not None, "the store claims reach: override the fixture `settings`"
        settings = {"session": {"ttl": max(short, 2.0)}, **settings}
        command = [sys.executable, "-c", _OPEN_AND_DIE, json.dumps(settings), str(short)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                session = process.stdout.readline().strip()
                assert store.remaining([session])[session] > 0
            finally:
                begun = clock.monotonic()
                process.kill()
        wait_until_ended(store, session, PATIENCE + short + store.guarantees.grace)
        assert clock.monotonic() - begun < short + store.guarantees.grace + 1

    def test_idle_vms_leave_no_more_than_is_said(
        self, store: Store, me: str, entries: Callable[[], int] | None
    ) -> None:
        if entries is None:
            assert store.guarantees.reach == "process", "override the fixture `entries`"
            return
        committed(store, "vm", None, me)
        before = entries()
        for number in range(20):
            committed(store, f"vm-{number}", b"x", me)
            committed(store, f"vm-{number}", None, me)
        left = 20 if store.guarantees.idle == "an empty node" else 0
        assert entries() == before + left

    def test_largest_value(self, store: Store, me: str) -> None:
        if (largest := store.guarantees.largest_value) is None:
            return
        reply = store.commit("vm", ABSENT, b"x" * largest, me, (me,))
        assert isinstance(reply, Committed)
        with pytest.raises(RecordError, match="'vm'"):
            store.commit("vm", reply.version, b"x" * (largest + 1), me, (me,))
        value = b"x" * largest
        assert store.read("vm") == Versioned(version=reply.version, value=value)
        assert store.keep_alive(me)

    def test_push_means_that_nobody_asks(
        self, store: Store, me: str, asked: Callable[[], int] | None
    ) -> None:
        if store.guarantees.wakes != "push" or store.guarantees.reach == "process":
            return
        assert asked is not None, "the store claims `push`: override the fixture `asked`"
        assert list(store.receive(me, 0.0)) == []
        before = asked()
        assert list(store.receive(me, 1.0)) == []
        assert asked() - before <= 2
        receiving = Receiving(store, me, PATIENCE)
        threading.Event().wait(0.1)
        version = committed(store, "vm", b"x", me, me)
        assert [getattr(event, "version", 0) for event in receiving.result()] == [version]
