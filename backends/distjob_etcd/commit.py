"""A commit and a settling: the transactions that are asked of etcd, and what its answers mean.

A session's number (see `distjob.backend.settling`) is how often its owner key was written. One that
is right says, too, that the author lives, as the key ends with its lease.

Pure. Knows nothing of errors of gRPC.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from distjob.backend.settling import FIRST
from distjob.errors import RecordError
from distjob.store import ABSENT, Committed, Gone, Reply, Settled, Stale
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.guarantees import LARGEST
from distjob_etcd.layout import LARGEST_ASKED, Layout, equal, letter, putting, ranging, there


class Commit(NamedTuple):
    """One compare-and-set with its wake-ups; see `distjob.store.Store.commit`."""

    layout: Layout
    vm: str
    expected: int
    value: bytes | None
    author: str
    wake: Collection[str]
    number: int = FIRST
    """The author's, as it is known."""

    @property
    def woken(self) -> list[str]:
        """Only if a crowd dies there are more: who is left out looks by itself, in half a TTL."""
        return sorted(dict.fromkeys(self.wake))[:LARGEST_ASKED]

    @property
    def revision(self) -> int:
        """The mod revision that is expected; no key has one below 0."""
        return self.expected - self.layout.base if self.expected != ABSENT else 0

    def request(self) -> rpc.TxnRequest:
        """The transaction that makes this commit. Raises `RecordError` for too large a value."""
        if self.value is not None and len(self.value) > LARGEST:
            msg = (
                f"VM {self.vm!r}: its record would take {len(self.value)} bytes; etcd is used for "
                f"{LARGEST} at most: let fewer wait, with job.max_queued"
            )
            raise RecordError(msg)
        key, owner = self.layout.vm_key(self.vm), self.layout.owner_key(self.author)
        keys = [self.layout.session_key(session) for session in self.woken]
        written = []
        if self.value is not None:
            written.append(putting(key=key, value=self.value))
        elif self.expected != ABSENT:
            delete = rpc.DeleteRangeRequest(key=key)
            written.append(rpc.RequestOp(request_delete_range=delete))
        text = letter(self.vm, self.value, len(keys)) if keys else b""
        # A session's key stays on its lease.
        written += [putting(key=session, value=text, ignore_lease=True) for session in keys]
        if not written:  # so that this commit has a revision of its own
            mine = self.layout.session_key(self.author)
            written.append(putting(key=mine, ignore_lease=True))
        return rpc.TxnRequest(
            compare=[
                equal(key, mod_revision=self.revision),
                equal(owner, version=self.number),
                *map(there, keys),
            ],
            success=written,
            failure=[
                ranging(key=key),
                ranging(key=owner, keys_only=True),
                *(ranging(key=session, count_only=True) for session in keys),
            ],
        )

    def reply(self, answer: rpc.TxnResponse) -> Reply:
        """What came of it: an ended author, a settling, the version, then ended sessions."""
        if answer.succeeded:
            return Committed(version=self.layout.base + answer.header.revision)
        value, _, *found = (op.response_range for op in answer.responses)
        gone = {name for name, key in zip(self.woken, found, strict=True) if not key.count}
        if not (number := number_in(answer)):
            return Gone(sessions=frozenset({self.author, *gone}))
        if number != self.number:
            return Settled()
        current = self.layout.versioned(value)
        if current.version != self.expected:
            return Stale(version=current.version, value=current.value)
        if gone:
            return Gone(sessions=frozenset(gone))
        msg = f"VM {self.vm!r}: etcd refused a commit for no reason that can be seen"
        raise RecordError(msg)


def number_in(answer: rpc.TxnResponse) -> int:
    """The author's number, by the answer to a commit that failed; 0 if it has ended."""
    return _version(answer.responses[1])


def settling(layout: Layout, session: str, number: int) -> rpc.TxnRequest:
    """Raise the session's number, if it is ``number``; twice is the same as once."""
    key = layout.owner_key(session)
    return rpc.TxnRequest(
        compare=[equal(key, version=number)],
        success=[putting(key=key, ignore_value=True, ignore_lease=True)],
        failure=[ranging(key=key, keys_only=True)],
    )


def settled(answer: rpc.TxnResponse, number: int) -> int:
    """The session's number after `settling`; 0 if it has ended, and with it all that it has sent"""
    return number + 1 if answer.succeeded else _version(answer.responses[0])


def _version(found: rpc.ResponseOp) -> int:
    kvs = found.response_range.kvs
    return kvs[0].version if kvs else 0
