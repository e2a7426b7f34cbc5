"""What this store promises, and what not, as data; importable without grpcio."""

from __future__ import annotations

from distjob.store import Guarantees

LARGEST = 1_000_000
"""Bytes of a value: etcd takes requests of 1.5 MiB, unless its operator changed that."""

SINGLE = Guarantees(
    reach="network",
    wakes="push",
    ends="told",
    durable=True,
    versions_survive_loss=True,
    failover="none",
    # etcd counts in whole seconds, and no session is shorter than 1.5 times what an election
    # takes (1 s by default): asked for at connect.
    shortest_ttl=2.0,
    # TTLs are rounded up, and the leader looks twice a second for leases that are over.
    grace=2.0,
    largest_value=LARGEST,
)
CLUSTER = Guarantees(
    **{name: getattr(SINGLE, name) for name in SINGLE.__struct_fields__ if name != "failover"},
    failover="quorum",
)
