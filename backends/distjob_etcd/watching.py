"""The one watch stream of a store: wake-ups of its own sessions, and the end of others'.

Two kinds of watch are on it: one for each session of our own, and a single one for all deletions
among the namespace's sessions, so that asking about sessions leaves no watches behind. A thread
reads the stream and opens it again where it ended: each watch goes on at the revision after the
last one seen, so that nothing is lost, unless etcd has compacted its history past that; then
`Missed` is told. Whoever receives looks after a stream that has fallen silent.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import grpc

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable, DistjobError
from distjob.store import Ended, Event, Missed, Woken
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import NOT_ALLOWED, Failure, NotAllowed
from distjob_etcd.layout import Layout
from distjob_etcd.members import RANGE, Member
from distjob_etcd.server import Server

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two tries to open the stream again."""


class _Watch:
    """What is watched, and from which revision on."""

    def __init__(self, session: str, start: int) -> None:
        self.session = session
        """Of our own; empty for the watch of all ends."""
        self.next = start
        self.mail: list[Event] = []


class _Refused(Exception):
    """The stream's token is not good for a watch (any more)."""


class Watching:
    """What `Store.receive` and `Store.interrupt` do. Callable from any thread."""

    def __init__(self, server: Server, layout: Layout, revision: int, quiet: float) -> None:
        self._server = server
        self._layout = layout
        self._quiet = quiet
        """Seconds of silence after which the stream is asked, and given up if still silent."""
        self._changed = threading.Condition()
        self._ids = itertools.count(1)
        self._ends = _Watch("", revision + 1)
        self._own: dict[str, _Watch] = {}
        self._by_id: dict[int, _Watch] = {}
        self._watched: set[str] = set()
        self._ended: list[str] = []
        self._missed = False
        self._failure: DistjobError | None = None
        self._interrupted = False
        self._closing = threading.Event()
        self._member: Member | None = None
        self._call: Any = None
        self._requests: queue.SimpleQueue[rpc.WatchRequest | None] = queue.SimpleQueue()
        self._works = False
        """Whether the stream has answered since it was opened."""
        self._over = False
        """Whether the thread has ended, for whatever reason."""
        self._heard = 0.0
        self._asked = False
        server.left = self._leave
        self._thread = threading.Thread(target=self._run, name="distjob-etcd-watch", daemon=True)
        self._thread.start()

    # -- what the store asks --------------------------------------------------------------------

    def listen(self, session: str, revision: int) -> None:
        """Receive what is sent to ``session`` after ``revision``."""
        with self._changed:
            watch = self._own[session] = _Watch(session, revision + 1)
            if self._call is not None:
                self._create(watch, watch.next)

    def deafen(self, session: str) -> None:
        """``session`` has ended: it receives nothing any more."""
        with self._changed:
            self._drop(session)

    def watch(self, sessions: Collection[str]) -> None:
        """Tell when one of ``sessions`` ends. Call it before asking whether they live."""
        with self._changed:
            self._watched.update(sessions)

    def unwatch(self, sessions: Collection[str]) -> None:
        """``sessions`` are known to have ended."""
        with self._changed:
            self._watched.difference_update(sessions)

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        until = monotonic() + timeout
        with self._changed:
            while True:
                if self._closing.is_set():
                    msg = "this store was closed; connect a new one"
                    raise BackendUnavailable(msg)
                if self._over:
                    msg = "the thread that reads etcd's watch has died; connect a new store"
                    raise BackendUnavailable(msg)
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    self._missed = True
                    raise failure
                now = monotonic()
                events = self._take(session)
                if events or self._interrupted or now >= until:
                    self._interrupted = False
                    return events
                self._changed.wait(min(until - now, self._look_after(now)))

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the stream and its thread; a `receive` that is under way raises."""
        self._closing.set()
        with self._changed:
            self._hang_up()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(self._server.timeout)

    def _take(self, session: str) -> list[Event]:
        events: list[Event] = [Ended(session=ended) for ended in self._ended]
        self._ended.clear()
        if self._missed and self._works:
            self._missed = False
            events.insert(0, Missed())
        if own := self._own.get(session):
            events += own.mail
            own.mail = []
        return events

    def _look_after(self, now: float) -> float:
        """Ask a silent stream whether it lives, hang up if it does not answer; when to look next"""
        if self._call is None:
            return self._quiet
        due = self._quiet if self._works and not self._asked else self._server.timeout
        silent = now - self._heard
        if silent < due:
            return due - silent
        if self._works and not self._asked:
            self._requests.put(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))
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
        if self._call is not None:
            self._call.cancel()

    # -- the thread that reads ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keep_reading()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _keep_reading(self) -> None:
        pause, tries = _FIRST_PAUSE, 0
        while not self._closing.is_set():
            try:
                self._read_stream()
            except DistjobError as failure:
                with self._changed:
                    if self._works:
                        pause, tries = _FIRST_PAUSE, 0
                    self._works, self._call, self._member = False, None, None
                    tries += 1
                    # One that was cut and can be opened elsewhere is nobody's business.
                    if tries > len(self._server.members):
                        self._failure = failure
                        self._changed.notify_all()
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _read_stream(self) -> None:
        """Open the stream and read it until it ends, which is always an error."""
        with self._changed:  # before it is asked: what is seen meanwhile may be later
            seen = [(watch, watch.next) for watch in (self._ends, *self._own.values())]
        latest = self._server.ask(RANGE, self._layout.latest()).header.revision
        requests: queue.SimpleQueue[rpc.WatchRequest | None] = queue.SimpleQueue()
        asked: Iterator[rpc.WatchRequest] = iter(requests.get, None)
        member, call = self._server.watch(asked)
        try:
            with self._changed:
                self._member, self._call, self._requests = member, call, requests
                self._works, self._asked, self._heard = False, False, monotonic()
                if self._closing.is_set():
                    return
                self._by_id.clear()
                self._fall_back(latest, seen)
                for watch in (self._ends, *self._own.values()):
                    # From the last revision seen, not the next: releases 3.5.8 to 3.5.12 do not
                    # answer for a watch that begins in the future and has seen nothing.
                    self._create(watch, watch.next - 1)
            for answer in call:
                with self._changed:
                    self._hear(answer)
            failure = Failure(grpc.StatusCode.UNAVAILABLE, "the watch stream ended")
        except grpc.RpcError as error:
            failure = Failure.of(error)
        except _Refused as refused:
            self._server.renew_token()
            failure = Failure(grpc.StatusCode.UNAUTHENTICATED, str(refused))
            raise NotAllowed(f"etcd at {member.name}: {NOT_ALLOWED[1]} ({refused})") from refused
        finally:
            requests.put(None)
            call.cancel()
        if failure.elsewhere:
            self._server.leave(member)
        if failure.stale_token:
            self._server.renew_token()
        raise failure.error(member.name, change=False)

    def _fall_back(self, latest: int, seen: Sequence[tuple[_Watch, int]]) -> None:
        """If etcd has lost its data, it counts from the start again, and sends nothing till then"""
        for watch, following in seen:
            if following > latest + 1:
                watch.next = latest + 1
                self._missed = True
                self._doubt(watch)

    def _doubt(self, watch: _Watch) -> None:
        """Ends may have been missed: who asks again will learn which."""
        if watch is self._ends:
            self._ended += sorted(self._watched)
            self._watched.clear()

    def _create(self, watch: _Watch, start: int) -> None:
        number = next(self._ids)
        self._by_id[number] = watch
        # In pieces: a channel of the user's takes 4 MiB at once.
        create = rpc.WatchCreateRequest(
            start_revision=max(start, 1), watch_id=number, fragment=True
        )
        if watch is self._ends:
            create.key, create.range_end = self._layout.sessions, self._layout.sessions_end
            create.filters.append(rpc.WatchCreateRequest.NOPUT)
        else:
            create.key = self._layout.session_key(watch.session)
            create.filters.append(rpc.WatchCreateRequest.NODELETE)
        self._requests.put(rpc.WatchRequest(create_request=create))

    def _drop(self, session: str) -> None:
        if (own := self._own.pop(session, None)) is None:
            return
        for number, watch in list(self._by_id.items()):
            if watch is own:
                del self._by_id[number]
                cancel = rpc.WatchCancelRequest(watch_id=number)
                self._requests.put(rpc.WatchRequest(cancel_request=cancel))

    def _hear(self, answer: rpc.WatchResponse) -> None:
        self._heard, self._asked = monotonic(), False
        watch = self._by_id.get(answer.watch_id)
        if answer.canceled and answer.compact_revision and watch is not None:
            self._skip(watch, answer)
        elif answer.canceled and (watch is not None or answer.watch_id < 0):
            raise _Refused(answer.cancel_reason or "a watch was refused")
        elif watch is not None:
            if not self._works:
                self._works = True
                self._failure = None
            for event in answer.events:
                if event.kv.mod_revision >= watch.next:  # a member that fell back may repeat some
                    self._sort(watch, event)
            if answer.events:
                last = answer.events[-1].kv.mod_revision
                watch.next = max(watch.next, last if answer.fragment else last + 1)
        self._changed.notify_all()

    def _sort(self, watch: _Watch, event: rpc.Event) -> None:
        if watch is self._ends:
            key = event.kv.key[len(self._layout.sessions) :]
            session = key.decode(errors="surrogatepass")
            self._drop(session)
            if session in self._watched:
                self._watched.discard(session)
                self._ended.append(session)
        elif (woken := self._layout.woken(event.kv)) is not None:
            if isinstance(woken, Woken):
                watch.mail.append(woken)
            else:
                self._missed = True

    def _skip(self, watch: _Watch, answer: rpc.WatchResponse) -> None:
        """History was compacted before it was seen: go on behind the gap, and say so."""
        del self._by_id[answer.watch_id]
        watch.next = max(watch.next, answer.compact_revision)
        self._missed = True
        self._doubt(watch)
        self._create(watch, watch.next)
