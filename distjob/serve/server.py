"""Listening, and coming to an end.

It decides what is said of an address that can't be had, and that streams end when the server does.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Collection
from types import FrameType

import uvicorn

from distjob.config import Settings
from distjob.serve.app import application
from distjob.serve.people import People
from distjob.serve.watcher import Watcher

_GRACE = 3
"""Seconds that answers under way have in the end."""


class CannotListen(OSError):
    """The address can't be had; says why, and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """Raises CannotListen."""
    where = f"{host} port {port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except socket.gaierror as error:
        raise CannotListen(f"{host}: no such host: {error.strerror}") from None
    except OSError as error:
        why = {
            errno.EADDRINUSE: "in use already: by another `distjob serve`? Else choose a --port",
            errno.EACCES: "not allowed: ports below 1024 are root's. Choose another --port",
            errno.EADDRNOTAVAIL: "no address of this host: see --host",
        }.get(error.errno or 0, str(error))
        raise CannotListen(f"{where}: {why}") from None


def end_by_signals() -> None:
    """SIGTERM and SIGINT exit with 0 from now on; uvicorn raises what it got again, in the end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def serve(
    settings: Settings,
    there: socket.socket,
    *,
    every: float,
    people: People | None,
    names: Collection[str] | None,
) -> None:
    """Until SIGTERM or SIGINT. Raises ConfigError."""
    asyncio.run(_serve(Watcher(settings, every), there, people, names))


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


async def _serve(
    watcher: Watcher, there: socket.socket, people: People | None, names: Collection[str] | None
) -> None:
    config = uvicorn.Config(
        application(watcher, people, names),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE,
    )
    server = _Server(config, watcher)
    looking = asyncio.create_task(watcher.run())
    looking.add_done_callback(lambda _: server.leave())
    try:
        await server.serve(sockets=[there])
    finally:
        if not looking.done():
            looking.cancel()
        await asyncio.wait([looking])
    if not looking.cancelled() and (error := looking.exception()):
        raise error


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, watcher: Watcher) -> None:
        super().__init__(config)
        self._watcher = watcher
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Also end the streams, which uvicorn would wait for."""
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._watcher.close)

    def leave(self) -> None:
        """Come to an end, the watcher has."""
        self.should_exit = True
        self._watcher.close()
