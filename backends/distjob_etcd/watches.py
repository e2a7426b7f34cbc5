"""Which watches there are, what an answer on their stream means, and what to request next.

Two are on one stream: one of wake-ups for the client's own sessions, whose keys begin alike, and
one of all deletions among the namespace's sessions, so that neither opening sessions nor asking
about them leaves watches behind. On a new stream each goes on at the revision after the last one
seen, so that nothing is lost, unless etcd has compacted its history past that, or has lost it; then
`Missed` is told.

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

    def __init__(self, create: rpc.WatchCreateRequest, start: int) -> None:
        self.create = create
        self.next = start
        self.confirmed = False
        """Whether the stream has answered for it."""


class Watches:
    """The watches of one store, whose sessions' ids begin with ``client``, from ``revision`` on."""

    def __init__(self, layout: Layout, client: str, revision: int) -> None:
        self._layout = layout
        self._client = client
        self._numbers = itertools.count(1)
        # In pieces: a channel of the user's takes 4 MiB at once.
        create = rpc.WatchCreateRequest(fragment=True, filters=[rpc.WatchCreateRequest.NODELETE])
        create.key, create.range_end = layout.sessions_of(client)
        self._mine = _Watch(create, revision + 1)
        create = rpc.WatchCreateRequest(fragment=True, filters=[rpc.WatchCreateRequest.NOPUT])
        create.key, create.range_end = layout.sessions, layout.sessions_end
        self._ends = _Watch(create, revision + 1)
        self._both = (self._ends, self._mine)
        self._watched: set[str] = set()
        self._events: list[tuple[str, Event]] = []

    # -- what the source asks -------------------------------------------------------------------

    def watch(self, sessions: Collection[str]) -> None:
        """Tell when one of ``sessions`` ends. Call it before asking whether they live."""
        self._watched.update(sessions)

    def unwatch(self, sessions: Collection[str]) -> None:
        """``sessions`` are known to have ended."""
        self._watched.difference_update(sessions)

    def tell(self, events: Collection[tuple[str, Event]]) -> None:
        """Give these, too."""
        self._events += events

    def take(self) -> Sequence[tuple[str, Event]]:
        """What has come; it is not here any more."""
        events, self._events = self._events, []
        return events

    # -- the stream -----------------------------------------------------------------------------

    def seen(self) -> Seen:
        """For `begin`. Ask for it before etcd: what is seen meanwhile may be later."""
        return [(watch, watch.next) for watch in self._both]

    def begin(self, seen: Seen, latest: int) -> tuple[bool, Requests]:
        """Whether something is lost, and what to request first on a new stream.

        ``latest``: etcd's revision now. If etcd has lost its data, it counts from the start again,
        and would send nothing till it has come so far.
        """
        fallen = [watch for watch, following in seen if following > latest + 1]
        for watch in fallen:
            watch.next = latest + 1
        if self._ends in fallen:
            self._lose_ends()
        # From the last revision seen, not the next: releases 3.5.8 to 3.5.12 do not answer for a
        # watch that begins in the future and has seen nothing.
        requests = [self._create(watch, watch.next - 1) for watch in self._both]
        for watch in self._both:
            watch.confirmed = False
        return bool(fallen), requests

    @property
    def confirmed(self) -> bool:
        """Whether etcd has answered for each watch that the stream began with."""
        return all(watch.confirmed for watch in self._both)

    def hear(self, answer: rpc.WatchResponse) -> Requests:
        """Sort what came; what to request now. Raises `Refused`."""
        number = answer.watch_id
        watch = next((watch for watch in self._both if watch.create.watch_id == number), None)
        if answer.canceled and answer.compact_revision and watch is not None:
            return [self._skip(watch, answer.compact_revision)]
        if answer.canceled and (watch is not None or number < 0):
            raise Refused(answer.cancel_reason or "a watch was refused")
        if watch is None:
            return []
        watch.confirmed = True
        for event in answer.events:
            if event.kv.mod_revision >= watch.next:  # a member that fell back may repeat some
                self._sort(watch, event)
        if answer.events:
            last = answer.events[-1].kv.mod_revision
            watch.next = max(watch.next, last if answer.fragment else last + 1)
        return []

    def _sort(self, watch: _Watch, event: rpc.Event) -> None:
        session = event.kv.key[len(self._layout.sessions) :].decode(errors="surrogatepass")
        if watch is self._mine:
            if (woken := self._layout.woken(event.kv)) is not None:
                self._events.append((session, woken))
        elif session in self._watched:
            self._watched.discard(session)
            self._events.append((EVERYBODY, Ended(session)))
        elif session.startswith(self._client):
            self._events.append((session, Ended(session)))

    def _skip(self, watch: _Watch, compacted: int) -> rpc.WatchRequest:
        """History was compacted before it was seen: go on behind the gap, and say so."""
        watch.next = max(watch.next, compacted)
        self._events.append((EVERYBODY, Missed()))
        if watch is self._ends:
            self._lose_ends()
        return self._create(watch, watch.next)

    def _lose_ends(self) -> None:
        """Some may have ended unseen: who asks again will learn which."""
        self._events += [(EVERYBODY, Ended(session)) for session in sorted(self._watched)]
        self._watched.clear()

    def _create(self, watch: _Watch, start: int) -> rpc.WatchRequest:
        """By a number that the stream has not seen yet: etcd does not take one again."""
        watch.create.watch_id, watch.create.start_revision = next(self._numbers), max(start, 1)
        return rpc.WatchRequest(create_request=watch.create)


class Refused(Exception):
    """The stream's token is not good for a watch (any more)."""
