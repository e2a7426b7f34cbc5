"""What the servers tell by themselves: wake-ups, ends of sessions, beats.

Each session of ours has one watch on its wake-ups, and one on its end. When a wake-up comes, it is
read and watched again in one request; a version that jumped tells of others that it has covered.
Sessions that were asked about have a watch on their end, too, and those that are waited for one on
their beat. A lost connection takes all watches with it: the feed is opened anew then.

kazoo calls back in threads of its own, where nothing here blocks. Knows nothing of commits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import EventType, WatchedEvent

from distjob.backend.source import EVERYBODY, Fault
from distjob.clock import monotonic
from distjob.store import Ended, Event, Missed
from distjob_zookeeper import faults
from distjob_zookeeper.beats import Beats
from distjob_zookeeper.client.asking import Answer, Ask, children, data, exists
from distjob_zookeeper.client.connection import Connection
from distjob_zookeeper.layout import Layout, decoded


class Own:
    """A session that was opened here.

    =========  =================================  =============================================
    field      written by                         closes
    =========  =================================  =============================================
    sent       `Sessions.renew`, once answered    a renewal of what others may have ended
    number     `Sessions.settle`, once answered   a commit of before a settling that comes after
    heard      the feed                           a wake-up told twice, or not at all
    lost       whoever finds its node gone        a use of it before the next renewal tells
    =========  =================================  =============================================
    """

    def __init__(self, ttl: float, owner: str, sent: float) -> None:
        self.ttl = ttl
        self.owner = owner
        self.sent = sent
        """Before the last renewal that was answered was sent."""
        self.number = 0
        """The data version of its node: how often it was settled."""
        self.heard = 0
        """The data version of its wake-ups, as received last."""
        self.lost = False
        """Its node is gone, or about to go with the ZooKeeper session that bears it."""

    def over(self, now: float) -> bool:
        """Whether it is not to be used any more; its node may be there yet."""
        return self.lost or now >= self.sent + self.ttl


class Watches:
    """`distjob.backend.source.Feed` for ``own``, the sessions of one source, by their ids."""

    vital = True

    def __init__(
        self,
        connection: Connection,
        layout: Layout,
        own: dict[str, Own],
        beats: Beats,
        ring: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._own = own
        self._beats = beats
        self._ring = ring
        self._lock = threading.Lock()
        """Guards what has come. Held for moments, never over an await."""
        self._come: list[tuple[str, Event]] = []
        self._generation = -1
        """Of the connection on which all is watched."""
        self._heard = 0.0
        """When something had come last, as was told by `take`."""
        self._asked = 0.0
        """When `prod` was called last."""

    # -- Feed ------------------------------------------------------------------------------------

    async def open(self) -> bool:
        await self._connection.until_connected()
        generation = self._connection.generation
        sessions = [session for session, own in list(self._own.items()) if not own.lost]
        if sessions:
            asks = [ask for session in sessions for ask in self.watching(session)]
            answers = await self._connection.ask(*asks, urgent=True)
            for session, there, wake in zip(sessions, answers[::2], answers[1::2], strict=True):
                self.arrived(session, there)
                self.arrived(session, wake)
        self._generation = generation
        return bool(sessions)

    async def take(self) -> Sequence[tuple[str, Event]] | None:
        """What comes by the connection for others shows that it lives, too: renewals mostly."""
        with self._lock:
            come, self._come = self._come, []
        if come:
            return come
        if not self._live():
            raise Fault(f"{self._connection.where}: the connection was lost")
        heard, self._heard = self._heard, self._connection.heard
        return () if self._heard > heard else None

    async def prod(self) -> None:
        self._asked = monotonic()
        self._connection.send(exists(self._layout.root), lambda _: None)

    def when_readable(self) -> int | None:
        return None

    def pause(self) -> float:
        return float("inf")

    async def close(self) -> None:
        if self._live() and self._connection.heard < self._asked:
            self._connection.cut()  # it is silent: kazoo would wait for longer
        self._generation = -1

    # -- for the source --------------------------------------------------------------------------

    def watching(self, session: str) -> tuple[Ask, Ask]:
        """Requests that set the watches of a session of ours; `arrived` takes both answers.

        Its node never has children: to watch them is to be told of its end only.
        """
        there, wake = self._layout.session(session), self._layout.wake(session)
        return children(there, self._told), data(wake, self._told)

    def arrived(self, session: str, answer: Any) -> None:
        """A request of `watching` was answered."""
        if isinstance(answer, NoNodeError):
            self.gone(session)
        elif answer:  # not of the children, of which there are none
            self._woken(session, *answer)

    def live(self, generation: int) -> None:
        """All that is to be watched is, on the connection of that generation."""
        self._generation = generation

    def gone(self, session: str) -> None:
        """A session of ours has ended."""
        own = self._own.get(session)
        if own is not None and not own.lost:
            own.lost = True
            self._put(session, Ended(session))

    def following(self, session: str, *, beat: bool) -> tuple[Ask, Ask]:
        """Requests that watch the end of a session, and tell its beat; watch that, too, if so."""
        there, beats = self._layout.session(session), self._layout.beat(session)
        return children(there, self._told), data(beats, self._moved if beat else None)

    # -- from kazoo's threads --------------------------------------------------------------------

    def _told(self, event: WatchedEvent) -> None:
        """Of a session that has ended, or of a wake-up. kazoo keeps one of each callable."""
        if event.type == EventType.DELETED:
            session = decoded(event.path)
            self.gone(session)
            if event.path == self._layout.session(session) and self._beats.ended(session):
                self._put(EVERYBODY, Ended(session))
        elif event.type == EventType.CHANGED:
            again = data(event.path, self._told)
            self._connection.send(again, partial(self._read, decoded(event.path)))

    def _read(self, session: str, answer: Answer) -> None:
        try:
            found = answer.get_nowait()
        except NoNodeError:
            self.gone(session)
        except faults.ERRORS:  # not watched any more: a new `open` finds out what was missed
            self._generation = -1
            self._ring()
        else:
            self._woken(session, *found)

    def _woken(self, session: str, data: bytes, stat: Any) -> None:
        with self._lock:
            own = self._own.get(session)
            if own is None or own.lost or stat.version <= own.heard:
                return
            covered = stat.version - own.heard > 1
            own.heard = stat.version
            event = self._layout.woken(data, stat.mzxid)
            if covered or event is None:
                self._come.append((session, Missed()))
            if event is not None:
                self._come.append((session, event))
        self._ring()

    def _moved(self, event: WatchedEvent) -> None:
        """Of a beat that has changed."""
        session = decoded(event.path)
        if event.type == EventType.CHANGED and self._beats.wanted(session, monotonic()):
            again = data(event.path, self._moved)
            self._connection.send(again, partial(self._beaten, session))

    def _beaten(self, session: str, answer: Answer) -> None:
        try:
            _, stat = answer.get_nowait()
        except faults.ERRORS:
            return  # who asks next looks by itself
        self._beats.saw(session, stat.version, stat.mzxid, monotonic())

    def _put(self, session: str, event: Event) -> None:
        with self._lock:
            self._come.append((session, event))
        self._ring()

    def _live(self) -> bool:
        return self._generation == self._connection.generation
