"""What an operator should know of the cluster behind a store: `distjob.store.Backend.examine`.

Asks every member that is named in the settings, and changes nothing. For blocking stores only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
    yield from _each_member(cluster)
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


def _each_member(cluster: Cluster) -> Iterator[Finding]:
    silent = 0
    for member in cluster.members:
        status = now(cluster.state(member, cluster.timeout))
        if isinstance(status, Failure) and status.forbidden:
            yield Finding(
                "warning",
                f"the version, space and leader of etcd at {member.name} may be read by root only",
                f"{_AS_ROOT}, or upgrade: 3.5.32 and 3.6.12 tell every user",
            )
            continue
        if isinstance(status, Failure):
            silent += 1
            yield Finding(
                "warning",
                f"etcd at {member.name} does not answer: {status.text}",
                "start it, or take it out of etcd.endpoints",
            )
            continue
        yield from _version(member, status)
        yield from _space(member, status)
        for error in status.errors:
            yield Finding("danger", f"etcd at {member.name} reports: {error}", "see its log")
        if not status.leader:
            yield Finding(
                "danger",
                f"etcd at {member.name} has no leader: a majority of the members is missing",
                "start members until a majority runs",
            )
        if status.isLearner:
            yield Finding(
                "warning",
                f"etcd at {member.name} is a learner, which can't be asked",
                "name voting members in etcd.endpoints",
            )
    if not silent:
        yield Finding("ok", f"all {len(cluster.members)} endpoints answer")


def _version(member: Member, status: rpc.StatusResponse) -> Iterator[Finding]:
    version = version_of(status.version)
    where = f"etcd at {member.name} is version {status.version}"
    if (3, 5, 0) <= version < (3, 5, 3):
        yield Finding(
            "danger",
            f"{where}, which can lose writes when a member is killed (etcd issue 13766)",
            "upgrade to the latest 3.5",
        )
    # A single member acknowledged before it had written (etcd issue 14370).
    if version < (3, 4, 21) or (3, 5, 0) <= version < (3, 5, 5):
        yield Finding(
            "danger",
            f"{where}: a one-member cluster may lose acknowledged writes when it is killed "
            "(etcd issue 14370)",
            "upgrade to the latest 3.4 or 3.5",
        )
    if version < (3, 4, 31) or (3, 5, 0) <= version < (3, 5, 13):
        yield Finding(
            "warning",
            f"{where}: an old leader may end sessions that live (etcd issue 15247), and watches "
            "may lose events to compaction (etcd pull request 17612)",
            "upgrade to the latest 3.4 or 3.5",
        )
    if version < (3, 4, 42) or (3, 5) <= version < (3, 5, 28) or (3, 6) <= version < (3, 6, 9):
        yield Finding(
            "warning",
            f"{where}: even with authentication on, whoever reaches it can keep another's lease "
            "alive and compact (CVE-2026-33413), and each user can get at all keys "
            "(CVE-2026-33343)",
            "upgrade to the latest 3.5 or later, and let only controllers reach it",
        )
    if version < (3, 5):
        yield Finding("warning", f"{where}: 3.4 gets no more fixes", "upgrade to 3.5 or later")


def _space(member: Member, status: rpc.StatusResponse) -> Iterator[Finding]:
    quota = status.dbSizeQuota or _DEFAULT_QUOTA
    share = status.dbSize / quota
    if share > 0.8:
        yield Finding(
            "warning",
            f"etcd at {member.name} has used {share:.0%} of its space; when that is used up it "
            "refuses every change",
            "compact and defragment it, set --auto-compaction-retention, or raise "
            "--quota-backend-bytes",
        )


def _membership(cluster: Cluster) -> Iterator[Finding]:
    try:
        found = _ask(cluster, MEMBERS, rpc.MemberListRequest()).members
    except Fault as fault:
        hidden = "how many members the cluster has may be read by root only"
        yield _unread(fault, hidden, "the members can't be listed")
        return
    voters = [member for member in found if not member.isLearner]
    if len(voters) == 1:
        yield Finding(
            "warning",
            "the cluster has one member: while it is down nobody can begin or end a job, and its "
            "disk is the only copy",
            "run three members on three hosts",
        )
    elif len(voters) % 2 == 0:
        yield Finding(
            "warning",
            f"the cluster has {len(voters)} members: one more could fail if there were one less "
            "or one more",
            "run three or five members",
        )
    else:
        yield Finding("ok", f"the cluster has {len(voters)} members")
    if len(cluster.members) < len(voters):
        yield Finding(
            "warning",
            f"etcd.endpoints names {len(cluster.members)} of {len(voters)} members: if those fail, "
            "the others are not asked",
            "name all members",
        )


def _alarms(cluster: Cluster) -> Iterator[Finding]:
    try:
        alarms = _ask(cluster, ALARM, rpc.AlarmRequest()).alarms
    except Fault as fault:
        hidden = "alarms (NOSPACE, CORRUPT) may be read by root only"
        yield _unread(fault, hidden, "the alarms can't be read")
        return
    for alarm in alarms:
        name = rpc.AlarmMember.AlarmType.Name(alarm.alarm)
        advice = "see its log: its data may be damaged"
        if alarm.alarm == rpc.AlarmMember.NOSPACE:
            advice = "compact, defragment, then `etcdctl alarm disarm`"
        yield Finding("danger", f"member {alarm.memberID:x} has raised {name}", advice)


def _access(cluster: Cluster) -> Iterator[Finding]:
    """Whether anybody who reaches the server may change jobs, or read along."""
    local = all(member.name.startswith(_LOOPBACK) for member in cluster.members)
    if not local and cluster.secure is False:
        yield Finding(
            "warning",
            "the connection is not encrypted: whoever is on the way can read and change all",
            "set up TLS and write https:// in etcd.endpoints",
        )
    try:
        _ask(cluster, AUTHENTICATE, rpc.AuthenticateRequest(name="-", password="-"))  # noqa: S106
    except EtcdFault as fault:
        if fault.failure.auth_off:
            yield Finding(
                "ok" if local else "warning",
                "authentication is off: whoever reaches the server may change everything",
                "" if local else "enable it, or ask for client certificates",
            )
        elif fault.failure.answered:
            yield Finding("ok", "authentication is on")


def _unread(fault: Fault, hidden: str, what: str) -> Finding:
    if isinstance(fault, EtcdFault) and fault.failure.forbidden:
        return Finding("warning", hidden, _AS_ROOT)
    return Finding("warning", f"{what}: {fault}")


def _ask(cluster: Cluster, method: str, request: Any) -> Any:
    return now(cluster.ask(method, request))
