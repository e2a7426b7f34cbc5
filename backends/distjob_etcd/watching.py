"""The one watch stream of a store: kept open, listened to, looked after.

Something beside the caller, a thread or a task, reads the stream and opens it again where it ended.
Whoever receives takes what was read, and looks after a stream that has fallen silent. What is
watched, and what an answer means, is decided in `distjob_etcd.watches`; here is when it is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable, DistjobError
from distjob.store import Event
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import Failure, forbidden
from distjob_etcd.layout import Layout
from distjob_etcd.links import Stream
from distjob_etcd.members import RANGE, Member
from distjob_etcd.server import Server
from distjob_etcd.watches import Refused, Watches

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two tries to open the stream again."""
_PROGRESS = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())


class Watching:
    """What `AsyncStore.receive` and `AsyncStore.interrupt` do; what `Server.left` is."""

    def __init__(self, server: Server, layout: Layout, revision: int, quiet: float) -> None:
        self._server = server
        self._layout = layout
        self._quiet = quiet
        """Seconds of silence after which the stream is asked, and given up if still silent."""
        self._changed = server.links.bell()
        self._watches = Watches(layout, revision)
        self._failure: DistjobError | None = None
        self._interrupted = False
        self._closing = False
        self._over = False
        """Whether reading has ended, for whatever reason."""
        self._member: Member | None = None
        self._stream: Stream | None = None
        self._heard = 0.0
        self._asked = False
        server.left = self._leave
        self._reading = server.links.start(self._run(), "distjob-etcd-watch")

    # -- what the store asks --------------------------------------------------------------------

    def listen(self, session: str, revision: int) -> None:
        """Receive what is sent to ``session`` after ``revision``."""
        with self._changed:
            self._put([self._watches.listen(session, revision)])

    def deafen(self, session: str) -> None:
        """``session`` has ended: it receives nothing any more."""
        with self._changed:
            self._put(self._watches.deafen(session))

    def watch(self, sessions: Collection[str]) -> None:
        """Tell when one of ``sessions`` ends. Call it before asking whether they live."""
        with self._changed:
            self._watches.watch(sessions)

    def unwatch(self, sessions: Collection[str]) -> None:
        """``sessions`` are known to have ended."""
        with self._changed:
            self._watches.unwatch(sessions)

    async def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`. Nothing is awaited after events were taken."""
        until = monotonic() + timeout
        with self._changed:
            while True:
                if self._closing:
                    msg = "this store was closed; connect a new one"
                    raise BackendUnavailable(msg)
                if self._over:
                    msg = "what reads etcd's watch has died; connect a new store"
                    raise BackendUnavailable(msg)
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    self._watches.missed = True
                    raise failure
                now = monotonic()
                events = self._watches.take(session)
                if events or self._interrupted or now >= until:
                    self._interrupted = False
                    return events
                await self._changed.wait(min(until - now, self._look_after(now)))

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        with self._changed:
            self._interrupted = True
            self._changed.ring()

    async def close(self) -> None:
        """End the stream, and the reading of it; a `receive` that is under way raises."""
        with self._changed:
            self._closing = True
            self._hang_up()
            self._changed.ring()
        await self._reading.stop(self._server.timeout)

    def _look_after(self, now: float) -> float:
        """Ask a silent stream whether it lives, hang up if it does not answer; when to look next"""
        if self._stream is None:
            return self._quiet
        works = self._watches.works
        due = self._quiet if works and not self._asked else self._server.timeout
        silent = now - self._heard
        if silent < due:
            return due - silent
        if works and not self._asked:
            self._put([_PROGRESS])
            self._asked, self._heard = True, now  # the answer has its own time
            return self._server.timeout
        self._hang_up()
        return self._quiet

    def _leave(self, member: Member) -> None:
        """The server has left ``member``; so do we."""
        with self._changed:
            if self._member is member:
                self._hang_up()

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.cut()

    def _put(self, requests: Iterable[rpc.WatchRequest]) -> None:
        """Without a stream there is no need: the next one begins with all watches."""
        if self._stream is not None:
            for request in requests:
                self._stream.put(request)

    # -- what reads -----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._keep_reading()
        finally:
            with self._changed:
                self._over = True
                self._changed.ring()

    async def _keep_reading(self) -> None:
        pause, tries = _FIRST_PAUSE, 0
        while not self._closing:
            try:
                await self._read_stream()
            except DistjobError as failure:
                with self._changed:
                    if self._watches.works:
                        pause, tries = _FIRST_PAUSE, 0
                    self._watches.works = False
                    tries += 1
                    # One that was cut and can be opened elsewhere is nobody's business.
                    if tries > len(self._server.members):
                        self._failure = failure
                        self._changed.ring()
                await self._pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        with self._changed:
            while not self._closing and (left := until - monotonic()) > 0:
                await self._changed.wait(left)

    async def _read_stream(self) -> None:
        """Open the stream and read it until it ends, which is always an error."""
        with self._changed:
            seen = self._watches.seen()
        latest = (await self._server.ask(RANGE, self._layout.latest())).header.revision
        member, stream = self._server.watch()
        try:
            with self._changed:
                if self._closing:
                    return
                self._member, self._stream = member, stream
                self._asked, self._heard = False, monotonic()
                self._put(self._watches.begin(seen, latest))
            failure = await self._listen_to(stream)
        except Refused as refused:
            await self._server.renew_token()
            raise forbidden(member.name, str(refused), self._server.prefix) from refused
        finally:
            with self._changed:
                self._member, self._stream = None, None
            await stream.close()
        if failure.elsewhere:
            self._server.leave(member)
        if failure.stale_token:
            await self._server.renew_token()
        raise failure.error(member.name, change=False, prefix=self._server.prefix)

    async def _listen_to(self, stream: Stream) -> Failure:
        """How it ended."""
        while True:
            answer = await stream.read()
            if isinstance(answer, Failure):
                return answer
            with self._changed:
                self._heard, self._asked = monotonic(), False
                self._put(self._watches.hear(answer))
                if self._watches.works:
                    self._failure = None
                self._changed.ring()
