"""The nodes: where everything stands, and how values and wake-ups are written in them.

    distjob/<namespace>/format            the number of this layout, and the base of all versions
    distjob/<namespace>/vm/<name>         <life>=<value>
    distjob/<namespace>/vm/<name>/<life>  empty; made and deleted with the node above it
    distjob/<namespace>/session/<id>      its owner's name; its data version counts settlings
    distjob/<namespace>/beat/<id>         empty; its data version counts renewals
    distjob/<namespace>/wake/<id>         the last wake-up; its data version counts wake-ups

**A VM without a value has no node.** ZooKeeper counts the versions of a node that was deleted and
made again from 0, so that a version alone could match by chance what another has written since.
Therefore each life of a VM, from its making to its removal, has a name that is never used twice:
a child of the VM's node bears it, and a commit checks that child beside the version.

**A session is three ephemeral nodes**, made and deleted in one step, since each is compared by a
version of its own: who commits must be alive and not settled, who renews must not disturb who
commits, and who wakes neither. ``session/<id>`` is the session: while it is there, it lives.

**A version is the base and the zxid of the write.** The base is what the clock showed, in
microseconds, when the namespace was made: servers that were wiped count zxids from the start, but
versions go on rising. An election raises the zxid by 2**32, which is 72 minutes of the clock. No
session outlives the base that it began with: if the base is lost, so are its nodes.

Names are percent-encoded, "." too, which ZooKeeper would read as a relative path. Knows nothing
of kazoo, and does no IO.
"""

from __future__ import annotations

from typing import Any, Self
from urllib.parse import quote, unquote

from distjob.errors import RecordError
from distjob.store import ABSENT, Versioned, Woken

FORMAT = 3
"""Number of this layout; raised when an older distjob could not read a newer one's nodes."""
LARGEST = 1_000_000
"""Bytes of a value. A server drops a connection that sends more than its jute.maxbuffer, 1 MiB."""
PACKET = 1_040_000
"""Bytes of a whole commit, with its wake-ups."""
SENT_ALONG = 65536
"""Bytes of wake-ups in one commit: beyond this the value is left out, and read by who is woken."""
NOTHING = Versioned(ABSENT, None)


class Version(int):
    """What is told of a value as its version, and what a commit compares."""

    life: str
    """The VM's, in which it was written."""
    number: int
    """The data version of the VM's node."""

    def __new__(cls, version: int, life: str, number: int) -> Self:
        made = super().__new__(cls, version)
        made.life, made.number = life, number
        return made


NEVER = Version(-1, "~", 0)
"""The version of no value."""


class Layout:
    """The paths of one namespace below ``chroot``, and what is read there."""

    def __init__(self, namespace: str, chroot: str = "") -> None:
        self.root = f"{chroot}/distjob/{encoded(namespace)}"
        self.format = f"{self.root}/format"
        self.vms = f"{self.root}/vm"
        self.sessions = f"{self.root}/session"
        self.beats = f"{self.root}/beat"
        self.wakes = f"{self.root}/wake"
        self.base = 0
        """The base of all versions, as it was read when a session began."""

    def vm(self, vm: str) -> str:
        return f"{self.vms}/{encoded(vm)}"

    def session(self, session: str) -> str:
        return f"{self.sessions}/{encoded(session)}"

    def beat(self, session: str) -> str:
        return f"{self.beats}/{encoded(session)}"

    def wake(self, session: str) -> str:
        return f"{self.wakes}/{encoded(session)}"

    def nodes(self, session: str) -> tuple[str, str, str]:
        """All of a session's; the first is the session."""
        return self.session(session), self.beat(session), self.wake(session)

    def agreed(self, data: bytes) -> bool:
        """Whether ``format`` holds the number of this layout; if so the base is kept."""
        number, _, base = data.partition(b" ")
        ours = number == b"%d" % FORMAT and base.isdigit()
        if ours:
            self.base = int(base)
        return ours

    def found(self, vm: str, data: bytes, stat: Any) -> Versioned:
        """What a VM's node holds. Raises `RecordError` if it was not `packed`."""
        life, equals, value = data.partition(b"=")
        if not life or not equals or not life.isascii():
            msg = (
                f"ZooKeeper holds something else than a record for VM {vm!r}: {data[:40]!r}: "
                "delete its node, with all below it, when nobody works on the VM"
            )
            raise RecordError(msg)
        return Versioned(Version(self.base + stat.mzxid, life.decode(), stat.version), value)

    def woken(self, data: bytes, zxid: int) -> Woken | None:
        """The `wakeup` in a session's node; None if something else is."""
        try:
            life, number, name, written = data.split(b" ", 3)
            version = Version(self.base + zxid, life.decode("ascii"), int(number))
        except ValueError:
            return None
        if written[:1] not in (b"", b"-", b"="):
            return None
        vm = decoded(name.decode(errors="replace"))
        if written == b"-":
            return Woken(vm, int(version), None)
        return Woken(vm, version, written[1:] if written else None)


def packed(life: str, value: bytes) -> bytes:
    """``value`` as a VM's node holds it."""
    return life.encode() + b"=" + value


def wakeup(vm: str, value: bytes | None, life: str, number: int, *, removed: bool = False) -> bytes:
    """What a commit writes into the node of each session that it wakes.

    ``value``: None if there is none, which is ``removed``, or if it is left out. ``life`` and
    ``number`` are of what is written, so that who is woken can commit without a read.
    """
    written = b"-" if removed else b"" if value is None else b"=" + value
    return f"{life} {number} {encoded(vm)} ".encode() + written


def encoded(name: str) -> str:
    """``name`` as the name of a node; any text, each another node, none of them ``~...``."""
    if not name:
        return "%"
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def decoded(node: str) -> str:
    """The name that `encoded` made ``node`` of; its folder may stand before it."""
    return unquote(node.rpartition("/")[2], errors="replace")


def session_id(client: str, number: int, ttl: float) -> str:
    """An id that tells everybody its TTL."""
    return f"{client}-{number}-{round(ttl * 1000)}"


def ttl_of(session: str) -> float:
    """Seconds; what `session_id` wrote, 0.0 if it is no id of ours."""
    ttl_ms = session.rpartition("-")[2]
    return int(ttl_ms) / 1000 if ttl_ms.isascii() and ttl_ms.isdecimal() else 0.0
