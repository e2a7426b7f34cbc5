"""Two things that kazoo does not tell: the session timeout a server grants, and its own state.

Each on a short connection of its own, made by the client's handler with the client's TLS settings.
Knows neither nodes nor values.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from kazoo.client import KazooClient

_CONNECT = struct.Struct("!iiqiqi16sB")
"""Length, protocol, last zxid, timeout in ms, session, length of its password, that, read-only."""
_CONNECTED = struct.Struct("!iii")
"""Length, protocol, timeout in ms."""
_CLOSE = struct.pack("!iii", 8, 1, -11)


def granted_timeout(client: KazooClient, host: tuple[str, int], asked: float, wait: float) -> float:
    """Seconds that the server grants a session which asks for ``asked``. Raises OSError."""
    with _connect(client, host, wait) as sock:
        body = _CONNECT.size - 4
        sock.sendall(_CONNECT.pack(body, 0, 0, round(asked * 1000), 0, 16, b"\0" * 16, 0))
        _, _, granted_ms = _CONNECTED.unpack(_exactly(sock, _CONNECTED.size))
        sock.sendall(_CLOSE)
    return float(granted_ms) / 1000


def command(client: KazooClient, host: tuple[str, int], word: str, wait: float) -> str:
    """What the server answers to a four-letter word. Raises OSError."""
    with _connect(client, host, wait) as sock:
        sock.sendall(word.encode())
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


def _connect(client: Any, host: tuple[str, int], wait: float) -> socket.socket:
    made: socket.socket = client.handler.create_connection(
        host,
        hostname=host[0],
        timeout=wait,
        use_ssl=client.use_ssl,
        ca=client.ca,
        certfile=client.certfile,
        keyfile=client.keyfile,
        keyfile_password=client.keyfile_password,
        verify_certs=client.verify_certs,
        check_hostname=client.check_hostname,
    )
    made.settimeout(wait)
    return made


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            msg = "the server closed the connection"
            raise ConnectionResetError(msg)
        data += part
    return data
