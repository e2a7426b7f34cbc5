"""What is checked of a cluster, and learnt of it, before a job is held: once, at connect.

Knows verbs of `distjob_etcd.layout` and how to ask; keeps nothing.
"""

from __future__ import annotations

import contextlib
import re

import msgspec

from distjob.errors import ConfigError
from distjob.store import ABSENT, Guarantees
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import Forbidden
from distjob_etcd.guarantees import CLUSTER, SINGLE
from distjob_etcd.layout import FORMAT, Layout, new_lease, session_id
from distjob_etcd.members import GRANT, MEMBERS, REVOKE, STATUS, TXN
from distjob_etcd.server import Server

OLDEST = (3, 4)


async def greet(server: Server, layout: Layout, until: float) -> tuple[int, Guarantees]:
    """Check all that can be checked; the revision, and what is promised. Raises `ConfigError`."""
    await server.log_in(until)
    with contextlib.suppress(Forbidden):  # 3.5.28 to 3.5.31, 3.6.0 to 3.6.11 tell root only
        check_version(await server.ask(STATUS, rpc.StatusRequest(), until=until), server.name)
    agreed = await server.ask(TXN, layout.agree(), change=True, until=until)
    if (found := layout.agreed(agreed)) != str(FORMAT):
        msg = (
            f"etcd at {server.name}: this namespace is kept in format {found}, this "
            f"distjob reads format {FORMAT}: run the same version on every controller"
        )
        raise ConfigError(msg)
    # A transaction's rights are checked as a whole: this one is by a session that never was.
    rehearsal, _ = layout.commit("", ABSENT, b"", session_id(new_lease(), ttl=1.0), ())
    await server.ask(TXN, rehearsal, change=True, until=until)
    return agreed.header.revision, await _promises(server, until)


async def _promises(server: Server, until: float) -> Guarantees:
    lease = new_lease()
    grant = rpc.LeaseGrantRequest(ID=lease, TTL=1)
    granted = await server.ask(GRANT, grant, change=True, until=until)
    await server.ask(REVOKE, rpc.LeaseRevokeRequest(ID=lease), change=True, until=until)
    try:
        members = (await server.ask(MEMBERS, rpc.MemberListRequest(), until=until)).members
        voters = sum(not member.isLearner for member in members)
    except Forbidden:  # 3.4.42, 3.5.28 and 3.6.9 list them to root only: the least is promised
        voters = 1
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
