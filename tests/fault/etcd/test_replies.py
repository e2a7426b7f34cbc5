"""Replies and requests that are lost: what may have been made is told as unanswered, and only that.

In threads and on asyncio.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from distjob import clock
from distjob.errors import DistjobError
from distjob.store import ABSENT, Stale, Store, Woken
from distjob.testing.contract import try_until
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.layout import lease_of
from on_etcd import TTL, failed, received
from proxy import Proxy
from servers import EtcdNode, wait_for

Connect = Callable[..., Store]


def test_a_lost_reply_is_unanswered_and_applied_once(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    for _ in range(5):  # etcd may give up a request with its connection, if that is cut early
        proxy.drop_next_reply(to=b"/vm/vm")
        assert failed(lambda: through.commit("vm", ABSENT, b"one", me, (me,))).unanswered
        assert proxy.dropped.is_set()
        found = try_until(lambda: through.read("vm"))  # the cut may be noticed by this one
        if found.value is not None:
            break
    assert found.value == b"one"
    assert through.commit("vm", ABSENT, b"two", me, ()) == Stale(found.version, b"one")
    events = received(through, me, Woken("vm", found.version, b"one"))
    assert [event for event in events if isinstance(event, Woken)] == events[-1:]


def test_a_lost_request_is_unanswered_too(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.drop_next_request(holding=b"/vm/vm")
    assert failed(lambda: through.commit("vm", ABSENT, b"one", me, ())).unanswered
    assert through.read("vm").value is None


def test_an_answer_that_takes_too_long_is_unanswered(connect: Connect, proxy: Proxy) -> None:
    store = connect(proxy.address, timeout=0.5)
    me = store.open_session(TTL, "me")
    proxy.stall()
    assert failed(lambda: store.commit("vm", ABSENT, b"one", me, ())).unanswered
    assert not failed(lambda: store.read("vm")).unanswered
    proxy.flow()


def test_nobody_there_is_not_unanswered(through: Store, proxy: Proxy) -> None:
    me = through.open_session(TTL, "me")
    proxy.refuse()
    failed(lambda: through.read("vm"))  # the connection was cut under it, perhaps
    for verb in (
        lambda: through.commit("vm", ABSENT, b"one", me, ()),
        lambda: through.keep_alive(me),
        lambda: through.close_session(me),
        lambda: through.open_session(TTL, "me"),
        lambda: through.remaining([me]),
    ):
        assert not failed(verb).unanswered
    proxy.accept()


@pytest.mark.parametrize("verb", ["grant", "enter", "keep_alive", "close_session"])
def test_session_verbs_say_that_they_are_unanswered(
    through: Store, proxy: Proxy, verb: str
) -> None:
    me = through.open_session(TTL, "me")
    renewal = rpc.LeaseKeepAliveRequest(ID=lease_of(me)).SerializeToString()
    grant = rpc.LeaseGrantRequest(TTL=3456).SerializeToString()
    calls: dict[str, tuple[bytes, Callable[[], object]]] = {
        "grant": (grant, lambda: through.open_session(3456.0, "me")),
        "enter": (b"/owner/", lambda: through.open_session(TTL, "me")),
        "keep_alive": (renewal, lambda: through.keep_alive(me)),
        "close_session": (renewal, lambda: through.close_session(me)),
    }
    holding, call = calls[verb]
    proxy.drop_next_reply(to=holding)
    assert failed(call).unanswered
    assert proxy.dropped.is_set()
    alive = try_until(lambda: through.keep_alive(me))  # on a new connection
    assert alive or verb == "close_session"  # which etcd may have given up with the connection


@pytest.mark.parametrize("holding", [b"/owner/", b"\x08\x02\x10"])
def test_a_session_whose_reply_was_lost_leaves_nothing(
    through: Store, proxy: Proxy, etcd_server: EtcdNode, holding: bytes
) -> None:
    def leases() -> set[str]:
        return set(re.findall(r"[0-9a-f]{14,16}", etcd_server.cli("lease", "list")))

    def granted() -> int:
        """How many it has ever granted."""
        with urllib.request.urlopen(f"http://{etcd_server.address}/metrics", timeout=10) as page:
            text = page.read().decode()
        found = re.search(r"(?m)^etcd_debugging_lease_granted_total (\S+)$", text)
        assert found
        return round(float(found[1]))

    before, earlier = leases(), granted()
    proxy.swallow_replies(to=holding)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(through.open_session, 2.0, "me")
        assert proxy.dropped.wait(10.0)
        wait_for(lambda: granted() == earlier + 1, "a lease")
        proxy.cut()
        assert failed(opening.result).unanswered
    wait_for(lambda: leases() <= before, "the lease to end")


# -- servers that are not there, or no servers --------------------------------------------------


def test_nobody_listens(connect: Connect) -> None:
    with Proxy(("127.0.0.1", 1)) as nobody:
        nobody.refuse()
        error = failed(lambda: connect(nobody.address))
        assert not error.unanswered
        assert re.match(rf"etcd at {nobody.address}: unavailable: ", str(error))
        nobody.accept()


@pytest.mark.parametrize(
    "says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n", b""]
)
def test_something_else_listens(connect: Connect, says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = listener.accept()
                    links.append(link)
                    link.recv(1000)
                    link.sendall(says)

        links: list[socket.socket] = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        begun = clock.monotonic()
        with pytest.raises(DistjobError, match=address):
            connect(address, timeout=0.5)
        assert clock.monotonic() - begun < 3.0
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5.0)
        for link in links:
            link.close()
