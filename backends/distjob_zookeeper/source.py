"""The verbs on ZooKeeper: `distjob.backend.source.Source`. Sessions are in `sessions`, `witness`.

A commit is one multi. All of it holds, or nothing does; all nodes that it writes carry its zxid,
which is the new version.

    first value    check author   create VM, create life, set VM          set wake-ups
    next value     check author   check life, set VM                      set wake-ups
    removal        check author   set VM, delete life, delete VM          set wake-ups
    none to none   check author   create VM, set VM, delete VM            set wake-ups

"Set VM" compares the data version of the VM's node. Where a node is made or deleted it is set as
well, since of these kazoo tells no zxid. What has to be compared is known from the version that
was given out (`layout.Version`), so that no commit reads first. See `layout` for the nodes.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import NoNodeError, NotEmptyError

from distjob.backend.source import Fault, Feed
from distjob.backend.world import World
from distjob.errors import RecordError
from distjob.store import ABSENT, Committed, Gone, Reply, Settled, Stale, Versioned
from distjob_zookeeper import guarantees
from distjob_zookeeper.client.asking import Refused, children, data, exists, multi, sync
from distjob_zookeeper.client.connection import Connection
from distjob_zookeeper.client.making import Make, recipe
from distjob_zookeeper.connecting import prepare
from distjob_zookeeper.layout import (
    LARGEST,
    NOTHING,
    PACKET,
    SENT_ALONG,
    Layout,
    Version,
    Wakeup,
    decoded,
    packed,
    unpacked,
)
from distjob_zookeeper.sessions import ANY, Sessions
from distjob_zookeeper.settings import ZookeeperSettings
from distjob_zookeeper.witness import AT_ONCE, Witness, chunks

if TYPE_CHECKING:
    from kazoo.client import KazooClient


async def connect(
    settings: ZookeeperSettings, namespace: str, ttl: float, world: World, make: Make | None = None
) -> ZookeeperSource:
    """See `distjob.store.Backend.source`; ``make``: see `distjob_zookeeper.connect`."""
    made, chroot = recipe(settings, guarantees.needed(ttl), make)
    source = ZookeeperSource(settings, Layout(namespace, chroot), ttl, world, made)
    try:
        await source.connection.start()
        await source.prepare()
    except BaseException:
        await source.connection.stop(goodbye=True)
        raise
    return source


class ZookeeperSource:
    """One server, or one ensemble, for one client; see `distjob.backend.source.Source`."""

    def __init__(
        self,
        settings: ZookeeperSettings,
        layout: Layout,
        ttl: float,
        world: World,
        made: Callable[[], KazooClient],
    ) -> None:
        self.settings = settings
        self.connection = Connection(made, world, settings.timeout)
        self.guarantees = guarantees.of(ensemble=len(self.connection.client.hosts) > 1)
        self._layout = layout
        self._name = secrets.token_hex(16)
        self._lives = itertools.count(1)
        self._sessions = Sessions(self.connection, layout, ttl, world, self._name)
        self.connection.lost = self._sessions.lost
        self._witness = Witness(self.connection, layout, ttl, world, self._sessions)

    async def prepare(self) -> None:
        """Make what nodes are missing; see `connecting`."""
        await prepare(self.connection, self._layout, self._name)

    async def open(self, ttl: float, owner: str) -> str:
        return await self._sessions.open(ttl, owner)

    async def renew(self, session: str) -> bool:
        return await self._sessions.renew(session)

    async def end(self, session: str) -> None:
        await self._sessions.end(session)

    async def settle(self, session: str) -> None:
        await self._sessions.settle(session)

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        return await self._witness.remaining(sessions)

    async def feeds(self) -> Collection[Feed]:
        await self._sessions.revive()
        return (self._sessions.feed,)

    async def let_go(self) -> None:
        """The servers end what sessions are left."""
        await self.connection.stop(goodbye=self._sessions.all_over())

    # -- values ----------------------------------------------------------------------------------

    async def read(self, vm: str) -> Versioned:
        path = self._layout.vm(vm)
        _, answer = await self.connection.ask(sync(path), data(path))
        return _seen(vm, answer)

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        if self._sessions.over(author):
            return Gone(frozenset({author}))
        await self._sessions.end_over(wake)
        if expected != ABSENT and not isinstance(expected, Version):
            found = await self._find(vm, author)
            if not isinstance(found, Versioned):
                return found
            if found.version != expected:
                return Stale(found.version, found.value)
            expected = found.version
        life = f"{self._name[:16]}-{next(self._lives)}"
        commit = _Commit(self._layout, vm, expected, value, wake=wake, life=life)
        results = await self._try(commit, author)
        if isinstance(results, Refused) and commit.lacks_folder(results):
            await self.prepare()  # somebody has deleted it
            results = await self._try(commit, author)
        if not isinstance(results, Refused):
            return commit.done(results)
        if results.place == 0:
            return await self._refuse_author(author)
        if (ended := commit.not_woken(results)) is not None:
            return await self._refuse_woken(commit, ended)
        # Reads follow the changes of one connection in order: no sync is needed.
        (answer,) = await self.connection.ask(data(commit.path))
        found = _seen(vm, answer)
        commit.judge(results, found)
        return Stale(found.version, found.value)

    async def _try(self, commit: _Commit, author: str) -> Any:
        node = self._layout.session(author)

        def build(steps: Any) -> None:  # at the moment of sending: a settling may be over by then
            steps.check(node, self._sessions.number(author))
            commit.build(steps)

        (results,) = await self.connection.ask(multi(build), change=True)
        return results

    async def _find(self, vm: str, author: str) -> Versioned | Reply:
        """What is there, for an author that lives. A majority says so: what is read is not old."""
        node = self._layout.session(author)
        checked, answer = await self.connection.ask(
            multi(lambda steps: steps.check(node, ANY)), data(self._layout.vm(vm))
        )
        return Gone(frozenset({author})) if isinstance(checked, Refused) else _seen(vm, answer)

    async def _refuse_author(self, author: str) -> Reply:
        """It has ended, or was settled since the commit was sent."""
        (stat,) = await self.connection.ask(exists(self._layout.session(author)))
        if stat is not None and self._sessions.settled(author, stat.version):
            return Settled()
        self._sessions.feed.gone(author)
        return Gone(frozenset({author}))

    async def _refuse_woken(self, commit: _Commit, ended: str) -> Gone:
        there = await self.connection.ask(*map(exists, commit.woken))
        found = zip(commit.wake, there, strict=True)
        return Gone(frozenset({ended, *(session for session, stat in found if stat is None)}))

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        folder = self._layout.vms
        _, names = await self.connection.ask(sync(folder), children(folder))
        if isinstance(names, NoNodeError):
            return
        for some in chunks(names, AT_ONCE):
            answers = await self.connection.ask(*(data(f"{folder}/{node}") for node in some))
            for node, answer in zip(some, answers, strict=True):
                if not isinstance(answer, NoNodeError):
                    yield decoded(node), _seen(decoded(node), answer)


def _seen(vm: str, answer: Any) -> Versioned:
    """What a read of a VM's node was answered."""
    if isinstance(answer, NoNodeError):
        return NOTHING
    found, stat = answer
    return unpacked(vm, found or b"", stat)


class _Commit:
    """What is to be committed, but for the author's check, which comes first.

    ``expected`` is `ABSENT` or a `Version`; ``life`` is for a VM that has none.
    """

    def __init__(
        self,
        layout: Layout,
        vm: str,
        expected: int,
        value: bytes | None,
        *,
        wake: Collection[str],
        life: str,
    ) -> None:
        if value is not None and len(value) > LARGEST:
            msg = f"VM {vm!r}: a value of {len(value)} bytes; ZooKeeper takes {LARGEST} at most"
            raise RecordError(msg)
        self.path = layout.vm(vm)
        self.wake = tuple(dict.fromkeys(wake))
        self.woken = tuple(map(layout.wake, self.wake))
        self._vm = vm
        self._expected = expected
        self._value = value
        self._known = isinstance(expected, Version)
        """Whether the VM's node is there, and need not be made."""
        self._life, self._number = life, 0  # of a node that was just made
        if isinstance(expected, Version):
            self._life, self._number = expected.life, expected.number
        self._data = b"" if value is None else packed(self._life, value)
        self._note = self._wakeup().packed()
        self._set_at = self._wakes_at = 0
        """Places in the multi."""
        self._measure()

    def build(self, steps: Any) -> None:
        """Add its operations to a multi."""
        life = f"{self.path}/{self._life}"
        if not self._known:
            steps.create(self.path)
        if self._value is not None:
            steps.check(life, ANY) if self._known else steps.create(life)
        self._set_at = len(steps.operations)
        steps.set_data(self.path, self._data, self._number)
        if self._value is None:
            if self._known:
                steps.delete(life)
            steps.delete(self.path)
        self._wakes_at = len(steps.operations)
        for path in self.woken:
            steps.set_data(path, self._note)

    def done(self, results: list[Any]) -> Committed:
        """The reply to a multi that was carried out."""
        stat = results[self._set_at]
        if self._value is None:
            return Committed(stat.mzxid)
        return Committed(Version(stat.mzxid, self._life, stat.version))

    def not_woken(self, refused: Refused) -> str | None:
        """The session that could not be woken, if that was it."""
        at = refused.place - self._wakes_at
        return self.wake[at] if at >= 0 else None

    def lacks_folder(self, refused: Refused) -> bool:
        """Whether it failed since there is no place for VMs."""
        return not self._known and refused.place == 1 and isinstance(refused.error, NoNodeError)

    def judge(self, refused: Refused, found: Versioned) -> None:
        """Raises `RecordError` if the VM's nodes are not as a commit leaves them.

        ``found``: what is there after the refusal. A zxid never comes back: so it can't be what
        was expected, unless somebody else has deleted or made a node below the VM's.
        """
        if isinstance(refused.error, NotEmptyError) or (
            found.version == self._expected and self._known
        ):
            msg = (
                f"VM {self._vm!r}: somebody has changed what is below the node {self.path} of "
                "ZooKeeper: delete it, with all below it, when nobody works on the VM"
            )
            raise RecordError(msg)
        if self.lacks_folder(refused):
            msg = f"VM {self._vm!r}: somebody deletes the folder of {self.path} of ZooKeeper"
            raise Fault(msg)

    def _wakeup(self) -> Wakeup:
        value = self._value
        if value is not None and len(value) * len(self.wake) > SENT_ALONG:
            value = None
        return Wakeup(self._vm, value, self._value is None, self._life, self._number + 1)

    def _measure(self) -> None:
        """A server drops the connection, with all that is under way, at what is too long."""
        size = len(self._data) + 3 * len(self.path) + 1024
        size += sum(len(path) + len(self._note) + 32 for path in self.woken)
        if size > PACKET:
            msg = (
                f"VM {self._vm!r}: a commit of {size} bytes, with its {len(self.wake)} wake-ups; "
                f"ZooKeeper takes {PACKET} at most"
            )
            raise RecordError(msg)
