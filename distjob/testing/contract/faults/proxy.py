"""A TCP proxy on loopback that loses what it is told to lose: requests, replies, connections.

One thread moves all bytes; every switch is set in that thread, so that it holds from the moment
its call returns. What a client sends at once counts as one request. Knows no protocol.
"""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards 127.0.0.1:``port`` to ``target`` until it is closed."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._poke, self._poked = socket.socketpair()
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]]
        self._orders = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._poked, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._doomed: set[socket.socket] = set()
        self._lose_request: bytes | None = None
        self._lose_reply: bytes | None = None
        self._silent = False
        """Whether a connection whose reply was dropped stays, as one that hangs."""
        self._stalled = False
        self._closed = False
        self._hold: bytes | None = None
        self.requests = 0
        """How often something has come from a client."""
        self._held: list[tuple[socket.socket, socket.socket, bytes]] = []
        self.holding = threading.Event()
        """Set when the request that was to be held is."""
        self.dropped = threading.Event()
        """Set when the request or reply that was to be dropped has been."""
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def drop_next_reply(self, to: bytes = b"") -> None:
        """Forward the next request that holds ``to``, swallow its reply, cut the connection."""

        def arm() -> None:
            self._lose_reply, self._silent = to, False

        self._order(arm)

    def swallow_replies(self, to: bytes = b"") -> None:
        """Forward the next request that holds ``to``, and nothing in return until `cut`."""

        def arm() -> None:
            self._lose_reply, self._silent = to, True

        self._order(arm)

    def drop_next_request(self, holding: bytes = b"") -> None:
        """Swallow the next request that holds ``holding`` and cut the connection."""

        def arm() -> None:
            self._lose_request = holding

        self._order(arm)

    @property
    def address(self) -> str:
        """As clients name it."""
        return f"127.0.0.1:{self.port}"

    def hold_next_request(self, holding: bytes = b"") -> None:
        """Keep the next request that holds ``holding``; its connection hangs from then on."""

        def arm() -> None:
            self._hold = holding

        self._order(arm)

    def release(self) -> None:
        """Send on what was held, late. Nothing else that was sent on its connection arrives."""

        def release() -> None:
            for _, server, data in self._held:
                server.sendall(data)

        self._order(release)

    def stall(self) -> None:
        """Forward nothing, accept nobody, cut nothing: a cable that was pulled."""

        def stop() -> None:
            self._stalled = True

        self._order(stop)

    def flow(self) -> None:
        """End `stall`; what was sent meanwhile arrives late."""

        def go() -> None:
            self._stalled = False

        self._order(go)

    def cut(self) -> None:
        """End all connections; new ones are welcome. What is held may still be released."""
        self._order(self._cut_all)

    def refuse(self) -> None:
        """End all connections and refuse new ones."""

        def refuse() -> None:
            self._cut_all()
            self._selector.unregister(self._listener)
            self._listener.close()

        self._order(refuse)

    def accept(self) -> None:
        """End `refuse`, on the same port."""

        def accept() -> None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._selector.register(self._listener, selectors.EVENT_READ)

        self._order(accept)

    def close(self) -> None:
        """Cut everything and end the thread."""

        def end() -> None:
            self._cut_all()
            self._closed = True

        self._order(end)
        self._thread.join()
        for client, server, _ in self._held:
            client.close()
            server.close()
        for one in (self._listener, self._poke, self._poked):
            one.close()
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _order(self, order: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.put((order, done))
        self._poke.send(b"!")
        done.wait()

    def _run(self) -> None:
        while not self._closed:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._poked in ready or self._stalled:
                self._poked.recv(1)
                order, done = self._orders.get()
                order()
                done.set()
                continue
            for one in ready:
                if one is self._listener:
                    self._welcome()
                elif isinstance(one, socket.socket) and one in self._peers:
                    self._forward(one)

    def _welcome(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self._clients.add(client)
        self._peers |= {client: server, server: client}
        for one in (client, server):
            self._selector.register(one, selectors.EVENT_READ)

    def _forward(self, one: socket.socket) -> None:
        try:
            data = one.recv(1 << 16)
        except OSError:
            data = b""
        self.requests += bool(data) and one in self._clients
        lost = bool(data) and self._lost(one, data)
        if not data or (lost and not (self._silent and one in self._doomed)):
            self._cut(one)
        if not data or lost:
            return
        if self._hold is not None and one in self._clients and self._hold in data:
            self._hold = None
            self._held.append((one, self._peers[one], data))
            self._let_go(one)
            self.holding.set()
            return
        with contextlib.suppress(OSError):  # its own end will be read and cut
            self._peers[one].sendall(data)

    def _lost(self, one: socket.socket, data: bytes) -> bool:
        lost = False
        if one not in self._clients:
            lost = one in self._doomed
        elif self._lose_request is not None and self._lose_request in data:
            self._lose_request, lost = None, True
        elif self._lose_reply is not None and self._lose_reply in data:
            self._lose_reply = None
            self._doomed.add(self._peers[one])
        if lost:
            self.dropped.set()
        return lost

    def _cut(self, one: socket.socket) -> None:
        for end in self._let_go(one):
            end.close()

    def _let_go(self, one: socket.socket) -> tuple[socket.socket, socket.socket]:
        ends = one, self._peers[one]
        for end in ends:
            self._selector.unregister(end)
            del self._peers[end]
            self._clients.discard(end)
            self._doomed.discard(end)
        return ends

    def _cut_all(self) -> None:
        for client in list(self._clients):
            self._cut(client)
        for client, _, _ in self._held:
            client.close()
