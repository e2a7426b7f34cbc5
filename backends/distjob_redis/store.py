"""The verbs of `distjob.store.Store` on Redis; the keys, and how values are written in them.

    distjob:{namespace}:format              number of this layout, the same for all controllers
    distjob:{namespace}:version             the last version given out; all that an idle VM leaves
    distjob:{namespace}:vm:<name>           "version:value"
    distjob:{namespace}:session:<client>.n  the owner's name, with the session's TTL
    distjob:{namespace}:session:<client>    the client's channel; no key

The braces put all keys of a namespace into one hash slot. Knows nothing of redis-py's errors.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import secrets
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable, ConfigError, RecordError
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
from distjob_redis import server
from distjob_redis.server import NotAllowed, Server
from distjob_redis.settings import RedisSettings
from distjob_redis.subscription import Subscription

if TYPE_CHECKING:
    import redis

FORMAT = 1
"""Number of this layout; raised when an older distjob could not read a newer one's keys."""

_COMMIT = files(__package__).joinpath("commit.lua").read_text(encoding="utf-8")
_COMMIT_SHA = hashlib.sha1(_COMMIT.encode(), usedforsecurity=False).hexdigest()
_NOTHING = Versioned(version=ABSENT, value=None)
_NO_KEY, _NO_TTL = -2, -1


def connect(settings: RedisSettings, namespace: str, ttl: float) -> RedisStore:
    """A store with a client of its own; see `distjob.store.Backend.connect`."""
    client = server.client_for(settings)
    try:
        store = RedisStore(client, namespace, ttl)
    except BaseException:
        client.close()
        raise
    store.owns_client = True
    return store


class RedisStore:
    """One client's `Store` on the server that ``client`` is configured for.

    ``client`` may be any blocking `redis.Redis` that does not decode responses; its timeouts, TLS
    and credentials are used, and it is not closed. Connects at once: raises `ConfigError` or
    `BackendUnavailable`.
    """

    def __init__(self, client: redis.Redis, namespace: str, ttl: float) -> None:
        server.check_client(client)
        if not namespace:
            msg = "namespace is empty: name one, the same for all controllers that share VMs"
            raise ConfigError(msg)
        # Quoted: a brace would end the hash tag early, a star would match other keys in a scan.
        prefix = f"distjob:{{{quote(namespace, safe='', errors='surrogatepass')}}}:".encode()
        self._format_key = prefix + b"format"
        self._version_key = prefix + b"version"
        self._vm_prefix = prefix + b"vm:"
        self._session_prefix = prefix + b"session:"
        self._name = secrets.token_hex(16)
        self._numbers = itertools.count(1)
        self._ttls: dict[str, int] = {}
        self._ttl_ms = _milliseconds(ttl)
        self._client = client
        self._server = Server(client)
        self._channel = self._session_prefix + self._name.encode()
        self._subscription = Subscription(client, self._server, self._channel, ttl / 3)
        self._receiving = threading.Lock()
        self._arrived: list[tuple[int, Woken]] = []
        self._missed = False
        self._interrupted = threading.Event()
        self._closed = False
        self.owns_client = False
        """Whether `close` closes the client too."""

        try:
            facts = self._server.info()
            server.check(facts, self._server.name)
            self._agree()
            self._subscription.subscribe()
            self._rehearse()
        except BackendUnavailable as error:
            self._subscription.close()
            if isinstance(error, NotAllowed):
                raise ConfigError(str(error)) from error
            raise
        # A restart replays what was acknowledged, unless the whole host goes down: then the last
        # second is lost, except with `appendfsync always`. INFO does not tell that.
        self.guarantees = Guarantees(
            reach="network",
            wakes="push",
            durable=bool(facts.get("aof_enabled")),
            versions_survive_loss=True,
        )

    def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`."""
        if self._receiving.acquire(blocking=False):
            try:  # whoever is receiving has subscribed, or will and then report what was missed
                self._subscribed()
            finally:
                self._receiving.release()
        session = f"{self._name}.{next(self._numbers)}"
        ttl_ms = _milliseconds(ttl)
        self._ask("SET", self._session_key(session), owner, "PX", ttl_ms, change=True)
        self._ttls[session] = ttl_ms
        return session

    def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`."""
        ttl_ms = self._ttls.get(session, self._ttl_ms)
        if self._ask("PEXPIRE", self._session_key(session), ttl_ms, change=True):
            return True
        self._ttls.pop(session, None)
        return False

    def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        self._ask("DEL", self._session_key(session), change=True)
        self._ttls.pop(session, None)

    def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        return _versioned(self._ask("GET", self._vm_prefix + vm.encode()), vm)

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`."""
        self._check_open()
        sessions = (author, *wake)
        reply = self._server.run(
            _COMMIT,
            _COMMIT_SHA,
            len(sessions) + 2,
            self._version_key,
            self._vm_prefix + vm.encode(),
            *map(self._session_key, sessions),
            expected,
            b"" if value is None else b":" + value,
        )
        if isinstance(reply, int):
            return Committed(version=reply)
        if isinstance(reply, list):
            return Gone(sessions=frozenset(sessions[place] for place in reply))
        current = _versioned(reply, vm)
        return Stale(version=current.version, value=current.value)

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`."""
        self._check_open()
        if not sessions:
            return {}
        left = self._server.ask_all([("PTTL", self._session_key(name)) for name in sessions])
        return dict(zip(sessions, map(_seconds_left, left), strict=True))

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`. A connection that is cut may cost its timeout more."""
        until = monotonic() + timeout
        number = _number(session)
        with self._receiving:
            self._check_open()
            self._subscribed()
            events: list[Event] = list(self._take(number))
            while not events:
                stop = self._missed or self._interrupted.is_set()
                left = 0.0 if stop else max(0.0, until - monotonic())
                message = self._subscription.next(left)
                self._missed = self._subscription.gap() or self._missed
                if message is not None:
                    self._sort(message)
                    events += self._take(number)
                elif stop or left <= 0:
                    break
            self._interrupted.clear()
            if self._missed:
                self._missed = False
                events.insert(0, Missed())
            return events

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        self._interrupted.set()
        # Set before it is asked whether someone receives: who begins now sees the event.
        if self._receiving.locked() and not self._closed:
            try:
                self._server.ask("PUBLISH", self._channel, b"")
            except BackendUnavailable:
                return  # the receiver looks at the event when its connection is due to be asked

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`. Walks the whole database, a thousand keys at a time."""
        cursor, seen = b"0", set[bytes]()
        while True:
            cursor, keys = self._ask("SCAN", cursor, "MATCH", self._vm_prefix + b"*", "COUNT", 1000)
            if new := [key for key in dict.fromkeys(keys) if key not in seen]:
                seen.update(new)  # Redis may give a key twice
                for key, held in zip(new, self._ask("MGET", *new), strict=True):
                    vm = key[len(self._vm_prefix) :].decode(errors="replace")
                    if (value := _versioned(held, vm)).value is not None:
                        yield vm, value
            if cursor == b"0":
                return

    def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way ends or raises."""
        self.interrupt()
        self._closed = True
        # Not for ever: a receiver on a dead connection lets go after its own timeout.
        if self._receiving.acquire(timeout=self._ttl_ms / 1000):
            self._subscription.close()
            self._receiving.release()
        self._server.close()
        if self.owns_client:
            self._client.close()

    def _ask(self, *command: bytes | str | int, change: bool = False) -> Any:
        self._check_open()
        return self._server.ask(*command, change=change)

    def _check_open(self) -> None:
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)

    def _session_key(self, session: str) -> bytes:
        return self._session_prefix + session.encode()

    def _agree(self) -> None:
        """The first controller writes the layout's number, each checks it."""
        _, found = self._server.ask_all(
            [("SET", self._format_key, FORMAT, "NX"), ("GET", self._format_key)]
        )
        if found != b"%d" % FORMAT:
            shown = "?" if found is None else found.decode(errors="replace")
            msg = (
                f"Redis at {self._server.name}: this namespace is kept in format {shown}, this "
                f"distjob reads format {FORMAT}: run the same version on every controller"
            )
            raise ConfigError(msg)

    def _rehearse(self) -> None:
        """Find out now, not with a job held, that the ACL user may run the script and publish."""
        self._server.ask("PUBLISH", self._channel, b"")
        self.commit("", ABSENT, None, f"{self._name}.0", ())  # by a session that never was

    def _subscribed(self) -> None:
        if not self._subscription.alive:
            self._subscription.subscribe()
            self._missed = True

    def _sort(self, message: bytes) -> None:
        """Keep a wake-up ("n:length:key" + "version:value") until session n's receiver comes."""
        if not message:  # from `interrupt`
            return
        try:
            number, length, rest = message.split(b":", 2)
            key, held = rest[: int(length)], rest[int(length) :]
            vm = key.removeprefix(self._vm_prefix).decode()
            version, _, value = held.partition(b":")
            woken = Woken(vm, int(version), value if b":" in held else None)
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


def _versioned(held: bytes | None, vm: str) -> Versioned:
    """What a VM's key holds: "version:value", or nothing."""
    if held is None:
        return _NOTHING
    version, colon, value = held.partition(b":")
    if not colon or not version.isdigit():
        msg = f"Redis holds something else than a record for VM {vm!r}: {held[:40]!r}"
        raise RecordError(msg)
    return Versioned(version=int(version), value=value)


def _number(session: str) -> int:
    """The n of a session's id, 0 if it is no id of ours."""
    number = session.rpartition(".")[2]
    return int(number) if number.isdecimal() else 0


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def _seconds_left(ttl_ms: int) -> float:
    """PTTL's answer; in its last millisecond a session still lives, though Redis says 0."""
    if ttl_ms == _NO_KEY:
        return 0.0
    return math.inf if ttl_ms == _NO_TTL else max(1, ttl_ms) / 1000
