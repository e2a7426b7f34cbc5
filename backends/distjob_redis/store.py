"""The verbs of `distjob.store.Store` on Redis, whatever the servers: `RedisStore`.

A commit is one script on the server that has the VM's shard. Knows nothing of redis-py's errors,
nor which server that is.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

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
    Woken,
)
from distjob_redis import connecting
from distjob_redis.answers import Between, Lost, Unfit
from distjob_redis.ears import Ears
from distjob_redis.guarantees import PROMISES
from distjob_redis.keys import Keys, all_vms, number_of, prefix_of, shard_of, versioned, vm_of
from distjob_redis.sessions import Sessions
from distjob_redis.settings import SHARDS, RedisSettings
from distjob_redis.topology import Place, Topology

if TYPE_CHECKING:
    import redis

_COMMIT = files(__package__).joinpath("commit.lua").read_text(encoding="utf-8")
_COMMIT_SHA = hashlib.sha1(_COMMIT.encode(), usedforsecurity=False).hexdigest()


def connect(settings: RedisSettings, namespace: str, ttl: float) -> RedisStore:
    """A store with clients of its own; see `distjob.store.Backend.connect`."""
    shards = settings.cluster.shards if settings.cluster else 1
    return RedisStore(connecting.topology_for(settings), namespace, ttl, shards=shards)


class RedisStore:
    """One client's `Store` on the servers that ``client`` is configured for.

    ``client`` may be any blocking `redis.Redis` that does not decode responses, one made by
    `redis.sentinel.Sentinel.master_for` among them, or a `redis.RedisCluster`; its timeouts, TLS
    and credentials are used, and it is not closed. ``shards``: of a cluster, among how many hash
    slots VMs are spread; the same for all controllers. Connects at once: raises `ConfigError` or
    `BackendUnavailable`.
    """

    guarantees: Guarantees

    def __init__(
        self,
        client: redis.Redis | redis.RedisCluster | Topology,
        namespace: str,
        ttl: float,
        *,
        shards: int = SHARDS,
    ) -> None:
        self.topology = connecting.topology_of(client)
        """The servers, and how they are reached."""
        sharded = self.topology.kind == "cluster"
        self._name = secrets.token_hex(16)
        self._wait_to_close = ttl
        self._receiving = threading.Lock()
        self._arrived: list[tuple[int, Woken]] = []
        self._missed = False
        self._closed = False
        try:
            agreed = connecting.agree(self.topology, namespace, shards if sharded else 1)
            self._shards = agreed.shards
            self._by_prefix = {shard.prefix: shard for shard in self._shards}
            self._pattern = all_vms(namespace, sharded=len(agreed.shards) > 1)
            self._wakes = agreed.sharded_wakes
            self._more = ("SPUBLISH",) if self._wakes else ()
            self._sessions = Sessions(
                self._shards, self.topology, self._name, ttl, 1 + secrets.randbelow(1000)
            )
            self._ears = Ears(
                self._channels(),
                ttl / 3,
                sharded=self._wakes,
                watchers=self.topology.watchers(),
                alarm=self.topology.confirm,
            )
            try:
                self._ears.mend()
                self._ears.gap()  # nobody could have sent anything before
                self._rehearse()
            except BaseException:
                self._ears.close()
                raise
        except Unfit as error:
            self.topology.close()
            raise ConfigError(str(error)) from error
        except BaseException:
            self.topology.close()
            raise
        self._missed = False
        promised = PROMISES[self.topology.kind]
        self.guarantees = msgspec.structs.replace(promised, durable=agreed.durable)

    def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`."""
        self._check_open()
        if self._receiving.acquire(blocking=False):
            try:  # whoever is receiving has subscribed, or will and then report what was missed
                self._ears.mend()
            finally:
                self._receiving.release()
        return self._sessions.open(ttl, owner)

    def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`."""
        self._check_open()
        return self._sessions.keep_alive(session)

    def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        self._check_open()
        self._sessions.close(session)

    def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        self._check_open()
        shard = self._shard(vm)
        return versioned(shard.place.ask("GET", shard.vm(vm)), vm)

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`. The first in a shard is two round trips."""
        self._check_open()
        shard = self._shards[0]
        if len(self._shards) == 1:
            return self._commit(shard, vm, expected, value, (author, *wake))
        shard = self._shard(vm)
        if not self._sessions.enter(shard, author):
            return Gone(sessions=frozenset((author,)))
        while True:
            reply = self._commit(shard, vm, expected, value, (author, *wake))
            if not isinstance(reply, Gone):
                return reply
            if ended := self._sessions.without_key(shard, reply.sessions):
                return Gone(sessions=ended)

    def _commit(
        self, shard: Keys, vm: str, expected: int, value: bytes | None, sessions: Sequence[str]
    ) -> Reply:
        """The script; ``sessions``: the author, then those to wake."""
        reply = shard.place.run(
            _COMMIT,
            _COMMIT_SHA,
            len(sessions) + 2,
            shard.version,
            shard.vm_prefix + vm.encode(),
            *map(shard.session, sessions),
            expected,
            b"" if value is None else b":" + value,
            *self._more,
        )
        if isinstance(reply, int):
            return Committed(version=reply)
        if isinstance(reply, list):
            return Gone(sessions=frozenset(sessions[place] for place in reply))
        current = versioned(reply, vm)
        return Stale(version=current.version, value=current.value)

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`."""
        self._check_open()
        return self._sessions.remaining(sessions)

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        until = monotonic() + timeout
        number = number_of(session)
        with self._receiving:
            self._check_open()
            events: list[Event] = list(self._take(number))
            while not events:
                messages = self._ears.hear(max(0.0, until - monotonic()))
                for message in messages:
                    self._sort(message)
                events += self._take(number)
                if not messages or self._missed:
                    break
            if self._ears.gap() or self._missed:
                self._missed = False
                events.insert(0, Missed())
            return events

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        self._ears.interrupt()

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`. Walks the whole database, a thousand keys at a time."""
        self._check_open()
        seen = set[bytes]()
        for server in self.topology.servers():
            cursor: bytes = b"0"
            while True:
                cursor, keys = server.ask("SCAN", cursor, "MATCH", self._pattern, "COUNT", 1000)
                new = [key for key in dict.fromkeys(keys) if key not in seen]
                seen.update(new)  # Redis may give a key twice
                yield from self._values(new)
                if cursor == b"0":
                    break

    def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way ends or raises."""
        if self._closed:
            return
        self._closed = True
        self._ears.interrupt()
        # Not for ever: a receiver on a dead connection lets go after its own timeout.
        if self._receiving.acquire(timeout=self._wait_to_close):
            self._ears.close()
            self._receiving.release()
        self.topology.close()

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

    def _rehearse(self) -> None:
        """Find out now, not with a job held, that the ACL user may run the script and publish."""
        publish = "SPUBLISH" if self._wakes else "PUBLISH"
        nobody = f"{self._name}.0"  # a session that never was
        for shard in self._shards:
            try:
                shard.place.ask(publish, shard.session(self._name), b"")
                self._commit(shard, "", ABSENT, None, (nobody,))
            except Lost:  # a part of a cluster may be down
                if shard is self._shards[-1]:
                    raise
            else:
                return

    def _values(self, keys: Sequence[bytes]) -> Iterator[tuple[str, Versioned]]:
        """What stands in ``keys``, all of VMs; nothing of those that have just been removed."""
        shards: dict[Keys, list[bytes]] = {}
        for key in keys:
            if shard := self._by_prefix.get(prefix_of(key)):
                shards.setdefault(shard, []).append(key)
        for shard, those in shards.items():
            try:
                values = shard.place.ask("MGET", *those)
            except Between:
                values = [shard.place.ask("GET", key) for key in those]
            for key, held in zip(those, values, strict=True):
                vm = vm_of(key, errors="replace")
                if (value := versioned(held, vm)).value is not None:
                    yield vm, value

    def _sort(self, message: bytes) -> None:
        """Keep a wake-up ("n:length:key" + "version:value") until session n's receiver comes."""
        try:
            number, length, rest = message.split(b":", 2)
            key, held = rest[: int(length)], rest[int(length) :]
            version, _, value = held.partition(b":")
            woken = Woken(vm_of(key), int(version), value if b":" in held else None)
            self._arrived.append((int(number), woken))
        except ValueError:
            self._missed = True  # not one of ours, or broken: whoever waits reads

    def _take(self, number: int) -> Iterator[Woken]:
        """What arrived for session ``number``; later sessions' stays, earlier ones' is dropped."""
        arrived, self._arrived = self._arrived, []
        for to, woken in arrived:
            if to == number:
                yield woken
            elif to > number:
                self._arrived.append((to, woken))
