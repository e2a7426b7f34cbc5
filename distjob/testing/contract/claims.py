"""Claims: what a store says in its `Guarantees`, held against what it does."""

from __future__ import annotations

from collections.abc import Callable

from distjob.testing.contract.helpers import TTL, Connect, committed, increment


class Claims:
    """Durability, and versions that rise across the loss of all data. Nothing claimed: no test."""

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
        assert committed(again, "vm", b"x", again.open_session(TTL, "me")) > last

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
