"""What is answered at which address.

It decides the addresses, and which error is which status. All that is read comes from the watcher's
picture; only what writes.py does goes to the store by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Collection
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from distjob import clock
from distjob.drive.names import check_vm
from distjob.errors import (
    BackendUnavailable,
    BadRequest,
    ClientClosed,
    DistjobError,
    JobTimeout,
    NotOwner,
    OutcomeUnknown,
    QueueFull,
    WrongJob,
)
from distjob.serve.exposition import CONTENT_TYPE, exposition
from distjob.serve.guarded import Guarded
from distjob.serve.people import People
from distjob.serve.watcher import Watcher
from distjob.serve.writes import Writes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

MOST_STREAMS = 1_000
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STATUS: tuple[tuple[type[DistjobError], int], ...] = (
    (BadRequest, 400),
    (WrongJob, 409),
    (NotOwner, 409),
    (JobTimeout, 409),
    (QueueFull, 409),
    (BackendUnavailable, 503),
    (OutcomeUnknown, 503),
    (ClientClosed, 503),
)


def application(watcher: Watcher, people: People | None, names: Collection[str] | None) -> ASGIApp:
    """``people``: who may change something; None: nobody. ``names``: see `Guarded`."""
    reads, writes = _Reads(watcher, writable=people is not None), Writes(watcher, people)
    routes = [
        Route("/v1/vms", reads.vms),
        Route("/v1/vms/{vm:path}", reads.vm),
        Route("/v1/events", reads.events),
        Route("/metrics", reads.metrics),
        Route("/healthz", reads.healthz),
        Route("/readyz", reads.readyz),
        Route("/v1/me", writes.me),
        Route("/v1/abort", writes.abort, methods=["POST"]),
        Route("/v1/discard", writes.discard, methods=["POST"]),
        Route("/v1/evict", writes.evict, methods=["POST"]),
        *_page(),
    ]
    handlers: dict[Any, Callable[[Request, Any], Response]] = {
        HTTPException: lambda _, error: JSONResponse(
            {"error": error.detail}, error.status_code, headers=error.headers
        ),
        DistjobError: lambda _, error: JSONResponse({"error": str(error)}, _status(error)),
    }
    return Guarded(Starlette(routes=routes, exception_handlers=handlers), names)


def _status(error: DistjobError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _page() -> list[Route]:
    """The page's files, read once."""
    folder = files("distjob.serve") / "page"
    return [
        _file("/" if file.name == "index.html" else f"/{file.name}", file.read_bytes(), kind)
        for file in folder.iterdir()
        if (kind := _TYPES.get(file.name.rpartition(".")[2]))
    ]


def _file(path: str, content: bytes, kind: str) -> Route:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "no-cache"}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return Route(path, answer)


class _Reads:
    def __init__(self, watcher: Watcher, *, writable: bool) -> None:
        self._watcher = watcher
        self._writable = writable

    async def vms(self, _: Request) -> Response:
        """All VMs that are not idle; 503 if the store can't be read."""
        picture = await self._watcher.fresh()
        if picture.trouble:
            raise HTTPException(503, picture.trouble)
        return Response(picture.cut(0, clock.wall()), media_type="application/json")

    async def vm(self, request: Request) -> Response:
        """One VM, idle or not."""
        vm = check_vm(request.path_params["vm"])
        picture = await self._watcher.fresh()
        if picture.trouble:
            raise HTTPException(503, picture.trouble)
        if shown := picture.vms.get(vm):
            return Response(shown.json, media_type="application/json")
        idle = {"vm": vm, "version": 0, "holders": [], "waiters": [], "mask": None, "strip": []}
        return JSONResponse(idle)

    async def events(self, _: Request) -> Response:
        """Server-sent events: the whole picture, then each change of it."""
        if self._watcher.watching >= MOST_STREAMS:
            raise HTTPException(503, f"{MOST_STREAMS} streams are open, which is the most")
        return StreamingResponse(
            self._framed(), media_type="text/event-stream", headers=_UNBUFFERED
        )

    async def _framed(self) -> AsyncIterator[bytes]:
        yield b"event: hello\ndata: " + msgspec.json.encode({"writable": self._writable}) + b"\n\n"
        async for json in self._watcher.stream():
            yield b"data: " + json + b"\n\n"

    async def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        return Response(exposition(self._watcher), media_type=CONTENT_TYPE)

    async def healthz(self, _: Request) -> Response:
        """That this process answers; a store that is away is no reason to restart it."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """Whether what is shown is so; else why not, and 503."""
        picture = self._watcher.picture
        if self._watcher.ready:
            return JSONResponse({"ready": True, "store": picture.store(clock.wall())})
        return JSONResponse({"ready": False, "store": picture.store(clock.wall())}, 503)


_UNBUFFERED = {"x-accel-buffering": "no"}  # nginx would else keep events back
