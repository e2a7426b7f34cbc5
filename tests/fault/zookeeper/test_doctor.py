"""What is said of the servers behind the settings."""

from __future__ import annotations

from collections.abc import Callable

from distjob_zookeeper import ZookeeperSettings, backend
from distjob_zookeeper.doctor import examine
from servers import ZookeeperCluster, ZookeeperNode, free_port
from zookeeper_stores import Open

Spawn = Callable[..., ZookeeperNode]


def examined(**settings: object) -> dict[str, str]:
    filled = ZookeeperSettings(**settings)  # type: ignore[arg-type]
    return {finding.what: finding.level for finding in examine(filled)}


def level_of(found: dict[str, str], part: str) -> str:
    (level,) = {level for what, level in found.items() if part in what}
    return level


def test_one_server(hosts: str, opened: Open) -> None:
    store = opened(hosts)
    found = examined(hosts=hosts)
    assert level_of(found, "standalone") == "ok"
    assert level_of(found, "one server alone") == "warning"
    assert level_of(found, "open ACLs") == "ok"
    assert "danger" not in found.values()
    assert backend.examine is not None
    assert [finding.what for finding in backend.examine(store)] == list(found)


def test_what_is_wrong(spawn_zookeeper: Spawn) -> None:
    node = spawn_zookeeper(
        {"maxSessionTimeout": "5000", "4lw.commands.whitelist": "ruok,srvr"},
        jvm="-Djute.maxbuffer=100000",
    )
    found = examined(hosts=node.hosts)
    assert level_of(found, "sessions of 5 s where 20 s are asked for") == "danger"
    assert level_of(found, "session.ttl is 1.7 s at most") == "danger"
    assert level_of(found, "bytes is not taken") == "danger"


def test_nodes_that_are_open_to_all(hosts: str, opened: Open, fresh_namespace: str) -> None:
    below = f"{hosts}/{fresh_namespace}"
    opened(below)
    found = examined(hosts=below, user="distjob", password="s3cret")
    assert level_of(found, "was made before user was set") == "warning"


def test_an_ensemble(zookeeper_cluster: ZookeeperCluster) -> None:
    found = examined(hosts=zookeeper_cluster.hosts)
    assert [what for what in found if ", leader" in what]
    assert "danger" not in found.values()
    one = zookeeper_cluster.nodes[0]
    assert level_of(examined(hosts=one.hosts), "names one server") == "warning"
    one.kill()
    found = examined(hosts=zookeeper_cluster.hosts, timeout=5.0)
    assert level_of(found, "2 of 3 servers") == "warning"
    assert level_of(found, f"{one.address} can't be asked") == "warning"


def test_nobody() -> None:
    found = examined(hosts=f"127.0.0.1:{free_port()}", timeout=0.5)
    assert level_of(found, "no connection") == "danger"
