"""Servers that are not there, are something else, hang, are full, or keep another's format."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from distjob import clock
from distjob.errors import BackendUnavailable, ConfigError, DistjobError
from distjob.store import ABSENT, Committed, Store, Versioned, Woken
from distjob.testing.contract.faults.base import TTL, Connect, Faults, failed, made, received
from distjob.testing.contract.faults.harness import Harness
from distjob.testing.contract.faults.proxy import Proxy
from distjob.testing.contract.helpers import committed, try_until

SAID = (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b"\xff\xff\xff\xff")
FULL = 400
"""Values of a hundred kilobytes after which a small server is full, at the latest."""


class Servers(Faults):
    """What is wrong is told soon, by whose fault it is, and with the server's name."""

    def test_nobody_listens(self, harness: Harness, connect: Connect) -> None:
        harness.need("network")
        with Proxy((harness.host, harness.port)) as nobody:
            nobody.refuse()
            begun = clock.monotonic()
            error = failed(lambda: connect(nobody.address, timeout=1.0))
            assert clock.monotonic() - begun < TTL / 2
            assert not error.unanswered
            assert nobody.address in str(error)
            nobody.accept()

    @pytest.mark.parametrize("says", SAID, ids=lambda says: repr(says[:5]))
    def test_something_else_listens(self, harness: Harness, connect: Connect, says: bytes) -> None:
        harness.need("network")
        with talking(says) as address:
            begun = clock.monotonic()
            with pytest.raises(DistjobError, match=address) as caught:
                connect(address, timeout=1.0)
            assert clock.monotonic() - begun < TTL / 2
            assert isinstance(caught.value, BackendUnavailable | ConfigError)

    def test_a_server_that_hangs_is_given_up_in_time(
        self, harness: Harness, connect: Connect
    ) -> None:
        harness.need("freeze")
        store = connect(timeout=1.0)
        me = store.open_session(3 * TTL, "me")
        harness.freeze()
        try:
            begun = clock.monotonic()
            assert not failed(lambda: store.read("vm")).unanswered
            failed(lambda: store.keep_alive(me))
            assert clock.monotonic() - begun < TTL / 2
        finally:
            harness.thaw()
        made(store, "vm", me)

    def test_a_full_server_still_lets_jobs_end(self, harness: Harness, connect: Connect) -> None:
        harness.need("small")
        store = connect(harness.small())
        me = store.open_session(3 * TTL, "me")
        held = store.commit("vm", ABSENT, b"x", me, (me,))
        assert isinstance(held, Committed)
        error = failed(lambda: fill(store, me))
        assert str(error)
        assert store.read("vm") == Versioned(held.version, b"x")
        assert store.keep_alive(me)
        assert isinstance(store.commit("vm", held.version, None, me, ()), Committed)

    def test_tls_with_certificates_of_both_sides(self, harness: Harness, connect: Connect) -> None:
        harness.need("secured")
        server = harness.secured()
        exercise(connect(server.address, **server.right))
        for wrong in server.wrong:
            begun = clock.monotonic()
            with pytest.raises(DistjobError) as caught:
                connect(server.address, timeout=1.0, **wrong)
            assert isinstance(caught.value, BackendUnavailable | ConfigError)
            assert clock.monotonic() - begun < TTL

    # -- what is in it ---------------------------------------------------------------------------

    def test_another_format_is_refused(
        self, harness: Harness, connect: Connect, namespace: str
    ) -> None:
        harness.need("reformat")
        connect()
        harness.reformat(namespace)
        with pytest.raises(ConfigError, match=r"(format|layout) 99.*(format|layout) \d"):
            connect()

    @pytest.mark.parametrize("more", ["x", ".vm", "-_"])
    def test_namespaces_are_kept_apart(
        self, harness: Harness, connect: Connect, namespace: str, more: str
    ) -> None:
        """Also where the name of one begins with another's."""
        harness.need("namespaces")
        short, long = connect(namespace=namespace), connect(namespace=namespace + more)
        mine, theirs = short.open_session(TTL, "mine"), long.open_session(TTL, "theirs")
        for vm in ("vm", more, f"{more}/vm", f"../{namespace}/vm"):
            committed(long, vm, b"theirs", theirs)
            assert short.read(vm) == Versioned(ABSENT, None)
        assert list(short.scan()) == []
        version = committed(short, "vm", b"mine", mine)
        assert dict(short.scan()) == {"vm": Versioned(version, b"mine")}
        assert {value.value for _, value in long.scan()} == {b"theirs"}

    def test_a_large_value_comes_back(self, connect: Connect) -> None:
        """It need not come with its wake-up."""
        store = connect()
        me = store.open_session(TTL, "me")
        value = b"x" * min(store.guarantees.largest_value or 1_000_000, 1_000_000)
        version = committed(store, "vm", value, me, me)
        told = received(store, me, Woken("vm", version, value), Woken("vm", version, None))
        assert len(told) == 1
        assert store.read("vm") == Versioned(version, value)
        assert dict(store.scan()) == {"vm": Versioned(version, value)}
        assert store.commit("vm", version, None, me, ()) is not None


def exercise(store: Store) -> None:
    """What a client does in its life."""
    me = store.open_session(TTL, "me")
    assert try_until(lambda: store.keep_alive(me))
    version = committed(store, "vm", b"x", me, me)
    received(store, me, Woken("vm", version, b"x"))
    assert [vm for vm, _ in store.scan()] == ["vm"]
    store.commit("vm", version, None, me, ())
    store.close_session(me)
    assert store.remaining([me]) == {me: 0.0}


def fill(store: Store, author: str) -> None:
    """Until it raises."""
    for number in range(FULL):
        store.commit(f"big-{number}", ABSENT, b"x" * 100_000, author, ())


@contextmanager
def talking(says: bytes) -> Iterator[str]:
    """The address of a server that answers whatever it is told with ``says``."""
    with ExitStack() as links, socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    link = links.enter_context(listener.accept()[0])
                    link.settimeout(0.2)
                    link.recv(1000)
                    link.sendall(says)
                except TimeoutError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve, name="talking", daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
