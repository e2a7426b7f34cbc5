"""The verbs of `distjob.store.Store` on etcd.

Each is one request, but for opening a session (a lease, then its key) and renewing it (and seeing
that it was renewed). What is asked, and how answers are read, is in `distjob_etcd.layout`.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from distjob.clock import monotonic
from distjob.errors import BackendUnavailable, ConfigError, RecordError
from distjob.store import ABSENT, Event, Guarantees, Reply, Versioned
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import NoSuchLease, NotAllowed, NotTrusted, TooLargeForUs
from distjob_etcd.guarantees import CLUSTER, SINGLE
from distjob_etcd.layout import (
    FORMAT,
    LARGEST_ASKED,
    Layout,
    lease_of,
    new_lease,
    seconds_left,
    session_id,
    versioned,
)
from distjob_etcd.members import (
    GRANT,
    KEEP_ALIVE,
    MEMBERS,
    RANGE,
    REVOKE,
    STATUS,
    TXN,
)
from distjob_etcd.server import Server
from distjob_etcd.settings import EtcdSettings
from distjob_etcd.watching import Watching

OLDEST = (3, 4)
_RENEWALS = 3
"""Tries to renew a session while leaders come and go."""
_PAGE = 500
"""VMs read at a time."""


def connect(settings: EtcdSettings, namespace: str, ttl: float) -> EtcdStore:
    """A store with channels of its own; see `distjob.store.Backend.connect`."""
    return EtcdStore(Server.by(settings), namespace, ttl)


class EtcdStore:
    """One client's `Store` on the cluster that ``client`` is connected to.

    ``client`` is a `grpc.Channel`, or a blocking client of python-etcd3 or of one of its forks: its
    channel and its token are used, and it is not closed. ``timeout`` is in seconds, for each
    answer. Connects at once: raises `ConfigError` or `BackendUnavailable`.

    Of no use in a forked child, where neither gRPC's threads nor ours go on: there every verb
    raises, and `close` does nothing. A child that connects anew works.
    """

    def __init__(self, client: Any, namespace: str, ttl: float, timeout: float = 2.0) -> None:
        if not namespace:
            msg = "namespace is empty: name one, the same for all controllers that share VMs"
            raise ConfigError(msg)
        self._layout = Layout(namespace)
        self.server = client if isinstance(client, Server) else Server.of(client, timeout)
        """For `distjob_etcd.examine`."""
        self._process = os.getpid()
        self._closed = False
        self._closing = threading.Lock()
        self._page = _PAGE
        try:
            revision, self.guarantees = self._greet(monotonic() + self.server.timeout)
        except BackendUnavailable as error:
            self.server.close()
            if isinstance(error, NotAllowed | NotTrusted):
                raise ConfigError(str(error)) from error
            raise
        except BaseException:
            self.server.close()
            raise
        self._watching = Watching(self.server, self._layout, revision, ttl / 3)

    def open_session(self, ttl: float, owner: str) -> str:
        """See `distjob.store.Store.open_session`. ``ttl`` is rounded up to whole seconds."""
        self._check_open()
        # A lease whose grant or key is not answered for is renewed by nobody, and ends.
        lease = new_lease()
        grant = rpc.LeaseGrantRequest(ID=lease, TTL=max(1, math.ceil(ttl)))
        self.server.ask(GRANT, grant, change=True)
        session = session_id(lease, ttl)
        entered = self.server.ask(TXN, self._layout.enter(session, owner), change=True)
        self._watching.listen(session, entered.header.revision)
        return session

    def keep_alive(self, session: str) -> bool:
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
            renewed = self.server.ask(
                KEEP_ALIVE,
                rpc.LeaseKeepAliveRequest(ID=lease),
                change=True,
                again=True,
                until=until,
            )
            found = self.server.ask(RANGE, self._layout.exists(session), until=until)
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

    def close_session(self, session: str) -> None:
        """See `distjob.store.Store.close_session`."""
        self._check_open()
        if lease := lease_of(session):
            try:
                revoke = rpc.LeaseRevokeRequest(ID=lease)
                self.server.ask(REVOKE, revoke, change=True, again=True)
            except NoSuchLease:
                pass
        self._watching.deafen(session)

    def read(self, vm: str) -> Versioned:
        """See `distjob.store.Store.read`."""
        self._check_open()
        return versioned(self.server.ask(RANGE, rpc.RangeRequest(key=self._layout.vm_key(vm))))

    def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        """See `distjob.store.Store.commit`."""
        self._check_open()
        txn, sessions = self._layout.commit(vm, expected, value, author, wake)
        try:
            answer = self.server.ask(TXN, txn, change=True)
        except RecordError as error:
            size = 0 if value is None else len(value)
            msg = f"VM {vm!r}, record of {size} bytes, {len(wake)} to wake: {error}"
            raise RecordError(msg) from error
        return self._layout.committed(answer, vm, expected, sessions)

    def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """See `distjob.store.Store.remaining`. The TTL of each that lives: their end is told."""
        self._check_open()
        if not sessions:
            return {}
        self._watching.watch(sessions)  # before they are asked for: no end falls in between
        left: dict[str, float] = {}
        for some in _batches(list(dict.fromkeys(sessions)), LARGEST_ASKED):
            for session, found in zip(some, self._look_at(some), strict=True):
                left[session] = seconds_left(session, found)
        self._watching.unwatch([session for session, seconds in left.items() if not seconds])
        return left

    def _look_at(self, sessions: Sequence[str]) -> Sequence[rpc.RangeResponse]:
        if len(sessions) == 1:
            return [self.server.ask(RANGE, self._layout.exists(sessions[0]))]
        answer = self.server.ask(TXN, self._layout.exist(sessions))
        return [op.response_range for op in answer.responses]

    def receive(self, session: str, timeout: float) -> Sequence[Event]:
        """See `distjob.store.Store.receive`."""
        self._check_open()
        return self._watching.receive(session, timeout)

    def interrupt(self) -> None:
        """See `distjob.store.Store.interrupt`."""
        if os.getpid() == self._process:
            self._watching.interrupt()

    def scan(self) -> Iterator[tuple[str, Versioned]]:
        """See `distjob.store.Store.scan`. Reads some hundred VMs at a time."""
        start, more = self._layout.vms, True
        while more:
            self._check_open()
            try:
                found = self.server.ask(RANGE, self._layout.page(start, self._page))
            except TooLargeForUs:
                if self._page == 1:
                    raise
                self._page = max(1, self._page // 4)  # a channel of the user's has its limits
                continue
            for kv in found.kvs:
                yield self._layout.vm_of(kv.key), Versioned(kv.mod_revision, kv.value)
            more = found.more
            start = found.kvs[-1].key + b"\0" if found.kvs else start

    def close(self) -> None:
        """See `distjob.store.Store.close`. A `receive` that is under way raises."""
        if os.getpid() != self._process:
            return  # gRPC would wait for threads that are not there
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._watching.close()
        self.server.close()

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            msg = "this store was connected before a fork; connect a new one in this process"
            raise BackendUnavailable(msg)
        if self._closed:
            msg = "this store was closed; connect a new one"
            raise BackendUnavailable(msg)

    # -- connecting -----------------------------------------------------------------------------

    def _greet(self, until: float) -> tuple[int, Guarantees]:
        """Check all that can be checked before a job is held; the revision, and what is promised"""
        self.server.log_in(until)
        check_version(self.server.ask(STATUS, rpc.StatusRequest(), until=until), self.server.name)
        agreed = self.server.ask(TXN, self._layout.agree(), change=True, until=until)
        if (found := self._layout.agreed(agreed)) != str(FORMAT):
            msg = (
                f"etcd at {self.server.name}: this namespace is kept in format {found}, this "
                f"distjob reads format {FORMAT}: run the same version on every controller"
            )
            raise ConfigError(msg)
        # A transaction's rights are checked as a whole: this one is by a session that never was.
        rehearsal, _ = self._layout.commit("", ABSENT, b"", session_id(new_lease(), ttl=1.0), ())
        self.server.ask(TXN, rehearsal, change=True, until=until)
        return agreed.header.revision, self._promises(until)

    def _promises(self, until: float) -> Guarantees:
        lease = new_lease()
        shortest = self.server.ask(
            GRANT, rpc.LeaseGrantRequest(ID=lease, TTL=1), change=True, until=until
        ).TTL
        self.server.ask(REVOKE, rpc.LeaseRevokeRequest(ID=lease), change=True, until=until)
        members = self.server.ask(MEMBERS, rpc.MemberListRequest(), until=until).members
        voters = sum(not member.isLearner for member in members)
        best = CLUSTER if voters > 1 else SINGLE
        return msgspec.structs.replace(best, shortest_ttl=float(shortest))


def check_version(status: rpc.StatusResponse, name: str) -> None:
    """Refuse a server that lacks what is needed. Raises `ConfigError`."""
    if version_of(status.version) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        msg = f"etcd at {name} is version {status.version}: {needed} or later is needed"
        raise ConfigError(msg)


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of "3.5.13" or "3.6.0-rc.1"."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("-")[0]))


def _batches(sessions: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(sessions), size):
        yield sessions[start : start + size]
