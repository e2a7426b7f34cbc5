"""The keys, and how values, versions and wake-ups are written in them.

    distjob/{namespace}/format        number of this layout, and the base of all versions
    distjob/{namespace}/vm/<name>     a VM's value
    distjob/{namespace}/session/<id>  lives as long as the session's lease; the last wake-up's text
    distjob/{namespace}/owner/<id>    whose session it is, for people; on the same lease. How often
                                      it was written is the number that the session's commits name

**A version is the base and the revision of the write.** The base is what the clock showed, in
microseconds, when the namespace was made: a cluster that was wiped counts revisions from the start,
but versions go on rising. No session outlives the base that it began with: if the base is lost, so
are its keys.

Pure: no channel, thread or clock. Knows nothing of errors of gRPC.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from distjob.store import ABSENT, Missed, Versioned, Woken
from distjob_etcd import rpc_pb2 as rpc

FORMAT = 2
"""Number of this layout; raised when an older distjob could not read a newer one's keys."""

_LARGEST_SENT = 64 * 1024
"""Bytes; a larger value is not sent along with a wake-up."""
_LARGEST_MAIL = 256 * 1024
"""Bytes of all wake-ups of a commit: with the value they must fit into one request of etcd."""
LARGEST_ASKED = 100
"""Sessions in one transaction; etcd takes 128 operations, unless its operator changed that."""
_SESSION = re.compile(r"[0-9a-f]{16}\.(?P<lease>[0-7][0-9a-f]{15})\.(?P<ttl_ms>[0-9]{1,12})")


class Layout:
    """Of one namespace."""

    def __init__(self, namespace: str) -> None:
        # Quoted: a slash would let one namespace reach into another's keys.
        quoted = quote(namespace, safe="", errors="surrogatepass")
        self.prefix = f"distjob/{quoted}/".encode()
        self.format_key = self.prefix + b"format"
        self.vms = self.prefix + b"vm/"
        self.vms_end = self.prefix + b"vm0"  # "0" follows "/"
        self.sessions = self.prefix + b"session/"
        self.sessions_end = self.prefix + b"session0"
        self.owners = self.prefix + b"owner/"
        self.base = 0
        """The base of all versions, as it was read when a session began."""

    def vm_key(self, vm: str) -> bytes:
        """Where a VM's value is."""
        return self.vms + vm.encode()

    def session_key(self, session: str) -> bytes:
        """Whose existence says that the session lives. Ids of others' records may be anything."""
        return self.sessions + session.encode(errors="surrogatepass")

    def sessions_of(self, client: str) -> tuple[bytes, bytes]:
        """The first of the keys of all its sessions, and what follows the last one."""
        begin = self.session_key(client)
        return begin + b".", begin + b"/"  # which follows "."

    def owner_key(self, session: str) -> bytes:
        """The key whose version counts the settlings of a session; it ends with the session's."""
        return self.owners + session.encode(errors="surrogatepass")

    def vm_of(self, key: bytes) -> str:
        """The VM's name in its key."""
        return key[len(self.vms) :].decode(errors="replace")

    # -- what is asked for -----------------------------------------------------------------------

    def agree(self, base: int) -> rpc.TxnRequest:
        """Make the namespace, unless it is there; `agreed` reads the answer."""
        return rpc.TxnRequest(
            compare=[equal(self.format_key, create_revision=0)],
            success=[
                putting(key=self.format_key, value=b"%d %d" % (FORMAT, base)),
                ranging(key=self.format_key),
            ],
            failure=[ranging(key=self.format_key)],
        )

    def agreed(self, answer: rpc.TxnResponse) -> str:
        """What ``format`` holds if it is not ours; if it is, "", and its base is kept."""
        found = answer.responses[-1].response_range.kvs[0].value
        number, _, base = found.partition(b" ")
        if number != b"%d" % FORMAT or not base.isdigit():
            return str(found[:20].decode(errors="replace")) or "?"
        self.base = int(base)
        return ""

    def enter(self, session: str, owner: str) -> rpc.TxnRequest:
        """Make a session's keys, on its lease, if the namespace is there; for `agreed`, too."""
        lease, text = lease_of(session), owner.encode(errors="replace")
        return rpc.TxnRequest(
            compare=[there(self.format_key)],
            success=[
                putting(key=self.session_key(session), lease=lease),
                putting(key=self.owner_key(session), value=text, lease=lease),
                ranging(key=self.format_key),
            ],
        )

    def latest(self) -> rpc.RangeRequest:
        """Whose answer's header tells the revision that a majority has now."""
        return rpc.RangeRequest(key=self.format_key, count_only=True)

    def exists(self, session: str) -> rpc.RangeRequest:
        """Whether a session's key is there, and on which lease."""
        return rpc.RangeRequest(key=self.session_key(session), keys_only=True)

    def exist(self, sessions: Sequence[str]) -> rpc.TxnRequest:
        """The same of several, `LARGEST_ASKED` at most."""
        asked = (rpc.RequestOp(request_range=self.exists(session)) for session in sessions)
        return rpc.TxnRequest(success=asked)

    def page(self, start: bytes, limit: int) -> rpc.RangeRequest:
        """At most ``limit`` VMs from the key ``start`` on."""
        return rpc.RangeRequest(key=start, range_end=self.vms_end, limit=limit)

    # -- what is found ---------------------------------------------------------------------------

    def versioned(self, answer: rpc.RangeResponse) -> Versioned:
        """What a VM's key holds."""
        if not answer.kvs:
            return Versioned(version=ABSENT, value=None)
        kv = answer.kvs[0]
        return Versioned(version=self.base + kv.mod_revision, value=kv.value)

    def woken(self, kv: rpc.KeyValue) -> Woken | Missed | None:
        """The wake-up in a session's key; None if there is none, `Missed` if it can't be read."""
        if not kv.value:
            return None
        length, _, rest = kv.value.partition(b":")
        try:
            end = int(length)
            vm, value = rest[:end].decode(), rest[end:]
        except ValueError:
            return Missed()
        version = self.base + kv.mod_revision
        return Woken(vm=vm, version=version, value=value[1:] if value else None)


def letter(vm: str, value: bytes | None, readers: int) -> bytes:
    """A wake-up as the text of a session's key: "length of the name:name:value"."""
    name = vm.encode()
    sent = b""
    if value is not None and len(value) <= min(_LARGEST_SENT, _LARGEST_MAIL // readers):
        sent = b":" + value
    return b"%d:%b%b" % (len(name), name, sent)


# -- sessions -------------------------------------------------------------------------------------


def new_lease() -> int:
    """A lease's id that nobody has had: 62 bits of chance, never 0 (which means: you choose)."""
    return secrets.randbits(62) | 1 << 62


def session_id(client: str, lease: int, ttl: float) -> str:
    """An id that tells everybody its client, 16 hexadecimal digits, its lease and its TTL."""
    return f"{client}.{lease:016x}.{max(1, math.ceil(ttl * 1000))}"


def lease_of(session: str) -> int:
    """The lease in a session's id; 0 if it is no id of ours."""
    found = _SESSION.fullmatch(session)
    return int(found["lease"], 16) if found else 0


def seconds_left(session: str, found: rpc.RangeResponse) -> float:
    """Until ``session`` ends, at most, by the answer to `Layout.exists`: its TTL if it lives."""
    if not found.kvs:
        return 0.0
    known = _SESSION.fullmatch(session)
    if known is None or not found.kvs[0].lease:
        return math.inf  # somebody else has put it, without a lease
    return int(known["ttl_ms"]) / 1000


# -- parts of a transaction -----------------------------------------------------------------------

_TARGETS = {
    "mod_revision": rpc.Compare.MOD,
    "create_revision": rpc.Compare.CREATE,
    "version": rpc.Compare.VERSION,
}


def equal(key: bytes, **value: int) -> rpc.Compare:
    """A compare: one of `_TARGETS` of ``key`` has this ``value``; 0: the key is not there."""
    ((target, _),) = value.items()
    return rpc.Compare(result=rpc.Compare.EQUAL, target=_TARGETS[target], key=key, **value)


def there(key: bytes) -> rpc.Compare:
    """A compare: ``key`` exists."""
    return rpc.Compare(
        result=rpc.Compare.GREATER, target=rpc.Compare.CREATE, key=key, create_revision=0
    )


def ranging(**asked: Any) -> rpc.RequestOp:
    """To read."""
    return rpc.RequestOp(request_range=rpc.RangeRequest(**asked))


def putting(**written: Any) -> rpc.RequestOp:
    """To write."""
    return rpc.RequestOp(request_put=rpc.PutRequest(**written))
