"""A commit and a settling: the transactions that are asked of etcd, and what its answers mean.

A session's number (see `distjob.backend.settling`) is how often its owner key was written. One that
is right says, too, that the author lives, as the key ends with its lease.

Pure. Knows nothing of errors of gRPC.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from distjob.backend.settling import FIRST
from distjob.errors import RecordError
from distjob.store import ABSENT, Committed, Gone, Reply, Settled, Stale
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.guarantees import LARGEST
from distjob_etcd.layout import LARGEST_ASKED, Layout, letter, versioned


class Commit(NamedTuple):
    """One compare-and-set with its wake-ups; see `distjob.store.Store.commit`."""

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

    def request(self, layout: Layout) -> rpc.TxnRequest:
        """The transaction that makes this commit. Raises `RecordError` for too large a value."""
        if self.value is not None and len(self.value) > LARGEST:
            msg = (
                f"VM {self.vm!r}: its record would take {len(self.value)} bytes; etcd is used for "
                f"{LARGEST} at most: let fewer wait, with job.max_queued"
            )
            raise RecordError(msg)
        key, owner = layout.vm_key(self.vm), layout.owner_key(self.author)
        keys = [layout.session_key(session) for session in self.woken]
        txn = rpc.TxnRequest(
            compare=[
                _is_at(key, self.expected),
                _is_numbered(owner, self.number),
                *(_exists(session) for session in keys),
            ],
            failure=[
                _range(key=key),
                _range(key=owner, keys_only=True),
                *(_range(key=session, count_only=True) for session in keys),
            ],
        )
        if self.value is not None:
            _put(txn, key=key, value=self.value)
        elif self.expected != ABSENT:
            txn.success.add().request_delete_range.key = key
        text = letter(self.vm, self.value, len(keys)) if keys else b""
        for session in keys:  # which stays on its lease
            _put(txn, key=session, value=text, ignore_lease=True)
        if not txn.success:  # so that this commit has a revision of its own
            _put(txn, key=layout.session_key(self.author), value=b"", ignore_lease=True)
        return txn

    def reply(self, answer: rpc.TxnResponse) -> Reply:
        """What came of it: an ended author, a settling, the version, then ended sessions."""
        if answer.succeeded:
            return Committed(version=answer.header.revision)
        value, _, *found = (op.response_range for op in answer.responses)
        gone = {name for name, there in zip(self.woken, found, strict=True) if not there.count}
        if not (number := number_in(answer)):
            return Gone(sessions=frozenset({self.author, *gone}))
        if number != self.number:
            return Settled()
        current = versioned(value)
        if current.version != self.expected:
            return Stale(version=current.version, value=current.value)
        if gone:
            return Gone(sessions=frozenset(gone))
        msg = f"VM {self.vm!r}: etcd refused a commit for no reason that can be seen"
        raise RecordError(msg)


def number_in(answer: rpc.TxnResponse) -> int:
    """The author's number, by the answer to a commit that failed; 0 if it has ended."""
    return _version(answer.responses[1].response_range)


def settling(layout: Layout, session: str, number: int) -> rpc.TxnRequest:
    """Raise the session's number, if it is ``number``; twice is the same as once."""
    key = layout.owner_key(session)
    txn = rpc.TxnRequest(
        compare=[_is_numbered(key, number)], failure=[_range(key=key, keys_only=True)]
    )
    _put(txn, key=key, ignore_value=True, ignore_lease=True)
    return txn


def settled(answer: rpc.TxnResponse, number: int) -> int:
    """The session's number after `settling`; 0 if it has ended, and with it all that it has sent"""
    return number + 1 if answer.succeeded else _version(answer.responses[0].response_range)


def _is_at(key: bytes, version: int) -> rpc.Compare:
    return rpc.Compare(
        result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=version
    )


def _is_numbered(key: bytes, number: int) -> rpc.Compare:
    return rpc.Compare(
        result=rpc.Compare.EQUAL, target=rpc.Compare.VERSION, key=key, version=number
    )


def _exists(key: bytes) -> rpc.Compare:
    return rpc.Compare(
        result=rpc.Compare.GREATER, target=rpc.Compare.CREATE, key=key, create_revision=0
    )


def _range(**asked: Any) -> rpc.RequestOp:
    return rpc.RequestOp(request_range=rpc.RangeRequest(**asked))


def _put(txn: rpc.TxnRequest, **written: Any) -> None:
    txn.success.add().request_put.MergeFrom(rpc.PutRequest(**written))


def _version(found: rpc.RangeResponse) -> int:
    return found.kvs[0].version if found.kvs else 0
