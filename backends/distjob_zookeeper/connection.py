"""The connection to ZooKeeper: how it is asked, its life, and how it is let go of.

`Connection.run` drives a verb, in the world of the store's link; `Connection.run_here` blocks in
every world, for what is asked in threads of our own. Nothing else here waits for a server but
`start`. kazoo reconnects, and after an expiry opens a new session, by itself; who must know of
either hears it from ``told``. Nothing is ever sent twice. Knows neither nodes nor sessions of ours.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kazoo.exceptions import ConnectionDropped, WriterNotClosedException
from kazoo.protocol.states import KazooState, KeeperState

from distjob.both import now
from distjob.clock import monotonic
from distjob.errors import BackendUnavailable
from distjob_zookeeper.failures import FAILURES, meaning
from distjob_zookeeper.handler import Notes, Sockets
from distjob_zookeeper.links import Link, Threads
from distjob_zookeeper.requests import ANSWERS, Batch, Steps

if TYPE_CHECKING:
    from kazoo.client import KazooClient

log = logging.getLogger("distjob.zookeeper")

T = TypeVar("T")
_HERE = Threads()


class Connection:
    """One `KazooClient`, ours or the user's. Callable from any thread, but not from kazoo's.

    ``told`` is called, in kazoo's thread, after each change of the connection, with whether the
    ZooKeeper session, and with it every ephemeral node, is lost.
    """

    def __init__(
        self,
        client: KazooClient,
        timeout: float,
        told: Callable[[bool], None],
        *,
        needed: float,
        link: Link = _HERE,
    ) -> None:
        self.client = client
        self.timeout = timeout
        self.needed = needed
        """Seconds of session timeout; a server of ours that grants less is not used."""
        self.name = ",".join(f"{host}:{port}" for host, port in client.hosts)
        """Where the servers are, for messages."""
        self.generation = 0
        """Counts the times that the connection was lost, and all its watches with it."""
        self.granted = 0.0
        """Seconds of session timeout that the server granted last; 0.0: not known."""
        self.sockets = client.handler if isinstance(client.handler, Sockets) else None
        """Of a client of our own."""
        self.notes = client.logger if isinstance(client.logger, Notes) else Notes()
        self.limits_of: Any = ()
        """The ZooKeeper session of a client of the user's whose ``granted`` this is."""
        self.connected_at = monotonic()
        """A moment before which the servers last heard of the session by a new connection."""
        self.closed = False
        self._told = told
        self._link = link
        self._pid = os.getpid()
        self._reviving = threading.Lock()
        client.add_listener(self._hear)
        if self.sockets is not None:
            self._heed_timeout()

    # -- requests ------------------------------------------------------------------------------

    async def run(self, steps: Steps[T]) -> T:
        """Drive a verb to its end; all its requests share one time-out.

        Raises `BackendUnavailable`, and what the verb raises.
        """
        return await self._drive(steps, self._link)

    def run_here(self, steps: Steps[T]) -> T:
        """As `run`, blocking, whatever the link is."""
        return now(self._drive(steps, _HERE))

    async def _drive(self, steps: Steps[T], link: Link) -> T:
        until = monotonic() + self.timeout
        change = False
        try:
            batch = next(steps)
            while True:
                change = batch.change
                batch = steps.send(await self._exchange(batch, until, link))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        except FAILURES as error:
            where = f"ZooKeeper at {self.name}"
            raise meaning(error, where, self._reason(), self.timeout, unanswered=change) from error
        finally:
            steps.close()

    async def _exchange(self, batch: Batch, until: float, link: Link) -> list[Any]:
        self.check()
        room = batch.urgent or await link.room(len(batch.asks), until - monotonic())
        self.check()
        if not room or monotonic() >= until:
            msg = f"ZooKeeper at {self.name}: no end within {self.timeout:g} s; nothing was changed"
            raise BackendUnavailable(msg)
        results = [ask(self.client) for ask in batch.asks]
        await link.answered(results, until - monotonic())
        answers: list[Any] = []
        for result in results:
            try:
                answers.append(result.get_nowait())
            except ANSWERS as answer:
                answers.append(answer)
        return answers

    def check_process(self) -> None:
        """Raise `BackendUnavailable` in a forked child, which has none of kazoo's threads."""
        if os.getpid() != self._pid:
            msg = "this store was connected before a fork: connect a new one in this process"
            raise BackendUnavailable(msg)

    def check(self) -> None:
        """Raise `BackendUnavailable` if nothing can be asked now."""
        self.check_process()
        if self.closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)
        if not self.client.connected:
            msg = f"ZooKeeper at {self.name}: not connected{self._reason()}"
            raise BackendUnavailable(msg)

    def _reason(self) -> str:
        return f" ({self.notes.last})" if self.notes.last else ""

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> bool:
        """Connect a client of our own; False if that did not succeed in time."""
        begun: threading.Event = self.client.start_async()
        return begun.wait(self.timeout)

    def settle(self) -> bool:
        """Wait for a client that is just connecting anew; False if it takes too long."""
        connected = threading.Event()

        def hear(state: str) -> None:
            if state == KazooState.CONNECTED:
                connected.set()

        self.client.add_listener(hear)
        try:
            return self.client.connected or connected.wait(self.timeout)
        finally:
            self.client.remove_listener(hear)

    def given_up(self) -> bool:
        """Whether kazoo has done so for ever, as it does when a login is cut short."""
        ours = self.sockets is not None and not self.closed and os.getpid() == self._pid
        return ours and self.client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED)

    def revive(self) -> None:
        """Start anew what kazoo has given up."""
        with self._reviving:
            if self.given_up():
                self._stop()
                self.start()

    def close(self, *, end: bool) -> None:
        """Let go of the client, if it is ours; ``end`` also ends its ZooKeeper session at once."""
        if self.closed:
            return
        self.closed = True
        if os.getpid() != self._pid:
            return  # the parent's sockets, and no threads
        self.client.remove_listener(self._hear)
        if self.sockets is None:
            return
        if not end:
            self.sockets.sever()
        # A server that is silent must not keep us: kazoo would wait for its goodbye.
        silent = threading.Timer(self.timeout, self.sockets.sever)
        silent.daemon = True
        silent.start()
        try:
            with self._reviving:
                self._stop()
        finally:
            silent.cancel()

    def _stop(self) -> None:
        try:
            self.client.stop()
            self.client.close()
        except WriterNotClosedException:
            log.warning("ZooKeeper at %s: a thread of kazoo's hangs in a name look-up", self.name)

    def _hear(self, state: str) -> None:
        if state != KazooState.CONNECTED:
            self.generation += 1
        elif self.sockets is None:
            self.connected_at = monotonic() - self.timeout  # roughly: kazoo has just been let in
        self._told(state == KazooState.LOST)

    def _heed_timeout(self) -> None:
        """Look at the session timeout that each connection is granted, which kazoo keeps to itself.

        A server that grants too little is left at once for the next: sessions would end early.
        """
        handler = self.client._connection  # noqa: SLF001  # nothing public tells
        connect = handler._connect  # noqa: SLF001

        def heeding(*arguments: Any) -> Any:
            begun = monotonic()
            timeouts = connect(*arguments)
            self.granted = timeouts[0] * 1.5 / 1000  # kazoo waits two thirds of it for a reply
            if short := self.too_short():
                raise ConnectionDropped(short)
            self.connected_at = begun
            return timeouts

        handler._connect = heeding  # noqa: SLF001

    def too_short(self) -> str:
        """That the granted timeout is, and what to do. Empty if it is long enough."""
        if not self.granted or self.granted >= self.needed * 0.999:
            return ""
        return (
            f"the server grants sessions of {self.granted:g} s at most, {self.needed:g} s are "
            "needed (1.5 times session.ttl): raise the server's maxSessionTimeout (20 times its "
            "tickTime unless set), or lower session.ttl"
        )
