"""Four-letter words: what a server tells of itself to whoever asks, on a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kazoo.client import KazooClient


def command(client: KazooClient, host: tuple[str, int], word: str, seconds: float) -> str:
    """What the server at ``host`` answers, within ``seconds``. Raises OSError."""
    with client.handler.connect(host, hostname=host[0], timeout=seconds, **_tls_of(client)) as sock:
        sock.settimeout(seconds)
        sock.sendall(word.encode())
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


def _tls_of(client: KazooClient) -> dict[str, object]:
    """As kazoo passes it to its handler."""
    names = ("use_ssl", "ca", "certfile", "keyfile", "keyfile_password")
    return {name: getattr(client, name) for name in (*names, "verify_certs", "check_hostname")}
