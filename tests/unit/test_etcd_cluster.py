"""What is made of the revisions that answers tell."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import grpc

from distjob.backend.threads import Threads
from distjob_etcd.client.calls import BlockingCalls
from distjob_etcd.client.cluster import Cluster
from distjob_etcd.client.members import Member
from distjob_etcd.settings import EtcdSettings

if TYPE_CHECKING:
    import pytest


def test_a_revision_that_falls_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """And answers that overtake each other are no fall."""
    fell: list[int] = []
    with grpc.insecure_channel("127.0.0.1:1") as channel, caplog.at_level(logging.WARNING):
        member = Member("here:1", channel)
        cluster = Cluster([member], BlockingCalls(), EtcdSettings(), Threads())
        cluster.fell = lambda: fell.append(cluster.revision)
        for known, told in ((0, 10), (10, 12), (10, 11), (12, 12)):
            cluster._look_back(known, told)
        assert (cluster.revision, fell) == (12, [])
        cluster._look_back(12, 5)
        cluster._look_back(12, 6)  # was asked before that was known
        cluster._look_back(5, 6)
    assert (cluster.revision, fell) == (6, [5])
    assert [record.getMessage() for record in caplog.records] == [
        (
            "etcd at here:1 has fallen back from revision 12 to 5: was it restored from a backup "
            "while controllers ran? All leases of before are lost"
        )
    ]
