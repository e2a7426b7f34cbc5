"""The nodes: where everything stands, and how values and wake-ups are written in them.

    distjob/<namespace>/format        number of this layout, the same for all controllers
    distjob/<namespace>/epoch         its data version is raised by whoever deletes VMs' nodes
    distjob/<namespace>/vm/<name>     b"=" + value; nothing: the VM has no value
    distjob/<namespace>/session/<id>  ephemeral; the owner's name, then the last wake-up

Names are percent-encoded, "." too, which ZooKeeper would read as a relative path. Knows nothing
of kazoo.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote

from distjob.errors import RecordError

FORMAT = 1
"""Number of this layout; raised when an older distjob could not read a newer one's nodes."""
LARGEST = 1_000_000
"""Bytes of a value. A server drops a connection that sends more than its jute.maxbuffer, 1 MiB."""
PACKET = 1_040_000
"""Bytes of a whole commit, with its wake-ups."""
SENT_ALONG = 65536
"""Bytes of wake-ups in one commit: beyond this the value is left out, and read by who is woken."""


class Epoch(NamedTuple):
    """Which life of the layout, and how often nodes were deleted in it.

    A node that is deleted and made again counts its versions from 0 again, so that a version seen
    before could match by chance. Every commit therefore names the epoch in which it saw it.
    """

    born: int
    """The zxid that made the node; another if all was wiped."""
    number: int


class Wakeup(NamedTuple):
    """What a commit writes into each session it wakes."""

    vm: str
    value: bytes | None
    removed: bool
    """There is no value; else None means that it was left out."""
    node: int
    """The data version of the VM's node, so that who is woken can commit without a read."""
    epoch: Epoch


class Layout:
    """The paths of one namespace below ``chroot``."""

    def __init__(self, namespace: str, chroot: str = "") -> None:
        self.root = f"{chroot}/distjob/{encoded(namespace)}"
        self.format = f"{self.root}/format"
        self.epoch = f"{self.root}/epoch"
        self.vms = f"{self.root}/vm"
        self.sessions = f"{self.root}/session"

    def vm(self, vm: str) -> str:
        return f"{self.vms}/{encoded(vm)}"

    def session(self, session: str) -> str:
        return f"{self.sessions}/{encoded(session)}"


def encoded(name: str) -> str:
    """``name`` as the name of a node; any text, each another node, none of them ``~...``."""
    if not name:
        return "%"
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def decoded(node: str) -> str:
    """The name that `encoded` made ``node`` of."""
    return unquote(node, errors="replace")


def session_id(client: str, number: int, ttl: float) -> str:
    """An id that tells everybody its TTL."""
    return f"{client}-{number}-{round(ttl * 1000)}"


def ttl_of(session: str) -> float:
    """Seconds; what `session_id` wrote, 0.0 if it is no id of ours."""
    ttl_ms = session.rpartition("-")[2]
    return int(ttl_ms) / 1000 if ttl_ms.isascii() and ttl_ms.isdecimal() else 0.0


def packed(value: bytes | None) -> bytes:
    """``value`` as a VM's node holds it."""
    return b"" if value is None else b"=" + value


def unpacked(data: bytes | None, vm: str) -> bytes | None:
    """The value in a VM's node. Raises `RecordError` if it was not `packed`."""
    if not data:
        return None
    if data[:1] != b"=":
        msg = f"ZooKeeper holds something else than a record for VM {vm!r}: {data[:40]!r}"
        raise RecordError(msg)
    return data[1:]


def message(wakeup: Wakeup) -> bytes:
    """``wakeup`` as a session's node holds it."""
    name = wakeup.vm.encode()
    head = b"%d %d %d %d:" % (*wakeup.epoch, wakeup.node, len(name))
    if wakeup.removed:
        return head + name + b"-"
    return head + name + packed(wakeup.value)


def wakeup(data: bytes) -> Wakeup | None:
    """What `message` wrote; None if ``data`` is something else."""
    head, colon, rest = data.partition(b":")
    try:
        born, number, node, length = map(int, head.split(b" "))
        vm, written = rest[:length].decode(), rest[length:]
    except ValueError:
        return None
    if not colon or written[:1] not in {b"", b"-", b"="}:
        return None
    value = written[1:] if written[:1] == b"=" else None
    return Wakeup(vm, value, written == b"-", node, Epoch(born, number))
