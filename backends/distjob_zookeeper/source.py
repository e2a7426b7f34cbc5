"""The verbs on ZooKeeper: `distjob.backend.source.Source`. Sessions are in `sessions`, `witness`.

A commit is one multi. All of it holds, or nothing does; all nodes that it writes carry its zxid,
of which the new version is made.

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
from collections.abc import AsyncIterator, Callable, Collection
from typing import TYPE_CHECKING, Any

from kazoo.exceptions import NoNodeError, NotEmptyError

from distjob.backend.source import Fault, Feed
from distjob.backend.world import World
from distjob.errors import RecordError
from distjob.store import ABSENT, Committed, Gone, Reply, Settled, Stale, Versioned
from distjob_zookeeper import guarantees
from distjob_zookeeper.client.asking import Refused, children, data, exists, multi, sync
from distjob_zookeeper.client.connection import Connection
from distjob_zookeeper.client.making import recipe
from distjob_zookeeper.connecting import prepare, try_size
from distjob_zookeeper.layout import (
    LARGEST,
    NEVER,
    NOTHING,
    PACKET,
    SENT_ALONG,
    Layout,
    Version,
    decoded,
    packed,
    wakeup,
)
from distjob_zookeeper.sessions import ANY, Sessions
from distjob_zookeeper.settings import ZookeeperSettings
from distjob_zookeeper.witness import AT_ONCE, Witness, chunks

if TYPE_CHECKING:
    from kazoo.client import KazooClient


async def connected(
    settings: ZookeeperSettings, namespace: str, ttl: float, world: World
) -> ZookeeperSource:
    """See `distjob.store.Backend.source`."""
    made, chroot = recipe(settings, guarantees.needed(ttl))
    source = ZookeeperSource(settings, Layout(namespace, chroot), ttl, world, made)
    try:
        await source.connection.start()
        await source.prepare()
        await try_size(source.connection)
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
        self.layout = layout
        self._name = secrets.token_hex(16)
        self._lives = itertools.count(1)
        self._sessions = Sessions(self.connection, layout, ttl, world, self._name)
        self.connection.lost = self._sessions.lost
        self._witness = Witness(self.connection, layout, ttl, world, self._sessions)
        self.open, self.renew = self._sessions.open, self._sessions.renew
        self.end, self.settle = self._sessions.end, self._sessions.settle
        self.remaining = self._witness.remaining

    async def prepare(self) -> None:
        """Make what nodes are missing; see `connecting`."""
        await prepare(self.connection, self.layout, self._name)

    async def feeds(self) -> Collection[Feed]:
        await self._sessions.revive()
        return (self._sessions.feed,)

    async def let_go(self) -> None:
        """The servers end what sessions are left."""
        await self.connection.stop(goodbye=self._sessions.all_over())

    # -- values ----------------------------------------------------------------------------------

    async def read(self, vm: str) -> Versioned:
        path = self.layout.vm(vm)
        _, answer = await self.connection.ask(sync(path), data(path))
        return self._seen(vm, answer)

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        if self._sessions.over(author):
            return Gone(frozenset({author}))
        await self._sessions.end_over(wake)
        if expected != ABSENT and not isinstance(expected, Version):
            expected = NEVER  # a number says too little; the answer says all
        life = f"{self._name[:16]}-{next(self._lives)}"
        commit = _Commit(self.layout, vm, expected, value, wake=wake, life=life)
        results = await self._try(commit, author)
        if isinstance(results, Refused) and commit.lacks_folder(results):
            await self.prepare()  # somebody has deleted it
            results = await self._try(commit, author)
        if not isinstance(results, Refused):
            return commit.done(results)
        if results.place == 0:
            return await self._refuse_author(author)
        if results.place >= commit.wakes_at:
            return await self._refuse_woken(commit, results)
        # Reads follow the changes of one connection in order: no sync is needed.
        (answer,) = await self.connection.ask(data(commit.path))
        found = self._seen(vm, answer)
        commit.judge(results, found)
        return Stale(found.version, found.value)

    async def _try(self, commit: _Commit, author: str) -> Any:
        node = self.layout.session(author)

        def build(steps: Any) -> None:  # at the moment of sending: a settling may be over by then
            steps.check(node, self._sessions.number(author))
            commit.build(steps)

        (results,) = await self.connection.ask(multi(build), change=True)
        return results

    async def _refuse_author(self, author: str) -> Reply:
        """It has ended, or was settled since the commit was sent."""
        (stat,) = await self.connection.ask(exists(self.layout.session(author)))
        if stat is not None and self._sessions.settled(author, stat.version):
            return Settled()
        self._sessions.feed.gone(author)
        return Gone(frozenset({author}))

    async def _refuse_woken(self, commit: _Commit, refused: Refused) -> Gone:
        """One of those to be woken has ended; and which of the others."""
        there = await self.connection.ask(*map(exists, commit.wake))
        ended = {node for node, stat in zip(commit.wake, there, strict=True) if stat is None}
        ended.add(list(commit.wake)[refused.place - commit.wakes_at])
        return Gone(frozenset(commit.wake[node] for node in ended))

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        folder = self.layout.vms
        _, names = await self.connection.ask(sync(folder), children(folder))
        if isinstance(names, NoNodeError):
            return
        for some in chunks(names, AT_ONCE):
            answers = await self.connection.ask(*(data(f"{folder}/{node}") for node in some))
            for node, answer in zip(some, answers, strict=True):
                if not isinstance(answer, NoNodeError):
                    yield decoded(node), self._seen(decoded(node), answer)

    def _seen(self, vm: str, answer: Any) -> Versioned:
        """What a read of a VM's node was answered."""
        if isinstance(answer, NoNodeError):
            return NOTHING
        found, stat = answer
        return self.layout.found(vm, found or b"", stat)


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
        self.path = layout.vm(vm)
        self.wake = {layout.wake(session): session for session in wake}
        self.wakes_at = 0
        """The place of the first wake-up in the multi."""
        self._set_at = 0
        self._layout = layout
        self._vm = vm
        self._value = value
        self._expected = expected if isinstance(expected, Version) else None
        """None: the VM's node is not there, and has to be made."""
        self._life, self._number = life, 0
        if self._expected is not None:
            self._life, self._number = self._expected.life, self._expected.number
        self._data = b"" if value is None else packed(self._life, value)
        along = None if value is None or len(value) * len(self.wake) > SENT_ALONG else value
        next_one = (self._life, self._number + 1)
        self._note = wakeup(vm, along, *next_one, removed=value is None)
        self._measure()

    def build(self, steps: Any) -> None:
        """Add its operations to a multi."""
        life = f"{self.path}/{self._life}"
        if self._expected is None:
            steps.create(self.path)
        if self._value is not None:
            steps.create(life) if self._expected is None else steps.check(life, ANY)
        self._set_at = len(steps.operations)
        steps.set_data(self.path, self._data, self._number)
        if self._value is None:
            if self._expected is not None:
                steps.delete(life)
            steps.delete(self.path)
        self.wakes_at = len(steps.operations)
        for path in self.wake:
            steps.set_data(path, self._note)

    def done(self, results: list[Any]) -> Committed:
        """The reply to a multi that was carried out."""
        stat = results[self._set_at]
        if self._value is None:
            return Committed(self._layout.base + stat.mzxid)
        return Committed(self._layout.found(self._vm, self._data, stat).version)

    def lacks_folder(self, refused: Refused) -> bool:
        """Whether it failed since there is no place for VMs."""
        no_node = isinstance(refused.error, NoNodeError)
        return no_node and self._expected is None and refused.place == 1

    def judge(self, refused: Refused, found: Versioned) -> None:
        """Raises `RecordError` if the VM's nodes are not as a commit leaves them.

        ``found``: what is there after the refusal. A zxid never comes back: so it can't be what
        was expected, unless somebody else has deleted or made a node below the VM's.
        """
        if isinstance(refused.error, NotEmptyError) or found.version == self._expected:
            msg = (
                f"VM {self._vm!r}: somebody has changed what is below the node {self.path} of "
                "ZooKeeper: delete it, with all below it, when nobody works on the VM"
            )
            raise RecordError(msg)
        if self.lacks_folder(refused):
            msg = f"VM {self._vm!r}: somebody deletes the folder of {self.path} of ZooKeeper"
            raise Fault(msg)

    def _measure(self) -> None:
        """A server drops the connection, with all that is under way, at what is too long."""
        value = len(self._value or b"")
        size = value + 3 * len(self.path) + 1024
        size += sum(len(path) + len(self._note) + 32 for path in self.wake)
        if value > LARGEST or size > PACKET:
            msg = (
                f"VM {self._vm!r}: a commit of {size} bytes: a value of {value}, with its "
                f"{len(self.wake)} wake-ups; ZooKeeper takes {LARGEST}, and {PACKET} in all"
            )
            raise RecordError(msg)
