"""What kazoo leaves to its handler, done so that nothing lasts longer than it may.

`Sockets` makes kazoo's connections: with a bound on the time they take, with our own TLS context,
and so that they can be cut from outside, without which a `KazooClient` can't be stopped while a
server is silent, nor be let go of without ending its session. `Notes` is its logger: it keeps the
last complaint, as the reason to give, instead of printing each. Knows neither nodes nor sessions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

log = logging.getLogger("distjob.zookeeper")


class Sockets(SequentialThreadingHandler):  # type: ignore[misc]
    """A threading handler whose connections can be `sever`ed."""

    def __init__(self, patience: float, tls: ssl.SSLContext | None) -> None:
        super().__init__()
        self._patience = patience
        self._tls = tls
        self._pid = os.getpid()
        self._severed = False
        self._current: socket.socket | None = None

    def create_connection(
        self,
        address: tuple[str, int],
        hostname: str | None = None,
        timeout: float | None = None,
        **_settings: Any,
    ) -> socket.socket:
        """A connection made within the patience of this handler. Raises OSError."""
        if self._severed:
            msg = "this client was closed"
            raise ConnectionAbortedError(msg)
        patience = self._patience if timeout is None else min(timeout, self._patience)
        made = socket.create_connection(address, patience)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                made = self._tls.wrap_socket(made, server_hostname=hostname)
        except (OSError, ValueError):
            made.close()
            raise
        self._current = made
        self._heed()
        return made

    def select(self, rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None) -> Any:
        """As select does; what TLS has decrypted already counts as readable, too."""
        waiting = [one for one in rlist if isinstance(one, ssl.SSLSocket) and one.pending()]
        if not waiting:
            return super().select(rlist, wlist, xlist, timeout)
        readable, writable, broken = super().select(rlist, wlist, xlist, 0)
        return [*waiting, *(one for one in readable if one not in waiting)], writable, broken

    def _heed(self) -> None:
        if self._severed:  # while this connection was being made
            self.sever()

    def sever(self) -> None:
        """End the connection without a word to the server, and make no more. Any thread."""
        self._severed = True
        if (current := self._current) is not None:
            with contextlib.suppress(OSError):  # it is closed already
                # On the plain socket: TLS would say goodbye, and wait for the answer.
                socket.socket.shutdown(current, socket.SHUT_RDWR)

    def stop(self) -> None:
        """Also called at exit: there a forked child has the threads' locks, but no threads."""
        if os.getpid() == self._pid:
            super().stop()


class Notes(logging.Logger):
    """kazoo's logger. Nothing below a warning: kazoo would tell the password at DEBUG."""

    def __init__(self) -> None:
        super().__init__("distjob.zookeeper.kazoo", logging.WARNING)
        self.last = ""
        """The last complaint."""
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


def tls_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """A context that verifies chain and host name. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if cert_file:
        context.load_cert_chain(cert_file, key_file or None, password=lambda: "")
    return context
