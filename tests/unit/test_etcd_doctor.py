"""What doctor says of etcd's releases."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.client.members import Member
from distjob_etcd.doctor import _version


@pytest.fixture
def member() -> Iterator[Member]:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        yield Member("here:1", channel)


@pytest.mark.parametrize(
    ("version", "open_to_all"),
    [
        *(("3.4.23", True), ("3.4.41", True), ("3.4.42", False), ("3.4.45", False)),
        *(("3.5.0", True), ("3.5.27", True), ("3.5.28", False), ("3.5.33", False)),
        *(("3.6.0-rc.1", True), ("3.6.8", True), ("3.6.9", False), ("3.7.0", False)),
    ],
)
def test_releases_that_let_anybody_in(member: Member, version: str, open_to_all: bool) -> None:
    found = [finding.what for finding in _version(member, rpc.StatusResponse(version=version))]
    named = [what for what in found if "CVE-2026-33413" in what]
    assert bool(named) == open_to_all
    assert all(f"etcd at here:1 is version {version}" in what for what in named)
