"""Starts etcd: the fixtures `etcd_server`, `etcd_cluster`, `spawn_etcd` and `spawn_newer_etcd`.

Elections take the time that they take in earnest, a second or two: where several nodes share two
cores, shorter ones come without anybody having failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from servers.containers import composed, contained
from servers.debian import newer_etcd
from servers.etcd import EtcdCluster, EtcdNode
from servers.machine import Process, free_port
from servers.node import running
from servers.plan import Plan, lacking, prepared


def etcd_plan() -> Plan:
    """How to get an etcd; skips the test if there is none."""
    return _usable(prepared("etcd"))


def _usable(found: Plan) -> Plan:
    return found if found.way else lacking(str(found))


def _flags(folder: str, client: str, advertised: str, *more: str) -> list[str]:
    return [
        f"--data-dir={folder}/data",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={advertised}",
        *more,
    ]


def _process(found: Plan, folder: Path, scheme: str, give: Sequence[Path], *flags: str) -> EtcdNode:
    port, peer, health = free_port(), free_port(), free_port()
    url, peers = f"{scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    argv = [
        found.what,
        *_flags(str(folder), url, url),
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        f"--listen-metrics-urls=http://127.0.0.1:{health}",
        *(flag.replace("{dir}", str(folder)) for flag in flags),
    ]
    machine = Process(found.way, argv, folder)
    for file in give:
        machine.give(file)
    return EtcdNode(machine, "127.0.0.1", port, health, scheme)


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdNode]:
    """One node, shared by all tests of the run; after each it is healthy again."""
    found = etcd_plan()
    with ExitStack() as stack:
        if found.way == "docker":
            port = free_port()
            settings = {"DISTJOB_ETCD_IMAGE": found.what, "DISTJOB_ETCD_PORT": str(port)}
            services = stack.enter_context(composed("etcd/compose.yaml", settings))
            node = EtcdNode(services["etcd"], "127.0.0.1", port)
        else:
            node = _process(found, tmp_path_factory.mktemp("etcd"), "http", ())
            stack.callback(node.kill)
            node.machine.start()
        node.wait_until_ready()
        yield stack.enter_context(running("etcd_server", node))


Spawn = Callable[..., EtcdNode]


@pytest.fixture
def spawn_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    """Starts one more node with flags of the test's own: ``spawn(*flags, scheme=, give=)``.

    ``give`` are files for it; ``{dir}`` in a flag is the folder where it has them. It returns when
    the node is ready, and the node is gone after the test.
    """
    with _spawning(etcd_plan(), tmp_path_factory) as spawn:
        yield spawn


@pytest.fixture
def spawn_newer_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawn]:
    """The same of a release that guards more (see `servers.debian`), if the usual one is older."""
    with _spawning(_usable(newer_etcd()), tmp_path_factory) as spawn:
        yield spawn


@contextmanager
def _spawning(found: Plan, folders: pytest.TempPathFactory) -> Iterator[Spawn]:
    with ExitStack() as stack:

        def spawn(*flags: str, scheme: str = "http", give: Sequence[Path] = ()) -> EtcdNode:
            if found.way == "docker":
                port, health = free_port(), free_port()
                client = f"{scheme}://0.0.0.0:2379"
                argv = [
                    "etcd",
                    *_flags("/var/lib/etcd", client, f"{scheme}://localhost:2379"),
                    "--listen-metrics-urls=http://0.0.0.0:2381",
                    *(flag.replace("{dir}", "/given") for flag in flags),
                ]
                machine = contained(found.what, argv, {port: 2379, health: 2381}, give)
                node = EtcdNode(stack.enter_context(machine), "127.0.0.1", port, health, scheme)
            else:
                node = _process(found, folders.mktemp("etcd"), scheme, give, *flags)
                stack.callback(node.kill)
            node.start()
            return node

        yield spawn


# -- three ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def etcd_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """Three nodes, shared by all tests of the run; after each they are healthy again."""
    found = etcd_plan()
    with ExitStack() as stack:
        if found.way == "docker":
            settings = {"DISTJOB_ETCD_IMAGE": found.what}
            up = composed("etcd/cluster.compose.yaml", settings, net="DISTJOB_ETCD_NET")
            nodes = [
                EtcdNode(machine, machine.address, 2379)
                for _, machine in sorted(stack.enter_context(up).items())
            ]
        else:
            nodes = _three_processes(found, tmp_path_factory)
            for node in nodes:
                stack.callback(node.kill)
                node.machine.start()
        cluster = EtcdCluster(nodes)
        cluster.wait_until_ready()
        yield stack.enter_context(running("etcd_cluster", cluster))


def _three_processes(found: Plan, folders: pytest.TempPathFactory) -> list[EtcdNode]:
    peers = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
    members = ",".join(f"etcd{i}={peer}" for i, peer in enumerate(peers))
    nodes = []
    for i, peer in enumerate(peers):
        folder, port = folders.mktemp(f"etcd{i}"), free_port()
        url = f"http://127.0.0.1:{port}"
        argv = [
            found.what,
            *_flags(str(folder), url, url),
            f"--name=etcd{i}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={members}",
        ]
        nodes.append(EtcdNode(Process(found.way, argv, folder), "127.0.0.1", port))
    return nodes
