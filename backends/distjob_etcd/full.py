"""What became of a commit that etcd refused for want of space: it may have been made.

A refusal is an answer: nothing of the commit is on its way any more, and the VM's history, read
afterwards, tells. So it is in etcd's source, 3.4 to 3.6 and its main branch:

- quotaKVServer (api/v3rpc/quota.go) refuses before anything is proposed to the other members;
- quotaApplierV3 (etcdserver/apply.go, later apply/quota.go) carries out what was proposed, and
  refuses it then: with its wake-ups, which are of the same transaction;
- applierV3Capped, there as long as the alarm is up, refuses without carrying out.

The last two answer from the one place in the log that the proposal has (applyEntryNormal).
EtcdServer.raftRequest proposes again only what was refused, unapplied, for an old auth revision;
and etcd's own client, in a gRPC proxy, sends again only what no connection had taken
(isSafeRetryMutableRPC).
"""

from __future__ import annotations

from distjob.store import Committed, Reply, Stale
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.client.cluster import Cluster
from distjob_etcd.client.members import RANGE
from distjob_etcd.commit import Commit
from distjob_etcd.faults import EtcdFault


async def seen(cluster: Cluster, commit: Commit, refusal: EtcdFault, until: float) -> Reply:
    """The reply that ``commit`` would have had, by what its VM's key holds, and has held.

    A commit that was made is what followed the version that it expected. The history is walked
    back to there, but not past a removal, which leaves no trace: then it stays unknown. Only if the
    VM was expected to be idle that is no matter: whatever was made before the removal is undone.
    Where another has written the very same value, that is as good: a value that grants something
    names a ticket of its author's.

    Raises ``refusal``, as one of a commit that was not made if that is certain.
    """
    asked = rpc.RangeRequest(key=commit.layout.vm_key(commit.vm))
    try:
        found = latest = await cluster.ask(RANGE, asked, until=until)
        while found.kvs and _is_later(found.kvs[0], commit):
            if found.kvs[0].mod_revision == found.kvs[0].create_revision:
                found = rpc.RangeResponse()  # before it there was nothing
                continue
            asked.revision = found.kvs[0].mod_revision - 1
            found = await cluster.ask(RANGE, asked, until=until)
    except EtcdFault as unseen:  # one of them: the history has been compacted
        raise refusal from unseen
    reached, current = commit.layout.versioned(found), commit.layout.versioned(latest)
    if reached.version > commit.expected:
        return Committed(version=reached.version)
    if reached.version < commit.expected:
        raise refusal
    if current.version == commit.expected:
        refusal.made = "no"
        raise refusal
    return Stale(version=current.version, value=current.value)


def _is_later(kv: rpc.KeyValue, commit: Commit) -> bool:
    """Whether ``kv`` came after what was expected, and is another's."""
    return bool(kv.mod_revision > commit.revision and kv.value != commit.value)
