"""kazoo's connections, and its log.

kazoo leaves to its handler how a connection is made, and when it can be read. Here no connection
takes longer than it may, one can be cut from outside, without which kazoo can't be stopped while a
server is silent, nor be let go of without ending its session; and what is read passes by, so that
it is known when a server was heard last, and for how long it keeps a session, which kazoo does not
tell. Knows neither nodes nor sessions of ours.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
import struct
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

from distjob.clock import monotonic
from distjob_zookeeper.client.asking import Answer

log = logging.getLogger("distjob.zookeeper")

_GREETING = struct.Struct("!iii")
"""A server's first words: length, protocol, the session's timeout in ms."""


class Wire:
    """One connection, as kazoo has it."""

    def __init__(self, sock: socket.socket, begun: float, sockets: Sockets) -> None:
        self.begun = begun
        """Before it was made."""
        self.heard = 0.0
        """When something was read last; 0.0: never."""
        self.severed = False
        """kazoo will notice soon that it has ended."""
        self._sock = sock
        self._sockets = sockets
        self._greeting = b""

    def recv(self, size: int) -> bytes:
        data = self._sock.recv(size)
        self.heard = monotonic()
        if len(self._greeting) < _GREETING.size:
            self._greeting += data
            if len(self._greeting) >= _GREETING.size:
                self._sockets.greeted(_GREETING.unpack_from(self._greeting)[2] / 1000)
        return data

    def readable(self) -> bool:
        """Whether TLS has decrypted something already: no selector tells that."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def sever(self) -> None:
        """End it without a word to the server. Any thread."""
        self.severed = True
        with contextlib.suppress(OSError):  # it is closed already
            # On the plain socket: TLS would say goodbye, and wait for the answer.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Sockets(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's handler, for one client.

    ``patience``: seconds that connecting may take, and after it the greeting. ``needed``: seconds
    for which a server must keep a session; one that does not is left at once for the next, as
    sessions would end early there. ``tls``: None: kazoo makes the connection, as its client says.
    """

    def __init__(self, patience: float, needed: float, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self.wire: Wire | None = None
        """The connection that was made last."""
        self.granted = 0.0
        """Seconds for which the server that was met last keeps a session."""
        self.needed = needed
        self._patience = patience
        self._tls = tls
        self._pid = os.getpid()
        self._severed = False

    # -- for kazoo: see kazoo.interfaces.IHandler ------------------------------------------------

    def async_result(self) -> Answer:
        return Answer(self)

    def create_connection(self, *arguments: Any, **settings: Any) -> Wire:
        """Raises OSError."""
        begun = monotonic()
        wire = self.wire = Wire(self.connect(*arguments, **settings), begun, self)
        if self._severed:  # while it was being made
            wire.sever()
        return wire

    def select(self, rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None) -> Any:
        """As `select.select`."""
        wires = [one for one in rlist if isinstance(one, Wire)]
        if any(not wire.heard for wire in wires):  # kazoo gives the greeting all of the session
            timeout = self._patience if timeout is None else min(timeout, self._patience)
        waiting = [wire for wire in wires if wire.readable()]
        if not waiting:
            return super().select(rlist, wlist, xlist, timeout)
        readable, writable, broken = super().select(rlist, wlist, xlist, 0)
        return [*waiting, *(one for one in readable if one not in waiting)], writable, broken

    def stop(self) -> None:
        """Also called at exit: there a forked child has the threads' locks, but no threads."""
        if os.getpid() == self._pid:
            super().stop()

    # -- for us ----------------------------------------------------------------------------------

    def connect(
        self,
        address: tuple[str, int],
        hostname: str | None = None,
        timeout: float | None = None,
        **settings: Any,
    ) -> Any:
        """A connection, as a plain socket. Raises OSError."""
        if self._severed:
            msg = "this client was closed"
            raise ConnectionAbortedError(errno.ECONNABORTED, msg)
        patience = self._patience if timeout is None else min(timeout, self._patience)
        if self._tls is None:
            return super().create_connection(
                address, hostname=hostname, timeout=patience, **settings
            )
        made = socket.create_connection(address, patience)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._tls.wrap_socket(made, server_hostname=hostname)
        except (OSError, ValueError):
            made.close()
            raise

    def greeted(self, seconds: float) -> None:
        """A server keeps a session for so long; 0.0: the session has ended, which kazoo tells."""
        if seconds > 0:
            self.granted = seconds
        if short := self.too_short():
            raise ConnectionResetError(errno.ECONNRESET, short)

    def too_short(self) -> str:
        """That the server keeps sessions for too short, and what to do. Empty if it does not."""
        if not self.granted or self.granted >= self.needed * 0.999:
            return ""
        return (
            f"the server grants sessions of {self.granted:g} s at most, {self.needed:g} s are "
            "needed (1.8 times session.ttl, and 2 s): raise the server's maxSessionTimeout (20 "
            "times its tickTime unless set), or lower session.ttl"
        )

    def sever(self) -> None:
        """End the connection without a word to the server, and make no more. Any thread."""
        self._severed = True
        if (wire := self.wire) is not None:
            wire.sever()


class Notes(logging.Logger):
    """kazoo's logger. Nothing below a warning: kazoo would tell the password at DEBUG."""

    def __init__(self) -> None:
        super().__init__("distjob.zookeeper.kazoo", logging.WARNING)
        self.last = ""
        """The last complaint, to be given as a reason."""
        self.refused = ""
        """The server's word on our credentials, once it refused them."""
        self.addHandler(logging.NullHandler())

    def handle(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            said = f"{said}: {record.exc_info[1]}"
        if "AUTH_FAILED" in said:
            self.refused = said
        if not said.startswith(("Transition", "Session has expired")):
            self.last = said
        log.debug("kazoo: %s", said)
