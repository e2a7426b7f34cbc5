"""The commit: one multi of ZooKeeper, and what to make of its refusal.

It checks the author's node and the epoch, sets the VM's node if its data version is the one seen,
and sets the node of each session to be woken. All of it holds, or nothing does. Its zxid is the
new version: all nodes that one multi writes carry the same.

The data version to name is known from this client's last look or commit, or from a wake-up. If it
is not, or was wrong, the node is looked at, and tried once more if the value was the expected one
after all. A refused multi has changed nothing, so that this is no second try of the change.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from distjob.errors import RecordError
from distjob.store import ABSENT, Committed, Gone, Reply, Stale
from distjob_zookeeper.layout import (
    LARGEST,
    PACKET,
    SENT_ALONG,
    Layout,
    Wakeup,
    message,
    packed,
)
from distjob_zookeeper.requests import Ask, Batch, Steps, failed, multi
from distjob_zookeeper.seen import Memory, Seen
from distjob_zookeeper.verbs import ANY, enter, exists, get, look, prove

_AUTHOR, _EPOCH = 0, 1
"""Places in the multi."""


class Commit:
    """What is to be committed; `steps` does it."""

    def __init__(
        self,
        layout: Layout,
        memory: Memory,
        *,
        vm: str,
        expected: int,
        value: bytes | None,
        author: str,
        wake: Collection[str],
    ) -> None:
        if value is not None and len(value) > LARGEST:
            msg = f"VM {vm!r}: a value of {len(value)} bytes; ZooKeeper takes {LARGEST} at most"
            raise RecordError(msg)
        self._layout = layout
        self._memory = memory
        self._vm = vm
        self._path = layout.vm(vm)
        self._expected = expected
        self._value = value
        self._author = author
        self._author_path = layout.session(author)
        self._wake = tuple(dict.fromkeys(wake))
        self._woken = tuple(map(layout.session, self._wake))

    def steps(self) -> Steps[Reply]:
        """Until it is committed or refused."""
        while True:
            # What is known of a node must be from the epoch that the commit names: hence the order.
            epoch = self._memory.epoch
            known = self._memory.get(self._vm)
            if known is None and self._expected == ABSENT:
                guess = Seen(ABSENT, None, epoch)  # the look at its side tells if that is wrong
                reply = yield from self._try(guess, (get(self._path),))
            elif known is None or known.version != self._expected:
                reply = yield from self._check()
            else:
                reply = yield from self._try(known)
            if reply is not None:
                return reply

    def _check(self) -> Steps[Reply | None]:
        """Look at the node; None if it is as expected, and known from now on."""
        # The epoch first. Without it, what is known from before somebody deleted nodes would seem
        # to be later than what is found now, for ever.
        asks = (prove(self._author_path), get(self._layout.epoch), get(self._path))
        results, at, answer = yield Batch(asks)
        if failed(results):
            return Gone(sessions=frozenset({self._author}))
        found = look(self._memory, self._vm, answer, enter(self._memory, at))
        if found.version != self._expected:
            return Stale(version=found.version, value=found.value)
        return None

    def _try(self, known: Seen, beside: tuple[Ask, ...] = ()) -> Steps[Reply | None]:
        """The multi, and ``beside`` in the same round trip; None: it has to be tried anew."""
        epoch = self._memory.epoch
        results, *answers = yield Batch((self._multi(known), *beside), change=True)
        refused = failed(results)
        if refused is None:
            stat = results[-1 - len(self._wake)]
            version = ABSENT if self._value is None else stat.mzxid
            self._memory.put(self._vm, Seen(version, stat.version, known.epoch))
            return Committed(version=stat.mzxid)
        place = refused[0]
        if place == _AUTHOR:
            return Gone(sessions=frozenset({self._author}))
        if place == _EPOCH:  # what is known of nodes is from before some were deleted
            (at,) = yield Batch((get(self._layout.epoch),))
            enter(self._memory, at)
            return None
        wakes_from = 3 if known.node is not None else 4
        if place >= wakes_from:
            return Gone(sessions=(yield from self._ended(self._wake[place - wakes_from])))
        # Reads follow the changes of one connection in order: no sync is needed.
        if not answers:
            answers = yield Batch((get(self._path),))
        found = look(self._memory, self._vm, answers[0], epoch)
        if found.version != self._expected:
            return Stale(version=found.version, value=found.value)
        return None

    def _ended(self, one: str) -> Steps[frozenset[str]]:
        """Which of the sessions to be woken have ended: ``one`` has."""
        there = yield Batch([exists(path) for path in self._woken])
        found = zip(self._wake, there, strict=True)
        return frozenset({one, *(session for session, stat in found if stat is None)})

    def _multi(self, known: Seen) -> Ask:
        # A node that was just made has version 0. It is set as well, since of what a multi makes
        # kazoo tells no zxid.
        node = 0 if known.node is None else known.node
        data = packed(self._value)
        note = self._message(known, node + 1)
        self._measure(data, note)

        def build(steps: Any) -> None:
            steps.check(self._author_path, ANY)
            steps.check(self._layout.epoch, known.epoch.number)
            if known.node is None:
                steps.create(self._path)
            steps.set_data(self._path, data, node)
            for path in self._woken:
                steps.set_data(path, note)

        return multi(build)

    def _message(self, known: Seen, node: int) -> bytes:
        value = self._value
        if value is not None and len(value) * len(self._wake) > SENT_ALONG:
            value = None
        return message(Wakeup(self._vm, value, self._value is None, node, known.epoch))

    def _measure(self, data: bytes, note: bytes) -> None:
        """A server drops the connection, with all that is under way, at what is too long."""
        size = len(data) + 2 * len(self._path) + len(self._author_path) + 256
        size += sum(len(path) + len(note) + 32 for path in self._woken)
        if size > PACKET:
            msg = (
                f"VM {self._vm!r}: a commit of {size} bytes, with its {len(self._wake)} wake-ups; "
                f"ZooKeeper takes {PACKET} at most"
            )
            raise RecordError(msg)
