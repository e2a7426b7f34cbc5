"""The verbs of `distjob.store.AsyncStore` on etcd; on blocking links the blocking store's, too.

Each is one request, but for opening a session (a lease, then its key) and renewing it (and seeing
that it was renewed). What is asked, and how answers are read, is in `distjob_etcd.layout`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable, ConfigError, RecordError
from distjob.store import Event, Guarantees, Reply, Versioned
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import NoSuchLease, NotAllowed, NotTrusted, TooLargeForUs
from distjob_etcd.greeting import greet
from distjob_etcd.layout import (
    LARGEST_ASKED,
    Layout,
    lease_of,
    new_lease,
    seconds_left,
    session_id,
    versioned,
)
from distjob_etcd.members import GRANT, KEEP_ALIVE, RANGE, REVOKE, TXN
from distjob_etcd.server import Server
from distjob_etcd.watching import Watching

log = logging.getLogger("distjob.etcd")

_RENEWALS = 3
"""Tries to renew a session while leaders come and go."""
_PAGE = 500
"""VMs read at a time."""


class Verbs:
    """One client's store, by the links of ``server``, which it closes in the end.

    Of no use in a forked child, where neither gRPC's threads nor ours go on: there every verb
    raises, and `close` does nothing.
    """

    def __init__(
        self, server: Server, layout: Layout, watching: Watching, guarantees: Guarantees
    ) -> None:
        self.server = server
        self.guarantees = guarantees
        self._layout = layout
        self._watching = watching
        self._process = os.getpid()
        self._closed = False
        self._closing = server.links.lock()
        self._page = _PAGE

    @classmethod
    async def connect(cls, server: Server, namespace: str, ttl: float) -> Verbs:
        """Greet the cluster, and begin to listen. Raises `ConfigError` or `BackendUnavailable`."""
        try:
            if not namespace:
                msg = "namespace is empty: name one, the same for all controllers that share VMs"
                raise ConfigError(msg)
            layout = Layout(namespace)
            server.prefix = layout.prefix.decode()
            revision, guarantees = await greet(server, layout, monotonic() + server.timeout)
        except BaseException as error:
            await server.close()
            if isinstance(error, NotAllowed | NotTrusted):
                raise ConfigError(str(error)) from error
            raise
        if guarantees.shortest_ttl > ttl:
            log.warning(
                "etcd at %s keeps sessions for %g s at least, 1.5 times its election timeout: jobs "
                "of a controller that dies are freed later than session.ttl=%g says; lower "
                "--election-timeout, or raise the TTL",
                server.name,
                guarantees.shortest_ttl,
                ttl,
            )
        return cls(server, layout, Watching(server, layout, revision, ttl / 3), guarantees)

    async def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`. ``ttl`` is rounded up to whole seconds."""
        self._check_open()
        # A lease whose grant or key is not answered for is renewed by nobody, and ends.
        lease = new_lease()
        grant = rpc.LeaseGrantRequest(ID=lease, TTL=max(1, math.ceil(ttl)))
        await self.server.ask(GRANT, grant, change=True)
        session = session_id(lease, ttl)
        entered = await self.server.ask(TXN, self._layout.enter(session, owner), change=True)
        self._watching.listen(session, entered.header.revision)
        return session

    async def keep_alive(self, session: str) -> bool:
        """See `distjob.store.Store.keep_alive`.

        A leader that was cut off renews leases until it notices, and the new one does not know. So
        what counts is a renewal after which a majority, asked for the session's key, still was in
        the term in which the lease was renewed: no other leader can have been elected before.
        """
        self._check_open()
        if not (lease := lease_of(session)):
            return False
        until = monotonic() + self.server.timeout
        for _ in range(_RENEWALS):
            renewed = await self.server.ask(
                KEEP_ALIVE,
                rpc.LeaseKeepAliveRequest(ID=lease),
                change=True,
                again=True,
                until=until,
            )
            found = await self.server.ask(RANGE, self._layout.exists(session), until=until)
            if not found.kvs or found.kvs[0].lease != lease:
                self._watching.deafen(session)
                return False
            # The lease of a key that exists is not over: a TTL of 0 is a leader's that lags behind.
            if renewed.TTL > 0 and renewed.header.raft_term == found.header.raft_term:
                return True
        msg = (
            f"etcd at {self.server.name}: leaders change; it is unknown if the session was renewed"
        )
        raise BackendUnavailable(msg, unanswered=True)

    async def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        self._check_open()
        if lease := lease_of(session):
            try:
                revoke = rpc.LeaseRevokeRequest(ID=lease)
                await self.server.ask(REVOKE, revoke, change=True, again=True)
            except NoSuchLease:
                pass
        self._watching.deafen(session)

    async def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        self._check_open()
        return versioned(
            await self.server.ask(RANGE, rpc.RangeRequest(key=self._layout.vm_key(vm)))
        )

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`."""
        self._check_open()
        txn, sessions = self._layout.commit(vm, expected, value, author, wake)
        try:
            answer = await self.server.ask(TXN, txn, change=True)
        except RecordError as error:
            size = 0 if value is None else len(value)
            msg = f"VM {vm!r}, record of {size} bytes, {len(wake)} to wake: {error}"
            raise RecordError(msg) from error
        return self._layout.committed(answer, vm, expected, sessions)

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`. The TTL of each that lives: their end is told."""
        self._check_open()
        if not sessions:
            return {}
        self._watching.watch(sessions)  # before they are asked for: no end falls in between
        left: dict[str, float] = {}
        for some in _batches(list(dict.fromkeys(sessions)), LARGEST_ASKED):
            for session, found in zip(some, await self._look_at(some), strict=True):
                left[session] = seconds_left(session, found)
        self._watching.unwatch([session for session, seconds in left.items() if not seconds])
        return left

    async def _look_at(self, sessions: Sequence[str]) -> Sequence[rpc.RangeResponse]:
        if len(sessions) == 1:
            return [await self.server.ask(RANGE, self._layout.exists(sessions[0]))]
        answer = await self.server.ask(TXN, self._layout.exist(sessions))
        return [op.response_range for op in answer.responses]

    async def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        self._check_open()
        return await self._watching.receive(session, timeout)

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        if os.getpid() == self._process:
            self._watching.interrupt()

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`. Reads some hundred VMs at a time."""
        start, more = self._layout.vms, True
        while more:
            self._check_open()
            try:
                found = await self.server.ask(RANGE, self._layout.page(start, self._page))
            except TooLargeForUs:
                if self._page == 1:
                    raise
                self._page = max(1, self._page // 4)  # a channel of the user's has its limits
                continue
            for kv in found.kvs:
                yield self._layout.vm_of(kv.key), Versioned(kv.mod_revision, kv.value)
            more = found.more
            start = found.kvs[-1].key + b"\0" if found.kvs else start

    async def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way raises."""
        if os.getpid() != self._process:
            return  # gRPC would wait for threads that are not there
        self.server.links.check()
        async with self._closing:
            if self._closed:
                return
            self._closed = True
        try:
            await self._watching.close()
        finally:
            await self.server.close()

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            msg = "this store was connected before a fork; connect a new one in this process"
            raise BackendUnavailable(msg)
        self.server.links.check()
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)


def _batches(sessions: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(sessions), size):
        yield sessions[start : start + size]
