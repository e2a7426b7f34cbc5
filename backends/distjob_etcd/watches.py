"""Which watches there are, what an answer on their stream means, and what to request next.

Two kinds are on one stream: one watch for each session of our own, and a single one for all
deletions among the namespace's sessions, so that asking about sessions leaves no watches behind.
On a new stream each goes on at the revision after the last one seen, so that nothing is lost,
unless etcd has compacted its history past that, or has lost it; then `Missed` is told.

Pure: no stream, thread, task or clock; `distjob_etcd.feed` guards it and carries its requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import TypeAlias

from distjob.backend.source import EVERYBODY
from distjob.store import Ended, Event, Missed
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.layout import Layout

Requests: TypeAlias = list[rpc.WatchRequest]
Seen: TypeAlias = "Sequence[tuple[_Watch, int]]"
"""The watches, and what each was to begin with when etcd was asked how far it is."""


class _Watch:
    """What is watched, and from which revision on."""

    __slots__ = ("next", "session")

    def __init__(self, session: str, start: int) -> None:
        self.session = session
        """Of our own; empty for the watch of all ends."""
        self.next = start


class Refused(Exception):
    """The stream's token is not good for a watch (any more)."""


class Watches:
    """Of one store, from ``revision`` on."""

    def __init__(self, layout: Layout, revision: int) -> None:
        self._layout = layout
        self._numbers = itertools.count(1)
        self._ends = _Watch("", revision + 1)
        self._own: dict[str, _Watch] = {}
        self._by_number: dict[int, _Watch] = {}
        self._unconfirmed: set[int] = set()
        """Numbers of the watches that the stream began with, and did not answer for yet."""
        self._watched: set[str] = set()
        self._events: list[tuple[str, Event]] = []

    # -- what the source asks -------------------------------------------------------------------

    def listen(self, session: str, revision: int) -> Requests:
        """Receive what is sent to ``session`` after ``revision``; what to request, if one can."""
        watch = self._own[session] = _Watch(session, revision + 1)
        return [self._create(watch, watch.next)]

    def deafen(self, session: str) -> Requests:
        """``session`` has ended: it receives nothing any more; what to request, if one can."""
        if (own := self._own.pop(session, None)) is None:
            return []
        numbers = [number for number, watch in self._by_number.items() if watch is own]
        for number in numbers:
            self._forget(number)
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

    def take(self) -> Sequence[tuple[str, Event]]:
        """What has come; it is not here any more."""
        events, self._events = self._events, []
        return events

    # -- the stream -----------------------------------------------------------------------------

    def seen(self) -> Seen:
        """For `begin`. Ask for it before etcd: what is seen meanwhile may be later."""
        return [(watch, watch.next) for watch in (self._ends, *self._own.values())]

    def begin(self, seen: Seen, latest: int) -> tuple[bool, Requests]:
        """Whether something is lost, and what to request first on a new stream.

        ``latest``: etcd's revision now. If etcd has lost its data, it counts from the start again,
        and would send nothing till it has come so far.
        """
        self._by_number.clear()
        fallen = [watch for watch, following in seen if following > latest + 1]
        for watch in fallen:
            watch.next = latest + 1
        if self._ends in fallen:
            self._lose_ends()
        # From the last revision seen, not the next: releases 3.5.8 to 3.5.12 do not answer for a
        # watch that begins in the future and has seen nothing.
        watches = (self._ends, *self._own.values())
        requests = [self._create(watch, watch.next - 1) for watch in watches]
        self._unconfirmed = set(self._by_number)
        return bool(fallen), requests

    @property
    def confirmed(self) -> bool:
        """Whether etcd has answered for each watch that the stream began with."""
        return not self._unconfirmed

    def hear(self, answer: rpc.WatchResponse) -> Requests:
        """Sort what came; what to request now. Raises `Refused`."""
        watch = self._by_number.get(answer.watch_id)
        if answer.canceled and answer.compact_revision and watch is not None:
            return self._skip(watch, answer)
        if answer.canceled and (watch is not None or answer.watch_id < 0):
            raise Refused(answer.cancel_reason or "a watch was refused")
        if watch is None:
            return []
        self._unconfirmed.discard(answer.watch_id)
        requests: Requests = []
        for event in answer.events:
            if event.kv.mod_revision >= watch.next:  # a member that fell back may repeat some
                requests += self._sort(watch, event)
        if answer.events:
            last = answer.events[-1].kv.mod_revision
            watch.next = max(watch.next, last if answer.fragment else last + 1)
        return requests

    def _sort(self, watch: _Watch, event: rpc.Event) -> Requests:
        if watch is not self._ends:
            if (woken := self._layout.woken(event.kv)) is not None:
                self._events.append((watch.session, woken))
            return []
        session = event.kv.key[len(self._layout.sessions) :].decode(errors="surrogatepass")
        if session in self._watched:
            self._watched.discard(session)
            self._events.append((EVERYBODY, Ended(session)))
        elif session in self._own:
            self._events.append((session, Ended(session)))
        return self.deafen(session)

    def _skip(self, watch: _Watch, answer: rpc.WatchResponse) -> Requests:
        """History was compacted before it was seen: go on behind the gap, and say so."""
        self._forget(answer.watch_id)
        watch.next = max(watch.next, answer.compact_revision)
        self._events.append((EVERYBODY, Missed()))
        if watch is self._ends:
            self._lose_ends()
        return [self._create(watch, watch.next)]

    def _lose_ends(self) -> None:
        """Some may have ended unseen: who asks again will learn which."""
        self._events += [(EVERYBODY, Ended(session)) for session in sorted(self._watched)]
        self._watched.clear()

    def _forget(self, number: int) -> None:
        del self._by_number[number]
        self._unconfirmed.discard(number)

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
