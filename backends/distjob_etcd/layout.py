"""The keys, and what is asked of etcd for each verb: requests are built and answers read here.

    distjob/{namespace}/format        number of this layout, the same for all controllers
    distjob/{namespace}/vm/<name>     a VM's value; its mod revision is the version
    distjob/{namespace}/session/<id>  lives as long as the session's lease; the last wake-up's text
    distjob/{namespace}/owner/<id>    whose session it is, for people; on the same lease. How often
                                      it was written is the number that the session's commits name

Pure: no channel, thread or clock. Knows nothing of errors of gRPC.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence
from urllib.parse import quote

from distjob.store import ABSENT, Missed, Versioned, Woken
from distjob_etcd import rpc_pb2 as rpc

FORMAT = 1
"""Number of this layout; raised when an older distjob could not read a newer one's keys."""

_LARGEST_SENT = 64 * 1024
"""Bytes; a larger value is not sent along with a wake-up."""
_LARGEST_MAIL = 256 * 1024
"""Bytes of all wake-ups of a commit: with the value they must fit into one request of etcd."""
LARGEST_ASKED = 100
"""Sessions in one transaction; etcd takes 128 operations, unless its operator changed that."""
_SESSION = re.compile(r"(?P<lease>[0-7][0-9a-f]{15})\.[0-9a-f]{16}\.(?P<ttl_ms>[0-9]{1,12})")
_NOTHING = Versioned(version=ABSENT, value=None)


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

    def vm_key(self, vm: str) -> bytes:
        """Where a VM's value is."""
        return self.vms + vm.encode()

    def session_key(self, session: str) -> bytes:
        """Whose existence says that the session lives. Ids of others' records may be anything."""
        return self.sessions + session.encode(errors="surrogatepass")

    def owner_key(self, session: str) -> bytes:
        """The key whose version counts the settlings of a session; it ends with the session's."""
        return self.owners + session.encode(errors="surrogatepass")

    def woken(self, kv: rpc.KeyValue) -> Woken | Missed | None:
        """The wake-up in a session's key; None if there is none, `Missed` if it can't be read."""
        return _read_letter(kv.value, kv.mod_revision) if kv.value else None

    def agree(self) -> rpc.TxnRequest:
        """Write the layout's number unless it is there; `agreed` reads the answer."""
        return rpc.TxnRequest(
            compare=[
                rpc.Compare(
                    result=rpc.Compare.EQUAL,
                    target=rpc.Compare.CREATE,
                    key=self.format_key,
                    create_revision=0,
                )
            ],
            success=[
                rpc.RequestOp(request_put=rpc.PutRequest(key=self.format_key, value=b"%d" % FORMAT))
            ],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=self.format_key))],
        )

    def agreed(self, answer: rpc.TxnResponse) -> str:
        """The layout's number that stands in the store, as text."""
        if answer.succeeded:
            return str(FORMAT)
        found = answer.responses[0].response_range.kvs
        return found[0].value[:20].decode(errors="replace") if found else "?"

    def enter(self, session: str, owner: str) -> rpc.TxnRequest:
        """Make a session's keys, on its lease."""
        lease = lease_of(session)
        return rpc.TxnRequest(
            success=[
                rpc.RequestOp(
                    request_put=rpc.PutRequest(key=self.session_key(session), lease=lease)
                ),
                rpc.RequestOp(
                    request_put=rpc.PutRequest(
                        key=self.owner_key(session),
                        value=owner.encode(errors="replace"),
                        lease=lease,
                    )
                ),
            ]
        )

    def latest(self) -> rpc.RangeRequest:
        """Whose answer's header tells the revision that a majority has now."""
        return rpc.RangeRequest(key=self.format_key, count_only=True)

    def exists(self, session: str) -> rpc.RangeRequest:
        """Whether a session's key is there, and on which lease."""
        return rpc.RangeRequest(key=self.session_key(session), keys_only=True)

    def exist(self, sessions: Sequence[str]) -> rpc.TxnRequest:
        """The same of several, `LARGEST_ASKED` at most."""
        return rpc.TxnRequest(
            success=[rpc.RequestOp(request_range=self.exists(session)) for session in sessions]
        )

    def page(self, start: bytes, limit: int) -> rpc.RangeRequest:
        """At most ``limit`` VMs from the key ``start`` on."""
        return rpc.RangeRequest(key=start, range_end=self.vms_end, limit=limit)

    def vm_of(self, key: bytes) -> str:
        """The VM's name in its key."""
        return key[len(self.vms) :].decode(errors="replace")


def versioned(answer: rpc.RangeResponse) -> Versioned:
    """What a VM's key holds."""
    if not answer.kvs:
        return _NOTHING
    kv = answer.kvs[0]
    return Versioned(version=kv.mod_revision, value=kv.value)


def new_lease() -> int:
    """A lease's id that nobody has had: 62 bits of chance, never 0 (which means: you choose)."""
    return secrets.randbits(62) | 1 << 62


def session_id(lease: int, ttl: float) -> str:
    """An id that carries its lease and TTL, and is new even if the lease's number were not."""
    return f"{lease:016x}.{secrets.token_hex(8)}.{max(1, math.ceil(ttl * 1000))}"


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


def letter(vm: str, value: bytes | None, readers: int) -> bytes:
    """A wake-up as the text of a session's key: "length of the name:name:value"."""
    name = vm.encode()
    sent = b""
    if value is not None and len(value) <= min(_LARGEST_SENT, _LARGEST_MAIL // readers):
        sent = b":" + value
    return b"%d:%b%b" % (len(name), name, sent)


def _read_letter(text: bytes, version: int) -> Woken | Missed:
    length, _, rest = text.partition(b":")
    try:
        end = int(length)
        vm, value = rest[:end].decode(), rest[end:]
    except ValueError:
        return Missed()
    return Woken(vm=vm, version=version, value=value[1:] if value else None)
