"""One kazoo client after the other: how each begins, is watched, and ends.

kazoo reconnects by itself, to any of the servers: `Connection.generation` rises then. When no
session of ours is left the client may be replaced by a new one: kazoo remembers the last zxid that
it saw, and is never let in again by servers that were restored from a backup. Knows neither nodes
nor sessions of ours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kazoo.exceptions import WriterNotClosedException
from kazoo.protocol.states import KazooState, KeeperState

from distjob.backend.source import Fault
from distjob.backend.world import World
from distjob_zookeeper.client.asking import Asking, Room
from distjob_zookeeper.client.sockets import Sockets
from distjob_zookeeper.faults import SHUT_OUT

if TYPE_CHECKING:
    from kazoo.client import KazooClient


log = logging.getLogger("distjob.zookeeper")


class Connection(Asking):
    """To one ensemble, by the clients that ``made`` makes."""

    def __init__(self, made: Callable[[], KazooClient], world: World, timeout: float) -> None:
        super().__init__(made(), world, timeout)
        self.lost: Callable[[], None] = lambda: None
        """Called, in a thread of kazoo's, when a ZooKeeper session, and with it every ephemeral
        node, is lost."""
        self.generation = 0
        """Counts the times that the connection was lost, and all watches with it."""
        self.since = world.monotonic()
        """Before the present connection was made."""
        self._made = made
        self._session: int | None = None
        """ZooKeeper's id of the session that bears our nodes."""
        self._closed = False
        self._lock = threading.Lock()
        """Held while the client is changed."""
        self._stopping = threading.Lock()
        self._rings: list[Callable[[], object]] = []
        """Of those who wait for a connection."""

    @property
    def sockets(self) -> Sockets:
        handler: Sockets = self.client.handler
        return handler

    @property
    def given_up(self) -> bool:
        """Whether kazoo has done so for ever, as it does when a login is cut short."""
        return self.client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED)

    @property
    def heard(self) -> float:
        """When something was read last on the present connection."""
        wire = self.sockets.wire
        return wire.heard if wire is not None else 0.0

    def cut(self) -> None:
        """Have kazoo make another connection."""
        if (wire := self.sockets.wire) is not None:
            wire.sever()

    async def start(self) -> None:
        """Connect, whichever of the servers it is that hangs.

        Raises `Fault`; it is to be stopped then, too.
        """
        self._begin(self.client)
        await self.until_connected(self.timeout * len(self.client.hosts))

    async def replace(self) -> None:
        """Go on with a new client. Ends the session of the present one, if that can be told.

        Raises `Fault` if it does not connect in time; it goes on trying.
        """
        await self.world.aside(partial(self._stop, self.client, goodbye=True))
        with self._lock:
            if self._closed:
                raise Fault(f"{self.where}: this client was closed")
            self._begin(self._made())
        await self.until_connected()

    async def until_connected(self, seconds: float = 0.0) -> None:
        """Wait for kazoo's connection, at most ``seconds``; 0: `timeout`. Raises `Fault`."""
        seconds = seconds or self.timeout
        until = self.world.monotonic() + seconds
        while not self.connected:
            left = until - self.world.monotonic()
            if left <= 0:
                raise self.why(seconds)
            await self.world.answered(self._when_heard, left)

    def why(self, seconds: float = 0.0) -> Fault:
        """What keeps us from being connected, for as long as that."""
        notes = self.client.logger
        if notes.refused:
            advice = "set zookeeper.user and password"
            return Fault(f"{self.where}: the user or password was refused", advice, unfit=True)
        if short := self.sockets.too_short():
            return Fault(f"{self.where}: {short}", unfit=True)
        if "CERTIFICATE_VERIFY_FAILED" in notes.last:
            return Fault(
                f"{self.where}: its certificate is not trusted",
                "set zookeeper.ca_file, and use the host name that the certificate is for "
                f"({notes.last})",
                unfit=True,
            )
        advice = "check zookeeper.hosts, and that a majority of the servers is up"
        if notes.last.endswith("socket connection broken"):  # before a word was said
            advice = SHUT_OUT
        advice = f"{advice} ({notes.last or 'no answer'})"
        return Fault(f"{self.where}: no connection within {seconds:g} s", advice)

    async def stop(self, *, goodbye: bool) -> None:
        """Let go of the client, for good; ``goodbye``: end its session at once."""
        with self._lock:
            self._closed = True
            client = self.client
        await self.world.aside(partial(self._stop, client, goodbye=goodbye))

    def _begin(self, client: KazooClient) -> None:
        self.client = client
        self._session = None
        self.room = Room(self.world)
        self.since = self.world.monotonic()
        self.generation += 1
        client.add_listener(partial(self._heard, client))
        client.start_async()

    def _stop(self, client: KazooClient, *, goodbye: bool) -> None:
        if not goodbye or not client.connected:
            client.handler.sever()
        # A server that is silent must not keep us: kazoo would wait for its goodbye.
        silent = threading.Timer(self.timeout, client.handler.sever)
        silent.daemon = True
        silent.start()
        try:
            with self._stopping:
                client.stop()
                client.close()
        except WriterNotClosedException:
            log.warning("%s: a thread of kazoo's hangs in a name look-up", self.where)
        finally:
            silent.cancel()

    def _heard(self, client: KazooClient, state: str) -> None:
        """The connection has changed. In kazoo's thread."""
        if client is not self.client:
            return
        if state == KazooState.CONNECTED:
            session = client.client_id[0]
            if self._session not in (None, session):  # none of ours is in the new one
                self.lost()
            self._session = session
            self.since = client.handler.wire.begun
        else:
            self.generation += 1
            if state == KazooState.LOST:
                self._session = None
                self.lost()
        with self._lock:
            rings, self._rings = self._rings, []
        for ring in rings:
            ring()
        self.world.bell.ring()

    def _when_heard(self, ring: Callable[[], object]) -> None:
        with self._lock:
            self._rings.append(ring)
        if self.connected:
            ring()
