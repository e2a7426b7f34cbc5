"""Which watches there are, what an answer on their stream means, and what to request next.

Two kinds are on one stream: one watch for each session of our own, and a single one for all
deletions among the namespace's sessions, so that asking about sessions leaves no watches behind.
On a new stream each goes on at the revision after the last one seen, so that nothing is lost,
unless etcd has compacted its history past that, or has lost it; then `Missed` is told.

Pure: no stream, thread, task or clock; `distjob_etcd.watching` guards it and carries its requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from distjob.store import Ended, Event, Missed, Woken
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.layout import Layout

Seen = Sequence[tuple["_Watch", int]]
"""The watches, and what each was to begin with when etcd was asked how far it is."""


class _Watch:
    """What is watched, and from which revision on."""

    def __init__(self, session: str, start: int) -> None:
        self.session = session
        """Of our own; empty for the watch of all ends."""
        self.next = start
        self.mail: list[Event] = []


class Refused(Exception):
    """The stream's token is not good for a watch (any more)."""


class Watches:
    """Of one store, from ``revision`` on."""

    def __init__(self, layout: Layout, revision: int) -> None:
        self.works = False
        """Whether the stream has answered since it was opened."""
        self.missed = False
        """Told as `Missed` once the stream works."""
        self._layout = layout
        self._numbers = itertools.count(1)
        self._ends = _Watch("", revision + 1)
        self._own: dict[str, _Watch] = {}
        self._by_number: dict[int, _Watch] = {}
        self._watched: set[str] = set()
        self._ended: list[str] = []

    # -- what the store asks --------------------------------------------------------------------

    def listen(self, session: str, revision: int) -> rpc.WatchRequest:
        """Receive what is sent to ``session`` after ``revision``; what to request, if one can."""
        watch = self._own[session] = _Watch(session, revision + 1)
        return self._create(watch, watch.next)

    def deafen(self, session: str) -> list[rpc.WatchRequest]:
        """``session`` has ended: it receives nothing any more; what to request, if one can."""
        if (own := self._own.pop(session, None)) is None:
            return []
        numbers = [number for number, watch in self._by_number.items() if watch is own]
        for number in numbers:
            del self._by_number[number]
        return [
            rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=number))
            for number in numbers
        ]

    def watch(self, sessions: Collection[str]) -> None:
        """Tell when one of ``sessions`` ends. Call it before asking whether they live."""
        self._watched.update(sessions)

    def unwatch(self, sessions: Collection[str]) -> None:
        """``sessions`` are known to have ended."""
        self._watched.difference_update(sessions)

    def take(self, session: str) -> list[Event]:
        """What there is for whoever receives for ``session``; it is not there any more."""
        events: list[Event] = [Ended(session=ended) for ended in self._ended]
        self._ended.clear()
        if self.missed and self.works:
            self.missed = False
            events.insert(0, Missed())
        if own := self._own.get(session):
            events += own.mail
            own.mail = []
        return events

    # -- the stream -----------------------------------------------------------------------------

    def seen(self) -> Seen:
        """For `begin`. Ask for it before etcd: what is seen meanwhile may be later."""
        return [(watch, watch.next) for watch in (self._ends, *self._own.values())]

    def begin(self, seen: Seen, latest: int) -> list[rpc.WatchRequest]:
        """What to request first on a new stream; ``latest`` is etcd's revision now."""
        self.works = False
        self._by_number.clear()
        for watch, following in seen:
            # If etcd has lost its data, it counts from the start again, and sends nothing till then
            if following > latest + 1:
                watch.next = latest + 1
                self._miss(watch)
        # From the last revision seen, not the next: releases 3.5.8 to 3.5.12 do not answer for a
        # watch that begins in the future and has seen nothing.
        return [self._create(watch, watch.next - 1) for watch in (self._ends, *self._own.values())]

    def hear(self, answer: rpc.WatchResponse) -> list[rpc.WatchRequest]:
        """Sort what came; what to request now. Raises `Refused`."""
        watch = self._by_number.get(answer.watch_id)
        if answer.canceled and answer.compact_revision and watch is not None:
            return [self._skip(watch, answer)]
        if answer.canceled and (watch is not None or answer.watch_id < 0):
            raise Refused(answer.cancel_reason or "a watch was refused")
        if watch is None:
            return []
        self.works = True
        requests = []
        for event in answer.events:
            if event.kv.mod_revision >= watch.next:  # a member that fell back may repeat some
                requests += self._sort(watch, event)
        if answer.events:
            last = answer.events[-1].kv.mod_revision
            watch.next = max(watch.next, last if answer.fragment else last + 1)
        return requests

    def _sort(self, watch: _Watch, event: rpc.Event) -> list[rpc.WatchRequest]:
        if watch is self._ends:
            key = event.kv.key[len(self._layout.sessions) :]
            session = key.decode(errors="surrogatepass")
            if session in self._watched:
                self._watched.discard(session)
                self._ended.append(session)
            return self.deafen(session)
        if (woken := self._layout.woken(event.kv)) is not None:
            if isinstance(woken, Woken):
                watch.mail.append(woken)
            else:
                self.missed = True
        return []

    def _skip(self, watch: _Watch, answer: rpc.WatchResponse) -> rpc.WatchRequest:
        """History was compacted before it was seen: go on behind the gap, and say so."""
        del self._by_number[answer.watch_id]
        watch.next = max(watch.next, answer.compact_revision)
        self._miss(watch)
        return self._create(watch, watch.next)

    def _miss(self, watch: _Watch) -> None:
        """Something was lost. Of ends: who asks again will learn which."""
        self.missed = True
        if watch is self._ends:
            self._ended += sorted(self._watched)
            self._watched.clear()

    def _create(self, watch: _Watch, start: int) -> rpc.WatchRequest:
        number = next(self._numbers)
        self._by_number[number] = watch
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
        return rpc.WatchRequest(create_request=create)
