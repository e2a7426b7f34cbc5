"""No test of this folder starts a server: whoever asks for one here is told where to go."""

from __future__ import annotations

import pytest

_ELSEWHERE = "tests in tests/unit start no server: move it to tests/contract or tests/fault"


def _refuse() -> None:
    pytest.fail(_ELSEWHERE)


@pytest.fixture(scope="session")
def redis_server() -> None:
    _refuse()


redis_sentinel = redis_cluster = etcd_server = etcd_cluster = redis_server
zookeeper_server = zookeeper_cluster = spawn_etcd = spawn_zookeeper = redis_server
