"""ZooKeeper as the tests see it, one node or three; `zookeeper_fixtures` starts them."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence

from servers.node import Group, Node, wait_for


class ZookeeperNode(Node):
    """One ZooKeeper."""

    tls_port = 0
    """Of one that was spawned with ``tls=True``."""

    @property
    def hosts(self) -> str:
        """As the setting of that name takes them."""
        return self.address

    def answers(self) -> bool:
        told = self.ask("srvr")
        found = re.search(r"version: ([\d.]+)", told)
        self.version = found[1] if found else ""
        return "Mode: " in told

    def mode(self) -> str:
        """standalone, leader or follower; "" while it serves nobody."""
        found = re.search(r"Mode: (\w+)", self.ask("srvr"))
        return found[1] if found else ""

    def ask(self, word: str) -> str:
        """Its reply to a four letter word such as ``srvr``, ``cons`` or ``mntr``; "" if none."""
        said = b""
        try:
            with socket.create_connection((self.host, self.port), timeout=1.0) as link:
                link.sendall(word.encode())
                while more := link.recv(65536):
                    said += more
        except OSError:
            return ""
        return said.decode(errors="replace")

    def wipe(self) -> None:
        """Take all its data away, and start it again if it ran, as one that has never been used."""
        folders = ("/data", "/datalog") if self.kind == "docker" else (str(self.machine._folder),)  # type: ignore[attr-defined]
        self.exec("rm", "-rf", *(f"{folder}/version-2" for folder in folders))
        self.kill()

    def cli(self, *words: str) -> str:
        """What zkCli.sh, run beside the server, prints."""
        where = "127.0.0.1:2181" if self.kind == "docker" else self.address
        return self.exec("zkCli.sh", "-server", where, *words)


class ZookeeperCluster(Group):
    """Three nodes; any two of them can work."""

    def __init__(self, nodes: Sequence[ZookeeperNode]) -> None:
        self.nodes: list[ZookeeperNode] = list(nodes)

    @property
    def hosts(self) -> str:
        """As the setting of that name takes them."""
        return ",".join(node.address for node in self.nodes)

    def leader(self) -> ZookeeperNode:
        """The node that leads now."""
        found: list[ZookeeperNode] = []

        def look() -> bool:
            found[:] = [node for node in self.nodes if node.mode() == "leader"]
            return len(found) == 1

        wait_for(look, "a leader of the ZooKeeper ensemble")
        return found[0]

    def fail_over(self) -> ZookeeperNode:
        """Restart the leader, so that another one leads, which is returned."""
        old = self.leader()
        old.stop()
        new = self.leader()
        old.start()
        new.touched = True
        return new

    def wait_until_ready(self) -> None:
        """Return when all three serve, one of them as the leader."""
        for node in self.nodes:
            node.wait_until_ready()
        wait_for(self._agree, "all ZooKeeper nodes in one ensemble")

    def _agree(self) -> bool:
        modes = sorted(node.mode() for node in self.nodes)
        if modes != ["follower", "follower", "leader"]:
            return False
        followers = re.search(r"zk_synced_followers\s+(\d+)", self.leader().ask("mntr"))
        return followers is not None and followers[1] == "2"
