"""The verbs of `distjob.store.AsyncStore` on Redis, whatever the servers, whatever the world.

A commit is one script on the server that has the VM's shard. Knows nothing of redis-py's errors,
nor which server that is.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from importlib.resources import files
from typing import Any

import msgspec

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable, ConfigError
from distjob.store import (
    ABSENT,
    Committed,
    Event,
    Gone,
    Guarantees,
    Missed,
    Reply,
    Stale,
    Versioned,
)
from distjob_redis.answers import Between, Lost, Unfit
from distjob_redis.connecting import Agreed, agree
from distjob_redis.ears import Ears
from distjob_redis.guarantees import PROMISES
from distjob_redis.keys import Keys, all_vms, number_of, prefix_of, shard_of, versioned, vm_of
from distjob_redis.mail import Mail
from distjob_redis.sessions import Sessions
from distjob_redis.topology import Place, Topology

_COMMIT = files(__package__).joinpath("commit.lua").read_text(encoding="utf-8")
_COMMIT_SHA = hashlib.sha1(_COMMIT.encode(), usedforsecurity=False).hexdigest()


async def opened(topology: Topology, namespace: str, ttl: float, shards: int) -> Verbs:
    """A store on ``topology``, which it closes in the end, or if this fails.

    Raises `ConfigError` or `BackendUnavailable`.
    """
    try:
        sharded = topology.kind == "cluster"
        agreed = await agree(topology, namespace, shards if sharded else 1)
        verbs = Verbs(topology, agreed, namespace, ttl)
        await verbs.begin()
    except Unfit as error:
        await topology.close()
        raise ConfigError(str(error)) from error
    except BaseException:
        await topology.close()
        raise
    return verbs


class Verbs:
    """One client's store on ``topology``; see `opened`."""

    guarantees: Guarantees

    def __init__(self, topology: Topology, agreed: Agreed, namespace: str, ttl: float) -> None:
        self.topology = topology
        """The servers, and how they are reached."""
        promised = PROMISES[topology.kind]
        self.guarantees = msgspec.structs.replace(promised, durable=agreed.durable)
        self._name = secrets.token_hex(16)
        self._wait_to_close = ttl
        self._receiving = topology.world.turn()
        self._mail = Mail()
        self._closed = False
        self._shards = agreed.shards
        self._by_prefix = {shard.prefix: shard for shard in self._shards}
        self._pattern = all_vms(namespace, sharded=len(agreed.shards) > 1)
        self._wakes = agreed.sharded_wakes
        self._more = ("SPUBLISH",) if self._wakes else ()
        self._sessions = Sessions(
            self._shards, topology, self._name, ttl, 1 + secrets.randbelow(1000)
        )
        self._ears = Ears(
            self._channels(),
            ttl / 3,
            topology.world,
            sharded=self._wakes,
            watchers=topology.watchers(),
            alarm=topology.confirm,
        )

    async def begin(self) -> None:
        """Listen, and try what is needed. What was opened for that is closed if it fails."""
        try:
            await self._ears.mend()
            self._ears.gap()  # nobody could have sent anything before
            await self._rehearse()
        except BaseException:
            await self._ears.close()
            raise

    async def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`."""
        self._check_open()
        if await self._receiving.take(0.0):
            try:  # whoever is receiving has subscribed, or will and then report what was missed
                await self._ears.mend()
            finally:
                await self._leave()
        return await self._sessions.open(ttl, owner)

    async def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`."""
        self._check_open()
        return await self._sessions.keep_alive(session)

    async def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        self._check_open()
        await self._sessions.close(session)

    async def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        self._check_open()
        shard = self._shard(vm)
        return versioned(await shard.place.ask("GET", shard.vm(vm)), vm)

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`. The first in a shard is two round trips."""
        self._check_open()
        shard = self._shards[0]
        if len(self._shards) == 1:
            sessions = (author, *wake)
            script = self._script(shard, vm, expected, value, sessions)
            return _reply(await shard.place.run(_COMMIT, _COMMIT_SHA, *script), vm, sessions)
        shard = self._shard(vm)
        if not await self._sessions.enter(shard, author):
            return Gone(sessions=frozenset((author,)))
        while True:
            reply = await self._commit(shard, vm, expected, value, (author, *wake))
            if not isinstance(reply, Gone):
                return reply
            if ended := await self._sessions.without_key(shard, reply.sessions):
                return Gone(sessions=ended)

    async def _commit(
        self, shard: Keys, vm: str, expected: int, value: bytes | None, sessions: Sequence[str]
    ) -> Reply:
        """The script; ``sessions``: the author, then those to wake."""
        script = self._script(shard, vm, expected, value, sessions)
        return _reply(await shard.place.run(_COMMIT, _COMMIT_SHA, *script), vm, sessions)

    def _script(
        self, shard: Keys, vm: str, expected: int, value: bytes | None, sessions: Sequence[str]
    ) -> tuple[Any, ...]:
        return (
            len(sessions) + 2,
            shard.version,
            shard.vm_prefix + vm.encode(),
            *map(shard.session, sessions),
            expected,
            b"" if value is None else b":" + value,
            *self._more,
        )

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`."""
        self._check_open()
        return await self._sessions.remaining(sessions)

    async def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        until = monotonic() + timeout
        number = number_of(session)
        await self._receiving.take(None)
        try:
            self._check_open()
            while not self._mail.has_some(number):
                messages = await self._ears.hear(max(0.0, until - monotonic()))
                self._mail.sort(messages)
                if not messages or self._mail.missed:
                    break
            # No await from here on: what is taken is returned.
            events: list[Event] = list(self._mail.take(number))
            if self._ears.gap() or self._mail.missed:
                self._mail.missed = False
                events.insert(0, Missed())
            return events
        finally:
            await self._leave()

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        self._ears.interrupt()

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`. Walks the whole database, a thousand keys at a time."""
        self._check_open()
        seen = set[bytes]()
        for server in await self.topology.servers():
            cursor: bytes = b"0"
            while True:
                cursor, keys = await server.ask(
                    "SCAN", cursor, "MATCH", self._pattern, "COUNT", 1000
                )
                new = [key for key in dict.fromkeys(keys) if key not in seen]
                seen.update(new)  # Redis may give a key twice
                for found in await self._values(new):
                    yield found
                if cursor == b"0":
                    break

    async def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way ends or raises."""
        if self._closed:
            return
        self._closed = True
        self._ears.interrupt()
        try:
            # Not for ever: a receiver on a dead connection lets go after its own timeout.
            if await self._receiving.take(self._wait_to_close):
                await self._leave()
        finally:
            await self.topology.close()

    async def _leave(self) -> None:
        """End one's turn at the ears; whoever is the last, with the store closed, closes them."""
        try:
            if self._closed:
                await self._ears.close()
        finally:
            self._receiving.leave()

    def _check_open(self) -> None:
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)

    def _shard(self, vm: str) -> Keys:
        return self._shards[shard_of(vm, len(self._shards))]

    def _channels(self) -> dict[bytes, Place]:
        """Where commits publish to this client, and which server is to be listened to for it."""
        anywhere = self._shards[0].place  # in a cluster, PUBLISH is heard on every node
        return {
            shard.session(self._name): shard.place if self._wakes else anywhere
            for shard in self._shards
        }

    async def _rehearse(self) -> None:
        """Find out now, not with a job held, that the ACL user may run the script and publish."""
        publish = "SPUBLISH" if self._wakes else "PUBLISH"
        nobody = f"{self._name}.0"  # a session that never was
        for shard in self._shards:
            try:
                await shard.place.ask(publish, shard.session(self._name), b"")
                await self._commit(shard, "", ABSENT, None, (nobody,))
            except Lost:  # a part of a cluster may be down
                if shard is self._shards[-1]:
                    raise
            else:
                return

    async def _values(self, keys: Sequence[bytes]) -> list[tuple[str, Versioned]]:
        """What stands in ``keys``, all of VMs; nothing of those that have just been removed."""
        found: list[tuple[str, Versioned]] = []
        shards: dict[Keys, list[bytes]] = {}
        for key in keys:
            if shard := self._by_prefix.get(prefix_of(key)):
                shards.setdefault(shard, []).append(key)
        for shard, those in shards.items():
            try:
                values = await shard.place.ask("MGET", *those)
            except Between:
                values = [await shard.place.ask("GET", key) for key in those]
            for key, held in zip(those, values, strict=True):
                vm = vm_of(key, errors="replace")
                if (value := versioned(held, vm)).value is not None:
                    found.append((vm, value))
        return found


def _reply(reply: Any, vm: str, sessions: Sequence[str]) -> Reply:
    """What the script has answered."""
    if isinstance(reply, int):
        return Committed(version=reply)
    if isinstance(reply, list):
        return Gone(sessions=frozenset(sessions[place] for place in reply))
    current = versioned(reply, vm)
    return Stale(version=current.version, value=current.value)
