"""Starts ZooKeeper: the fixtures `zookeeper_server`, `zookeeper_cluster` and `spawn_zookeeper`.

A tick is `TICK` seconds, so that sessions may be short and a failover takes a second or two.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from servers.containers import composed, contained
from servers.machine import Machine, Process, free_port
from servers.node import running
from servers.plan import Plan, lacking, prepared
from servers.zookeeper import ZookeeperCluster, ZookeeperNode

TICK = 0.1
"""Seconds; a session's TTL may be two ticks to a minute."""
SUPERUSER = ("super", "for-tests-only")
"""Who may do everything, by the scheme "digest"."""
JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx256m"


def _digest(user: str, password: str) -> str:
    known = hashlib.sha1(f"{user}:{password}".encode()).digest()  # the scheme of the server's
    return f"{user}:{base64.b64encode(known).decode()}"


CONFIG: Mapping[str, str] = {
    "tickTime": f"{TICK * 1000:.0f}",
    "initLimit": "50",
    "syncLimit": "20",
    "maxClientCnxns": "0",
    "admin.enableServer": "false",
    "4lw.commands.whitelist": "*",
    "maxSessionTimeout": "60000",
    # A node that was taken from the network must not hold up the election of the others.
    "cnxTimeout": "1000",
    "preAllocSize": "1024",
    "DigestAuthenticationProvider.superDigest": _digest(*SUPERUSER),
}
# In the compose files these have variables of their own; the others are added as they are.
_NAMED = {
    "tickTime": "TICK_MS",
    "initLimit": "INIT_LIMIT",
    "syncLimit": "SYNC_LIMIT",
    "4lw.commands.whitelist": "4LW",
}
_IN_COMPOSE = {"maxClientCnxns", "admin.enableServer", "maxSessionTimeout"}


def zookeeper_plan() -> Plan:
    """How to get a ZooKeeper; skips the test if there is none."""
    found = prepared("zookeeper")
    return found if found.way else lacking(str(found))


def _settings(found: Plan) -> dict[str, str]:
    """What the compose files take."""
    settings = {f"DISTJOB_ZOOKEEPER_{name}": CONFIG[key] for key, name in _NAMED.items()}
    more = {k: v for k, v in CONFIG.items() if k not in _NAMED and k not in _IN_COMPOSE}
    return {
        **settings,
        "DISTJOB_ZOOKEEPER_IMAGE": found.what,
        "DISTJOB_ZOOKEEPER_CONFIG": " ".join(f"{key}={value}" for key, value in more.items()),
        "DISTJOB_ZOOKEEPER_JVMFLAGS": JVM,
    }


def _process(
    found: Plan, folder: Path, config: Mapping[str, str], give: Sequence[Path] = (), jvm: str = ""
) -> ZookeeperNode:
    port = int(config.get("clientPort", free_port()))
    there = {"dataDir": str(folder), "clientPort": str(port), "clientPortAddress": "127.0.0.1"}
    lines = {**CONFIG, **there, **config}
    written = "".join(f"{key}={value}\n" for key, value in lines.items())
    (folder / "zoo.cfg").write_text(written.replace("{dir}", str(folder)))
    argv = [found.what, "start-foreground", str(folder / "zoo.cfg")]
    flags = f"{JVM} {jvm}".replace("{dir}", str(folder))
    machine = Process(found.way, argv, folder, {"JVMFLAGS": flags, "ZOOCFGDIR": str(folder)})
    for file in give:
        machine.give(file)
    return ZookeeperNode(machine, "127.0.0.1", port)


@pytest.fixture(scope="session")
def zookeeper_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperNode]:
    """One node, shared by all tests of the run; after each it is healthy again."""
    found = zookeeper_plan()
    with ExitStack() as stack:
        if found.way == "docker":
            port = free_port()
            settings = {**_settings(found), "DISTJOB_ZOOKEEPER_PORT": str(port)}
            services = stack.enter_context(composed("zookeeper/compose.yaml", settings))
            node = ZookeeperNode(services["zookeeper"], "127.0.0.1", port)
        else:
            node = _process(found, tmp_path_factory.mktemp("zookeeper"), {})
            stack.callback(node.kill)
            node.machine.start()
        node.wait_until_ready()
        yield stack.enter_context(running("zookeeper_server", node))


@pytest.fixture
def spawn_zookeeper(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., ZookeeperNode]]:
    """Starts one more node with settings of the test's own: ``spawn(config, give=, jvm=, tls=)``.

    ``config`` are lines of zoo.cfg besides `CONFIG`, without spaces in the values; ``give`` are
    files for it, and ``{dir}`` in a value or in the ``jvm`` flags is the folder where it has them.
    With ``tls`` it listens on ``tls_port``, too; say in ``config`` where its keys are. It returns
    when the node is ready, and the node is gone after the test.
    """
    found = zookeeper_plan()
    with ExitStack() as stack:

        def spawn(
            config: Mapping[str, str] | None = None,
            give: Sequence[Path] = (),
            jvm: str = "",
            tls: bool = False,
        ) -> ZookeeperNode:
            tls_port = free_port() if tls else 0
            lines = dict(config or {})
            if tls:
                lines["secureClientPort"] = "2281" if found.way == "docker" else str(tls_port)
                lines["serverCnxnFactory"] = "org.apache.zookeeper.server.NettyServerCnxnFactory"
            if found.way == "docker":
                port = free_port()
                ports = {port: 2181, **({tls_port: 2281} if tls else {})}
                argv, env = ["zkServer.sh", "start-foreground"], _environment(lines, jvm)
                machine: Machine = stack.enter_context(
                    contained(found.what, argv, ports, give, env)
                )
                node = ZookeeperNode(machine, "127.0.0.1", port)
            else:
                folder = tmp_path_factory.mktemp("zookeeper")
                node = _process(found, folder, lines, give, jvm)
                stack.callback(node.kill)
            node.tls_port = tls_port
            node.start()
            return node

        yield spawn


def _environment(config: Mapping[str, str], jvm: str) -> dict[str, str]:
    """What the image takes; of a line that is there twice the last one counts."""
    lines = " ".join(f"{key}={value}" for key, value in {**CONFIG, **config}.items())
    return {
        "ZOO_CFG_EXTRA": lines.replace("{dir}", "/given"),
        "JVMFLAGS": f"{JVM} {jvm}".replace("{dir}", "/given"),
    }


# -- three ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def zookeeper_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZookeeperCluster]:
    """Three nodes, shared by all tests of the run; after each they are healthy again."""
    found = zookeeper_plan()
    with ExitStack() as stack:
        if found.way == "docker":
            file, net = "zookeeper/cluster.compose.yaml", "DISTJOB_ZOOKEEPER_NET"
            services = stack.enter_context(composed(file, _settings(found), net=net))
            machines = [machine for _, machine in sorted(services.items())]
            nodes = [ZookeeperNode(machine, machine.address, 2181) for machine in machines]
        else:
            nodes = _three_processes(found, tmp_path_factory)
            for node in nodes:
                stack.callback(node.kill)
                node.machine.start()
        cluster = ZookeeperCluster(nodes)
        cluster.wait_until_ready()
        yield stack.enter_context(running("zookeeper_cluster", cluster))


def _three_processes(found: Plan, folders: pytest.TempPathFactory) -> list[ZookeeperNode]:
    peers = [f"127.0.0.1:{free_port()}:{free_port()}" for _ in range(3)]
    members = {f"server.{i}": peer for i, peer in enumerate(peers, 1)}
    nodes = []
    for i in range(1, 4):
        folder = folders.mktemp(f"zookeeper{i}")
        (folder / "myid").write_text(str(i))
        nodes.append(_process(found, folder, members))
    return nodes
