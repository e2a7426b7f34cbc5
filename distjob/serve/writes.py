"""What somebody with a token may change: ask to abort, discard, break by force.

It decides that the owner of a job, and the log, are told who asked.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from distjob import clock
from distjob.aio import AsyncClient
from distjob.errors import DistjobError
from distjob.protocol.look import JobStatus
from distjob.serve.people import People
from distjob.serve.watcher import Watcher

if TYPE_CHECKING:
    from starlette.requests import Request

log = logging.getLogger("distjob.serve")

LARGEST = 65_536
"""Bytes of a request's body."""
ABORT_WAIT = 10.0
"""Seconds that an abort waits in line until it can be asked."""


class Abort(msgspec.Struct, forbid_unknown_fields=True):
    vm: str
    reason: str = ""


class Discard(msgspec.Struct, forbid_unknown_fields=True):
    vm: str


class Evict(msgspec.Struct, forbid_unknown_fields=True):
    vm: str
    tickets: list[str]


Wish = TypeVar("Wish", Abort, Discard, Evict)


class Writes:
    """The requests that change something; ``people`` None: there are none."""

    def __init__(self, watcher: Watcher, people: People | None) -> None:
        self._watcher = watcher
        self._people = people

    async def me(self, request: Request) -> Response:
        """Whose token it is."""
        return JSONResponse({"name": self._who(request)})

    async def abort(self, request: Request) -> Response:
        """Ask the VM's async job to stop; its owner is told who asked."""

        async def do(client: AsyncClient, who: str, wish: Abort) -> list[JobStatus]:
            reason = f"{who}: {wish.reason}" if wish.reason else f"asked by {who}"
            api = f"abort by {who}"
            return [await client.abort(wish.vm, reason=reason, api=api, wait=ABORT_WAIT)]

        return await self._do(request, Abort, do)

    async def discard(self, request: Request) -> Response:
        """End the VM's async job, which has no owner."""

        async def do(client: AsyncClient, _: str, wish: Discard) -> list[JobStatus]:
            return [await client.discard(wish.vm)]

        return await self._do(request, Discard, do)

    async def evict(self, request: Request) -> Response:
        """Break jobs by force."""

        async def do(client: AsyncClient, _: str, wish: Evict) -> list[JobStatus]:
            return list(await client.evict(wish.vm, wish.tickets))

        return await self._do(request, Evict, do)

    async def _do(
        self,
        request: Request,
        kind: type[Wish],
        do: Callable[[AsyncClient, str, Wish], Awaitable[list[JobStatus]]],
    ) -> Response:
        who = self._who(request)
        wish = await _wish(request, kind)
        picture = await self._watcher.fresh()  # by then it has tried to connect
        client = self._watcher.client
        if client is None:
            raise HTTPException(503, picture.trouble)
        what = f"{kind.__name__.lower()} on VM {wish.vm!r} by {who}"
        try:
            jobs = await do(client, who, wish)
        except DistjobError as error:
            log.warning("%s failed: %s", what, error)
            raise
        finally:
            self._watcher.look_soon()
        log.warning("%s: %s", what, ", ".join(f"{j.job} of {j.controller}" for j in jobs) or "none")
        now = clock.wall()
        data = msgspec.to_builtins(jobs)
        return JSONResponse({"by": who, "now": now, "jobs": data})

    def _who(self, request: Request) -> str:
        if self._people is None:
            raise HTTPException(403, "this server only shows: it was started without --tokens")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        who = self._people.who(token.strip()) if scheme.lower() == "bearer" else None
        if who is None:
            if token:
                log.warning("a wrong token was given to %s", request.url.path)
            text = "this needs a token that is known here: Authorization: Bearer TOKEN"
            raise HTTPException(401, text, {"www-authenticate": 'Bearer realm="distjob"'})
        return who


async def _wish(request: Request, kind: type[Wish]) -> Wish:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise HTTPException(413, f"more than {LARGEST} bytes")
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "the body must be JSON, and its content type application/json")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise HTTPException(400, f"the body is not what it must be: {error}") from None
