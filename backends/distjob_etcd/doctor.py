"""What an operator should know of the cluster behind a store: `distjob.store.Backend.examine`.

Asks every member that is named in the settings, and changes nothing. For blocking stores only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from distjob.backend.source import Fault
from distjob.backend.world import now
from distjob.store import Finding
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.client.cluster import Cluster
from distjob_etcd.client.members import ALARM, AUTHENTICATE, MEMBERS, Member
from distjob_etcd.faults import EtcdFault, Failure
from distjob_etcd.source import EtcdSource, version_of

_DEFAULT_QUOTA = 2 * 1024**3
"""Bytes that etcd stores unless it is told otherwise; releases before 3.6 don't tell."""
_LOOPBACK = ("localhost", "127.", "[::1]", "ip6-localhost")
_HABITUAL_TTL = 2.0
_AS_ROOT = "run doctor once with an etcd.user of the role root"


def examine(source: EtcdSource) -> Iterator[Finding]:
    """What could make the cluster unsafe, and what is good."""
    cluster = source.cluster
    yield from _members(cluster)
    yield from _membership(cluster)
    yield from _alarms(cluster)
    yield from _access(cluster)
    shortest = source.guarantees.shortest_ttl
    if shortest > _HABITUAL_TTL:
        yield Finding(
            "warning",
            f"no session is shorter than {shortest:.0f} s: etcd raises TTLs to 1.5 times its "
            "election timeout",
            "set session.ttl to no less, or lower etcd's --election-timeout",
        )


# -- each member ----------------------------------------------------------------------------------


def _members(cluster: Cluster) -> Iterator[Finding]:
    silent = 0
    for member in cluster.members:
        status = now(cluster.state(member, cluster.timeout))
        where = f"etcd at {member.name}"
        if not isinstance(status, Failure):
            yield from _version(member, status)
            yield from _state(where, status)
        elif status.forbidden:
            what = f"the version, space and leader of {where} may be read by root only"
            advice = f"{_AS_ROOT}, or upgrade: 3.5.32 and 3.6.12 tell every user"
            yield Finding("warning", what, advice)
        else:
            silent += 1
            what = f"{where} does not answer: {status.text}"
            yield Finding("warning", what, "start it, or take it out of etcd.endpoints")
    if not silent:
        yield Finding("ok", f"all {len(cluster.members)} endpoints answer")


class _Flaw(NamedTuple):
    """A fault that some releases are known to have."""

    releases: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """From the first of each pair on, before the second."""
    told: str
    advice: str = "upgrade to the latest 3.4 or 3.5"
    danger: bool = False


_FLAWS = (
    _Flaw(
        (((3, 5), (3, 5, 3)),),
        ", which can lose writes when a member is killed (etcd issue 13766)",
        "upgrade to the latest 3.5",
        danger=True,
    ),
    _Flaw(  # a single member acknowledged before it had written
        (((), (3, 4, 21)), ((3, 5), (3, 5, 5))),
        ": a one-member cluster may lose acknowledged writes when it is killed (etcd issue 14370)",
        danger=True,
    ),
    _Flaw(
        (((), (3, 4, 31)), ((3, 5), (3, 5, 13))),
        ": an old leader may end sessions that live (etcd issue 15247), and watches may lose "
        "events to compaction (etcd pull request 17612)",
    ),
    _Flaw(
        (((), (3, 4, 42)), ((3, 5), (3, 5, 28)), ((3, 6), (3, 6, 9))),
        ": even with authentication on, whoever reaches it can keep another's lease alive and "
        "compact (CVE-2026-33413), and each user can get at all keys (CVE-2026-33343)",
        "upgrade to the latest 3.5 or later, and let only controllers reach it",
    ),
    _Flaw((((), (3, 5)),), ": 3.4 gets no more fixes", "upgrade to 3.5 or later"),
)


def _version(member: Member, status: rpc.StatusResponse) -> Iterator[Finding]:
    version = version_of(status.version)
    for flaw in _FLAWS:
        if any(since <= version < until for since, until in flaw.releases):
            what = f"etcd at {member.name} is version {status.version}{flaw.told}"
            yield Finding("danger" if flaw.danger else "warning", what, flaw.advice)


def _state(where: str, status: rpc.StatusResponse) -> Iterator[Finding]:
    share = status.dbSize / (status.dbSizeQuota or _DEFAULT_QUOTA)
    if share > 0.8:
        yield Finding(
            "warning",
            f"{where} has used {share:.0%} of its space; when that is used up it refuses every "
            "change",
            "compact and defragment it, set --auto-compaction-retention, or raise "
            "--quota-backend-bytes",
        )
    for error in status.errors:
        yield Finding("danger", f"{where} reports: {error}", "see its log")
    if not status.leader:
        what = f"{where} has no leader: a majority of the members is missing"
        yield Finding("danger", what, "start members until a majority runs")
    if status.isLearner:
        what = f"{where} is a learner, which can't be asked"
        yield Finding("warning", what, "name voting members in etcd.endpoints")


# -- the cluster ----------------------------------------------------------------------------------


def _membership(cluster: Cluster) -> Iterator[Finding]:
    answer = _ask(cluster, MEMBERS, rpc.MemberListRequest(), "how many members the cluster has")
    if isinstance(answer, Finding):
        yield answer
        return
    voters = sum(not member.isLearner for member in answer.members)
    if voters == 1:
        yield Finding(
            "warning",
            "the cluster has one member: while it is down nobody can begin or end a job, and its "
            "disk is the only copy",
            "run three members on three hosts",
        )
    elif voters % 2 == 0:
        yield Finding(
            "warning",
            f"the cluster has {voters} members: one more could fail if there were one less or one "
            "more",
            "run three or five members",
        )
    else:
        yield Finding("ok", f"the cluster has {voters} members")
    if len(cluster.members) < voters:
        yield Finding(
            "warning",
            f"etcd.endpoints names {len(cluster.members)} of {voters} members: if those fail, the "
            "others are not asked",
            "name all members",
        )


def _alarms(cluster: Cluster) -> Iterator[Finding]:
    answer = _ask(cluster, ALARM, rpc.AlarmRequest(), "alarms (NOSPACE, CORRUPT)")
    if isinstance(answer, Finding):
        yield answer
        return
    for alarm in answer.alarms:
        name = rpc.AlarmMember.AlarmType.Name(alarm.alarm)
        advice = "see its log: its data may be damaged"
        if alarm.alarm == rpc.AlarmMember.NOSPACE:
            advice = "compact, defragment, then `etcdctl alarm disarm`"
        yield Finding("danger", f"member {alarm.memberID:x} has raised {name}", advice)


def _ask(cluster: Cluster, method: str, request: Any, what: str) -> Any:
    """The answer; or that ``what`` can't be read."""
    try:
        return now(cluster.ask(method, request))
    except Fault as fault:
        if isinstance(fault, EtcdFault) and fault.failure.forbidden:
            return Finding("warning", f"{what} may be read by root only", _AS_ROOT)
        return Finding("warning", f"{what} can't be read: {fault}")


def _access(cluster: Cluster) -> Iterator[Finding]:
    """Whether anybody who reaches the server may change jobs, or read along."""
    local = all(member.name.startswith(_LOOPBACK) for member in cluster.members)
    if not local and cluster.secure is False:
        yield Finding(
            "warning",
            "the connection is not encrypted: whoever is on the way can read and change all",
            "set up TLS and write https:// in etcd.endpoints",
        )
    nobody = rpc.AuthenticateRequest(name="-", password="-")  # noqa: S106
    try:
        now(cluster.ask(AUTHENTICATE, nobody))
    except EtcdFault as fault:
        if fault.failure.auth_off:
            yield Finding(
                "ok" if local else "warning",
                "authentication is off: whoever reaches the server may change everything",
                "" if local else "enable it, or ask for client certificates",
            )
        elif fault.failure.answered:
            yield Finding("ok", "authentication is on")
