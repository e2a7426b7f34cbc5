"""The verbs on etcd, as `distjob.backend.source.Source` says; and how one connects.

Each is one request, but for opening a session (a lease, then its key) and renewing it (and seeing
that it was renewed). What is asked, and how answers are read, is in `distjob_etcd.layout` and
`distjob_etcd.commit`.

**A revision never falls**, unless the cluster was restored from a backup, or wiped, under living
controllers: then what was granted since the backup is forgotten, and all sessions that are open
here are taken for lost, though their keys may be in the backup.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import msgspec

from distjob.backend.settling import FIRST, Numbers
from distjob.backend.source import Fault, Feed
from distjob.backend.world import World
from distjob.clock import wall
from distjob.errors import ConfigError, RecordError
from distjob.store import ABSENT, Ended, Gone, Guarantees, Reply, Settled, Versioned, Void
from distjob_etcd import full
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.client.cluster import Cluster
from distjob_etcd.client.members import GRANT, KEEP_ALIVE, MEMBERS, RANGE, REVOKE, STATUS, TXN
from distjob_etcd.commit import Commit, number_in, settled, settling
from distjob_etcd.faults import EtcdFault
from distjob_etcd.feed import EtcdFeed
from distjob_etcd.guarantees import CLUSTER, SINGLE
from distjob_etcd.layout import (
    FORMAT,
    LARGEST_ASKED,
    Layout,
    lease_of,
    new_lease,
    seconds_left,
    session_id,
)
from distjob_etcd.settings import EtcdSettings

log = logging.getLogger("distjob.etcd")

OLDEST = (3, 4)
_RENEWALS = 3
"""Tries to renew a session while leaders come and go."""
_PAGE = 500
"""VMs read at a time."""


async def connected(settings: EtcdSettings, namespace: str, ttl: float, world: World) -> EtcdSource:
    """The source of a cluster that can be used, as far as that can be seen.

    Raises `ConfigError`, `Fault`; then all channels of our own are closed.
    """
    if not namespace:
        msg = "namespace is empty: name one, the same for all controllers that share VMs"
        raise ConfigError(msg)
    cluster, layout = Cluster.of(settings, world), Layout(namespace)
    cluster.prefix = layout.prefix.decode()
    until = cluster.until()
    try:
        await _greet(cluster, layout, until)
        guarantees = await _promises(cluster, until)
    except BaseException:
        await cluster.close()
        raise
    if guarantees.shortest_ttl > ttl:
        log.warning(
            "etcd at %s keeps sessions for %g s at least, 1.5 times its election timeout: jobs of "
            "a controller that dies are freed later than session.ttl=%g says; lower "
            "--election-timeout, or raise the TTL",
            cluster.name,
            guarantees.shortest_ttl,
            ttl,
        )
    return EtcdSource(cluster, layout, guarantees, world)


class EtcdSource:
    """One client's, by the channels of ``cluster``, which are given up in the end."""

    def __init__(
        self, cluster: Cluster, layout: Layout, guarantees: Guarantees, world: World
    ) -> None:
        self.cluster = cluster
        self.guarantees = guarantees
        self._layout = layout
        self._name = secrets.token_hex(8)
        self._feed = EtcdFeed(cluster, layout, self._name, world)
        self._numbers = Numbers()
        self._page = _PAGE
        self._own: set[str] = set()
        """Sessions that were opened here."""
        self._lost: set[str] = set()
        """Of these, the sessions that a falling revision has cost us."""
        cluster.fell = self._fall

    async def open(self, ttl: float, owner: str) -> str:
        for lost in list(self._lost):
            await self.end(lost)
        # A lease whose grant or key is not answered for is renewed by nobody, and ends.
        lease = new_lease()
        grant = rpc.LeaseGrantRequest(ID=lease, TTL=max(1, math.ceil(ttl)))
        await self.cluster.ask(GRANT, grant, change=True)
        session = session_id(self._name, lease, ttl)
        enter = self._layout.enter(session, owner)
        entered = await self.cluster.ask(TXN, enter, change=True)
        if not entered.succeeded:  # somebody has removed the namespace
            await _agree(self.cluster, self._layout, self.cluster.until())
            entered = await self.cluster.ask(TXN, enter, change=True)
        _check_agreed(self.cluster, self._layout, entered)
        self._own.add(session)
        return session

    async def renew(self, session: str) -> bool | Void:
        """A leader that was cut off renews leases until it notices, and the new one does not know.

        So what counts is a renewal after which a majority, asked for the session's key, still was
        in the term in which the lease was renewed: no other leader can have been elected before.
        """
        if not (lease := lease_of(session)):
            return False
        until = self.cluster.until()
        for _ in range(_RENEWALS):
            renewed = await self.cluster.ask(
                KEEP_ALIVE,
                rpc.LeaseKeepAliveRequest(ID=lease),
                change=True,
                again=True,
                until=until,
            )
            found = await self.cluster.ask(RANGE, self._layout.exists(session), until=until)
            if session in self._lost:
                await self.end(session)
                return Void("etcd's revision has fallen, as when a backup is restored")
            if not found.kvs or found.kvs[0].lease != lease:
                self._forget(session)
                return False
            # The lease of a key that exists is not over: a TTL of 0 is a leader's that lags behind.
            if renewed.TTL > 0 and renewed.header.raft_term == found.header.raft_term:
                return True
        msg = f"etcd at {self.cluster.name}: leaders change"
        raise Fault(msg, "it is unknown if the session was renewed", made="unknown")

    async def end(self, session: str) -> None:
        if lease := lease_of(session):
            try:
                revoke = rpc.LeaseRevokeRequest(ID=lease)
                await self.cluster.ask(REVOKE, revoke, change=True, again=True)
            except EtcdFault as fault:
                if not fault.failure.lease_ended:
                    raise
        self._forget(session)

    async def settle(self, session: str) -> None:
        """By the session's number, see `distjob_etcd.commit`: what was sent before names an older.

        One that another settling has raised already is as good. It writes, so that etcd without
        space refuses it: what was in doubt stays so until there is space.
        """
        number = self._numbers.of(session)
        request = settling(self._layout, session, number)
        answer = await self.cluster.ask(TXN, request, change=True, again=True)
        self._numbers.learn(session, settled(answer, number))

    async def read(self, vm: str) -> Versioned:
        asked = rpc.RangeRequest(key=self._layout.vm_key(vm))
        return self._layout.versioned(await self.cluster.ask(RANGE, asked))

    async def commit(
        self, vm: str, expected: int, value: bytes | None, author: str, wake: Collection[str]
    ) -> Reply:
        if author in self._lost:
            return Gone(frozenset({author}))
        number, until = self._numbers.of(author), self.cluster.until()
        commit = Commit(self._layout, vm, expected, value, author, wake, number)
        try:
            answer = await self.cluster.ask(TXN, commit.request(), change=True, until=until)
        except EtcdFault as fault:
            if fault.failure.full:
                return await full.seen(self.cluster, commit, fault, until)
            if not fault.failure.request_too_large:
                raise
            size = 0 if value is None else len(value)
            msg = f"VM {vm!r}, record of {size} bytes, {len(wake)} to wake: {fault}"
            raise RecordError(msg) from fault
        if author in self._lost:  # whatever came of it: nobody counts on it any more
            return Gone(frozenset({author}))
        reply = commit.reply(answer)
        if isinstance(reply, Settled):
            self._numbers.learn(author, number_in(answer))
        return reply

    async def remaining(self, sessions: Collection[str]) -> Mapping[str, float]:
        """The TTL of each that lives: their end is told."""
        self._feed.watch(sessions)  # before they are asked for: no end falls in between
        left: dict[str, float] = {}
        asked = list(dict.fromkeys(sessions))
        for start in range(0, len(asked), LARGEST_ASKED):
            some = asked[start : start + LARGEST_ASKED]
            for session, found in zip(some, await self._look_at(some), strict=True):
                left[session] = seconds_left(session, found)
        self._feed.unwatch([session for session, seconds in left.items() if not seconds])
        return left

    async def _look_at(self, sessions: Sequence[str]) -> Sequence[rpc.RangeResponse]:
        if len(sessions) == 1:
            return [await self.cluster.ask(RANGE, self._layout.exists(sessions[0]))]
        answer = await self.cluster.ask(TXN, self._layout.exist(sessions))
        return [op.response_range for op in answer.responses]

    async def scan(self) -> AsyncIterator[tuple[str, Versioned]]:
        start, more = self._layout.vms, True
        while more:
            try:
                found = await self.cluster.ask(RANGE, self._layout.page(start, self._page))
            except EtcdFault as fault:
                if not fault.failure.answer_too_large or self._page == 1:
                    raise
                self._page = max(1, self._page // 4)  # a channel of the user's has its limits
                continue
            for kv in found.kvs:
                version = self._layout.base + kv.mod_revision
                yield self._layout.vm_of(kv.key), Versioned(version, kv.value)
            more = found.more
            start = found.kvs[-1].key + b"\0" if found.kvs else start

    async def feeds(self) -> Collection[Feed]:
        return (self._feed,)

    async def let_go(self) -> None:
        await self.cluster.close()

    def _fall(self) -> None:
        """The revision has fallen."""
        lost = set(self._own)  # to which others add
        self._lost |= lost
        self._feed.tell([(session, Ended(session)) for session in lost])

    def _forget(self, session: str) -> None:
        """``session`` has ended."""
        self._numbers.learn(session, 0)
        self._own.discard(session)
        self._lost.discard(session)


# -- what is checked of a cluster, and learnt of it, before a job is held --------------------------


async def _greet(cluster: Cluster, layout: Layout, until: float) -> None:
    """Check all that can be checked. Raises `ConfigError`, `Fault`."""
    await cluster.log_in(until)
    try:
        check_version(await cluster.ask(STATUS, rpc.StatusRequest(), until=until), cluster.name)
    except EtcdFault as fault:
        if not fault.failure.forbidden:  # 3.5.28 to 3.5.31, 3.6.0 to 3.6.11 tell root only
            raise
    await _agree(cluster, layout, until)
    # A transaction's rights are checked as a whole: this one is by a session that never was.
    nobody = session_id("0" * 16, new_lease(), ttl=1.0)
    rehearsal = Commit(layout, "", ABSENT, b"", nobody, (nobody,)).request()
    rehearsal.MergeFrom(settling(layout, nobody, FIRST))
    await cluster.ask(TXN, rehearsal, change=True, until=until)


async def _agree(cluster: Cluster, layout: Layout, until: float) -> None:
    """Make the namespace, if need be, and learn its base. Raises `Fault`."""
    agree = layout.agree(round(wall() * 1e6))
    answer = await cluster.ask(TXN, agree, change=True, again=True, until=until)
    _check_agreed(cluster, layout, answer)


def _check_agreed(cluster: Cluster, layout: Layout, answer: rpc.TxnResponse) -> None:
    if not answer.responses:
        raise Fault(f"etcd at {cluster.name}: somebody removes {layout.format_key.decode()}")
    if other := layout.agreed(answer):
        msg = (
            f"etcd at {cluster.name}: this namespace is kept in format {other}, this distjob reads "
            f"format {FORMAT}"
        )
        raise Fault(msg, "run the same version on every controller", unfit=True)


async def _promises(cluster: Cluster, until: float) -> Guarantees:
    lease = new_lease()
    grant = rpc.LeaseGrantRequest(ID=lease, TTL=1)
    granted = await cluster.ask(GRANT, grant, change=True, until=until)
    await cluster.ask(REVOKE, rpc.LeaseRevokeRequest(ID=lease), change=True, until=until)
    try:
        members = (await cluster.ask(MEMBERS, rpc.MemberListRequest(), until=until)).members
        voters = sum(not member.isLearner for member in members)
    except EtcdFault as fault:
        if not fault.failure.forbidden:
            raise
        voters = 1  # 3.4.42, 3.5.28 and 3.6.9 list them to root only: the least is promised
    best = CLUSTER if voters > 1 else SINGLE
    return msgspec.structs.replace(best, shortest_ttl=float(granted.TTL))


def check_version(status: rpc.StatusResponse, name: str) -> None:
    """Refuse a server that lacks what is needed. Raises `ConfigError`."""
    if version_of(status.version) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        msg = f"etcd at {name} is version {status.version}: {needed} or later is needed"
        raise ConfigError(msg)


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of "3.5.13" or "3.6.0-rc.1"."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("-")[0]))
