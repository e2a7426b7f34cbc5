"""What is said of the servers behind the settings."""

from __future__ import annotations

from collections.abc import Callable

from distjob.backend.opened import Blocking
from distjob.testing.contract import try_until
from distjob_zookeeper import backend
from servers import ZookeeperCluster, ZookeeperNode
from zookeeper_stores import Open

Spawn = Callable[..., ZookeeperNode]


def examined(store: Blocking) -> dict[str, str]:
    assert backend.examine is not None
    return {finding.what: finding.level for finding in backend.examine(store)}


def level_of(found: dict[str, str], part: str) -> str:
    (level,) = {level for what, level in found.items() if part in what}
    return level


def test_one_server(hosts: str, opened: Open) -> None:
    found = examined(opened(hosts))
    assert level_of(found, "standalone") == "ok"
    assert level_of(found, "one server alone") == "warning"
    assert level_of(found, "open ACLs") == "ok"
    assert "danger" not in found.values()


def test_nodes_that_are_open_to_all(hosts: str, opened: Open, fresh_namespace: str) -> None:
    below = f"{hosts}/{fresh_namespace}"
    opened(below)
    found = examined(opened(below, user="distjob", password="s3cret"))
    assert level_of(found, "was made before user was set") == "warning"


def test_an_ensemble(zookeeper_cluster: ZookeeperCluster, opened: Open) -> None:
    store = opened(zookeeper_cluster.hosts, timeout=5.0)
    found = examined(store)
    assert [what for what in found if ", leader" in what]
    assert "danger" not in found.values()
    one = zookeeper_cluster.nodes[0]
    assert level_of(examined(opened(one.hosts)), "names one server") == "warning"
    one.kill()
    try_until(lambda: store.read("vm"))
    found = examined(store)
    assert level_of(found, "2 of 3 servers") == "warning"
    assert level_of(found, f"{one.address} can't be asked") == "warning"
