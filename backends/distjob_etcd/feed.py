"""The one watch stream of a store: opened, read by a thread of its own, cut.

The thread sorts what comes and rings the bell; whoever receives takes it. It is the same on
asyncio, where the stream has a blocking channel beside the calls' own: gRPC tells nobody there of
the tasks that it makes for a stream, nor when they end. What is watched, and what an answer means,
is decided in `distjob_etcd.watches`; when it is opened, asked and given up, in
`distjob.backend.listening`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from math import inf
from queue import SimpleQueue
from typing import Any

import grpc

from distjob.backend.source import Fault
from distjob.backend.world import World
from distjob.store import Event
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.client.cluster import Cluster
from distjob_etcd.client.members import RANGE, Member, Metadata
from distjob_etcd.faults import ENDED, Failure, channel_closed, watch_refused
from distjob_etcd.layout import Layout
from distjob_etcd.watches import Refused, Requests, Watches

_PROGRESS = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())


class EtcdFeed:
    """The watch on wake-ups and ends of sessions; after a cut it resumes, and nothing is missed."""

    vital = True

    def __init__(self, cluster: Cluster, layout: Layout, client: str, world: World) -> None:
        self._cluster = cluster
        self._layout = layout
        self._world = world
        self._lock = threading.Lock()
        """Guards what follows; it is held for moments, never over an await."""
        self._watches = Watches(layout, client, cluster.revision)
        self._stream: _Stream | None = None
        self._heard = False
        """Whether something has come, be it no event, since the last `take`."""
        cluster.left = self._leave

    # -- what the source asks, from any thread or task ------------------------------------------

    def tell(self, events: Collection[tuple[str, Event]]) -> None:
        """Give these, too."""
        with self._lock:
            self._watches.tell(events)
        self._world.bell.ring()

    def watch(self, sessions: Collection[str]) -> None:
        """Tell when one of ``sessions`` ends. Call it before asking whether they live."""
        with self._lock:
            self._watches.watch(sessions)

    def unwatch(self, sessions: Collection[str]) -> None:
        """``sessions`` are known to have ended."""
        with self._lock:
            self._watches.unwatch(sessions)

    # -- what whoever receives asks -------------------------------------------------------------

    async def open(self) -> bool:
        with self._lock:
            seen = self._watches.seen()
        # Its token is good then, too: a stream that begins with one that has ended is refused.
        latest = (await self._cluster.ask(RANGE, self._layout.latest())).header.revision
        member, metadata = self._cluster.here()
        with self._lock:
            stream = self._stream = _Stream(member, metadata, self._hear)
            lost, requests = self._watches.begin(seen, latest)
            self._request(requests)
            self._heard = False
        stream.start()
        until = self._cluster.until()
        while stream.ending is None and not self._watches.confirmed:
            if (left := until - self._world.monotonic()) <= 0:
                self._cluster.leave(member)
                raise Fault(f"etcd at {member.name}: the watch was not answered in time")
            await self._world.bell.wait(left)  # rung for others, too: they look before they wait
        if stream.ending is not None:
            raise self._fault(stream, stream.ending)
        return lost

    async def take(self) -> Sequence[tuple[str, Event]] | None:
        with self._lock:
            events = self._watches.take()
            heard, self._heard = self._heard, False
            stream = self._stream
        if stream is not None and stream.ending is not None:
            if not events:
                raise self._fault(stream, stream.ending)
            self._world.bell.ring()  # to be asked again: its end has rung already
        return events if events or heard else None

    async def prod(self) -> None:
        with self._lock:
            self._request([_PROGRESS])

    def when_readable(self) -> int | None:
        return None

    def pause(self) -> float:
        return inf

    async def close(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is None:
            return
        stream.cut()
        await self._world.answered(stream.when_over, self._cluster.timeout)

    def _fault(self, stream: _Stream, ending: Failure | Fault) -> Fault:
        """How ``stream`` has ended. Where that may be its member's fault, another is asked next."""
        if isinstance(ending, Fault):
            return ending
        if ending.elsewhere:
            self._cluster.leave(stream.member)
        return ending.fault(stream.member.name, change=False, prefix=self._cluster.prefix)

    def _leave(self, member: Member) -> None:
        """The cluster has left ``member``; so do we."""
        with self._lock:
            stream = self._stream
        if stream is not None and stream.member is member:
            stream.cut()

    def _request(self, requests: Requests) -> None:
        """Without a stream there is no need: the next one begins with all watches."""
        if self._stream is not None:
            for request in requests:
                self._stream.requests.put(request)

    def _hear(self, stream: _Stream, answer: rpc.WatchResponse | None) -> None:
        """In the stream's thread: ``answer``, or its end."""
        with self._lock:
            if stream is not self._stream:
                return  # it was closed
            if answer is not None:
                self._heard = True
                try:
                    self._request(self._watches.hear(answer))
                except Refused as refused:
                    prefix = self._cluster.prefix
                    stream.ending = watch_refused(stream.member.name, str(refused), prefix)
        self._world.bell.ring()


class _Stream:
    """One stream at one member, and the thread that reads it."""

    def __init__(
        self,
        member: Member,
        metadata: Metadata,
        hear: Callable[[_Stream, rpc.WatchResponse | None], None],
    ) -> None:
        self.member = member
        self.requests: SimpleQueue[rpc.WatchRequest | None] = SimpleQueue()
        """To be sent, in their order; None is the last one."""
        self.ending: Failure | Fault | None = None
        """Why nothing comes any more."""
        self._begin = partial(member.watch(), iter(self.requests.get, None), metadata=metadata)
        self._hear = hear
        self._call: Any = None
        self._cut = False
        self._over = threading.Event()
        self._when_over: Callable[[], object] = self._over.is_set

    def start(self) -> None:
        """Begin. That no thread can be had is its `ending`, too."""
        thread = threading.Thread(target=self._run, name="distjob-etcd-watch", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._end(Fault(f"etcd at {self.member.name}: no thread for the watch: {error}"))

    def cut(self) -> None:
        """Have it end soon."""
        self._cut = True
        self.requests.put(None)
        if (call := self._call) is not None:
            call.cancel()

    def when_over(self, done: Callable[[], None]) -> None:
        """``done`` is called when nothing of it is left, or at once."""
        self._when_over = done
        if self._over.is_set():
            done()

    def _run(self) -> None:
        ending: Failure | Fault = Failure(grpc.StatusCode.UNKNOWN, "what reads the watch has died")
        try:
            ending = self._read()
        finally:
            self._end(ending)

    def _read(self) -> Failure | Fault:
        """Until it ends."""
        try:
            self._call = self._begin()
        except ValueError as error:
            return channel_closed(self.member.name, error)
        if self._cut:  # before there was anything to cancel
            self._call.cancel()
        try:
            for answer in self._call:
                self._hear(self, answer)
                if self.ending is not None:
                    break
        except grpc.RpcError as error:
            return Failure.of(error)
        return ENDED

    def _end(self, ending: Failure | Fault) -> None:
        self.ending = self.ending or ending
        # Nothing of the call stays: if the interpreter ends it, gRPC may wait there for ever.
        self.cut()
        self._call = None
        self._hear(self, None)
        self._over.set()
        self._when_over()
