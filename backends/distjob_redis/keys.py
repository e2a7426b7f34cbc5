"""The keys, and how values are written in them.

    distjob:{namespace}:format              number of this layout, the same for all controllers
    distjob:{namespace}:version             the last version given out; all that an idle VM leaves
    distjob:{namespace}:vm:<name>           "version:value"
    distjob:{namespace}:session:<client>.n  the owner's name, with the session's TTL
    distjob:{namespace}:session:<client>    the client's channel; no key

The braces put all keys of a namespace into one hash slot. In a cluster there is a shard for each
of several slots: but for ``format``, every key has ``{namespace:number}`` in place of the above.
A session's *home* is the shard whose number is n modulo their count. Knows nothing of connections.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING
from urllib.parse import quote

from distjob.errors import ConfigError, RecordError
from distjob.store import ABSENT, Versioned

if TYPE_CHECKING:
    from distjob_redis.topology import Topology

FORMAT = 1
"""Number of this layout; raised when an older distjob could not read a newer one's keys."""
NOTHING = Versioned(version=ABSENT, value=None)
_VM = b"}:vm:"


class Keys:
    """The keys of one shard."""

    __slots__ = ("number", "place", "prefix", "session_prefix", "version", "vm_prefix")

    def __init__(self, namespace: str, number: int | None, topology: Topology) -> None:
        tag = quoted(namespace) + ("" if number is None else f":{number}")
        self.number = number or 0
        self.prefix = f"distjob:{{{tag}}}:".encode()
        self.place = topology.place(self.prefix)
        """Where they are."""
        self.version = self.prefix + b"version"
        self.vm_prefix = self.prefix + b"vm:"
        self.session_prefix = self.prefix + b"session:"

    def vm(self, vm: str) -> bytes:
        """Where ``vm``'s value stands."""
        return self.vm_prefix + vm.encode()

    def session(self, session: str) -> bytes:
        """What is there while ``session`` lives."""
        return self.session_prefix + session.encode()


def quoted(namespace: str) -> str:
    """``namespace`` for use in keys. Raises `ConfigError` if it is empty."""
    if not namespace:
        msg = "namespace is empty: name one, the same for all controllers that share VMs"
        raise ConfigError(msg)
    # A brace would end the hash tag early, a star would match other keys in a scan.
    return quote(namespace, safe="", errors="surrogatepass")


def all_vms(namespace: str, *, sharded: bool) -> bytes:
    """The pattern of the keys of all VMs."""
    return f"distjob:{{{quoted(namespace)}{':*' if sharded else ''}}}:vm:*".encode()


def prefix_of(key: bytes) -> bytes:
    """The prefix of the shard that the VM's ``key`` is in."""
    return key[: key.index(_VM) + 2]


def vm_of(key: bytes, errors: str = "strict") -> str:
    """The VM whose value ``key`` holds. Raises `ValueError` if it is the key of none."""
    return key[key.index(_VM) + len(_VM) :].decode(errors=errors)


def number_of(session: str) -> int:
    """The n of a session's id, 0 if it is no id of ours."""
    number = session.rpartition(".")[2]
    return int(number) if number.isdecimal() and len(number) < 20 else 0


def shard_of(vm: str, shards: int) -> int:
    """The number of the shard that ``vm`` is in; must never change."""
    return zlib.crc32(vm.encode()) % shards


def versioned(held: bytes | None, vm: str) -> Versioned:
    """What a VM's key holds: "version:value", or nothing. Raises `RecordError`."""
    if held is None:
        return NOTHING
    version, colon, value = held.partition(b":")
    if not colon or not version.isdigit():
        msg = f"Redis holds something else than a record for VM {vm!r}: {held[:40]!r}"
        raise RecordError(msg)
    return Versioned(version=int(version), value=value)
