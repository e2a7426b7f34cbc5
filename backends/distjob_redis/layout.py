"""The keys, and how values, sessions and wake-ups are written. Pure.

    distjob:{namespace}:format              number of this layout, the same for all controllers
    distjob:{namespace}:version             the last version given out; all that an idle VM leaves
    distjob:{namespace}:vm:<name>           "version:value"
    distjob:{namespace}:session:<client>.n  "number:secret:owner", with the session's TTL
    distjob:{namespace}:session:<client>    the client's channel; no key

The braces put all keys of a namespace into one hash slot. Where VMs are spread over several shards,
each is a slot of its own: but for ``format``, every key has ``{namespace:shard}`` in place of the
above. *number* says how often the session was settled: a commit names it, and is refused once it
was raised. *secret* comes with each wake-up of the session, as whoever may publish needs no key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

from distjob.backend.settling import FIRST
from distjob.errors import ConfigError, RecordError
from distjob.store import (
    ABSENT,
    Committed,
    Event,
    Gone,
    Missed,
    Reply,
    Settled,
    Stale,
    Versioned,
    Woken,
)

FORMAT = 2
"""Number of this layout; raised when an older distjob could not read a newer one's keys."""
_NOTHING = Versioned(version=ABSENT, value=None)


class Script(NamedTuple):
    """A Lua script, which a server carries out in one step."""

    text: str
    digest: str

    @classmethod
    def load(cls, name: str) -> Script:
        """That of a file of ours."""
        text = files(__package__).joinpath(name).read_text(encoding="utf-8")
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


COMMIT, SETTLE = Script.load("commit.lua"), Script.load("settle.lua")


class Layout:
    """The keys of one shard; ``shard`` None: all of the namespace is in one."""

    def __init__(self, namespace: str, shard: int | None = None) -> None:
        """Raises `ConfigError` if the namespace is empty."""
        if not namespace:
            msg = "namespace is empty: name one, the same for all controllers that share VMs"
            raise ConfigError(msg)
        # A brace would end the hash tag early, a star would match other keys in a scan.
        name = quote(namespace, safe="", errors="surrogatepass")
        self.format = f"distjob:{{{name}}}:format".encode()
        tag = name if shard is None else f"{name}:{shard}"
        self.prefix = f"distjob:{{{tag}}}:".encode()
        self.version = self.prefix + b"version"
        self.vms = self.prefix + b"vm:"
        self._sessions = self.prefix + b"session:"
        self.publish: tuple[str, ...] = ()
        """What to wake with; nothing: PUBLISH."""

    def vm(self, vm: str) -> bytes:
        """Where the value of ``vm`` stands."""
        return self.vms + vm.encode()

    def vm_of(self, key: bytes, errors: str = "strict") -> str:
        """The VM whose value ``key`` holds. Raises `ValueError` if it is the key of none."""
        if not key.startswith(self.vms):
            raise ValueError(key)
        return key[len(self.vms) :].decode(errors=errors)

    def session(self, session: str) -> bytes:
        """What is there while ``session`` lives; of a client, its channel."""
        return self._sessions + session.encode()

    def commit(
        self,
        vm: str,
        expected: int,
        value: bytes | None,
        sessions: Sequence[str],
        number: int = FIRST,
    ) -> tuple[Any, ...]:
        """What `COMMIT` is given; ``sessions``: the author, whose ``number`` it is, and whom to
        wake."""
        return (
            len(sessions) + 2,
            self.version,
            self.vms + vm.encode(),
            *map(self.session, sessions),
            expected,
            b"" if value is None else b":" + value,
            number,
            *self.publish,
        )


def session_value(secret: str, owner: str) -> bytes:
    """What a new session's key holds."""
    return f"{FIRST}:{secret}:{owner}".encode()


def replied(answer: Any, vm: str, sessions: Sequence[str]) -> Reply:
    """What `COMMIT` has answered. Raises `RecordError`."""
    if isinstance(answer, int):
        return Committed(version=answer)
    if not isinstance(answer, list):
        current = versioned(answer, vm)
        return Stale(version=current.version, value=current.value)
    if answer[0] < 0:
        return Settled()
    return Gone(sessions=frozenset(sessions[place] for place in answer))


def versioned(held: bytes | None, vm: str) -> Versioned:
    """What a VM's key holds: "version:value", or nothing. Raises `RecordError`."""
    if held is None:
        return _NOTHING
    version, colon, value = held.partition(b":")
    if not colon or not version.isdigit():
        msg = f"Redis holds something else than a record for VM {vm!r}: {held[:40]!r}"
        raise RecordError(msg)
    return Versioned(version=int(version), value=value)


class Post:
    """How wake-ups of the client ``name`` are read: "n:secret:length:key" + "version:value"."""

    def __init__(self, layout: Layout, name: str, secret: str) -> None:
        self._layout = layout
        self._name = name
        self._secret = secret.encode()

    def read(self, message: bytes) -> tuple[str, Event] | None:
        """The session that is meant, and the event; None: it was not a commit that has sent it."""
        number, _, rest = message.partition(b":")
        secret, _, rest = rest.partition(b":")
        if not number.isdigit() or not hmac.compare_digest(secret, self._secret):
            return None
        session = f"{self._name}.{number.decode()}"
        try:
            length, rest = rest.split(b":", 1)
            key, held = rest[: int(length)], rest[int(length) :]
            version, _, value = held.partition(b":")
            woken = Woken(self._layout.vm_of(key), int(version), value if b":" in held else None)
        except ValueError:  # by a server that is broken: whoever waits reads
            return session, Missed()
        return session, woken
