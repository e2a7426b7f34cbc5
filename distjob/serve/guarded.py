"""What every answer carries, and whom none is given: browsers led here by another site.

A page of another site whose name is made to lead here (DNS rebinding) would read all that this
user can: so a server on the loopback answers to loopback names, and those it was told, alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guarded:
    """An application, with these headers, for these names of this host; None: for any."""

    def __init__(self, app: ASGIApp, names: Collection[str] | None) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        host = _name(Headers(scope=scope).get("host", ""))
        if self._names is None or host in self._names:
            await self._app(scope, receive, guarded)
        else:
            text = f"this server is not {host or 'without a name'}: see --allow-host"
            await JSONResponse({"error": text}, 421)(scope, receive, guarded)


def _name(host: str) -> str:
    """Without the port; empty if it can't be one."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
