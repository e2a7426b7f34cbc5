"""etcd as the tests see it, one node or three; `etcd_fixtures` starts them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import Any, cast

from servers.machine import Machine
from servers.node import Group, Node, wait_for


class EtcdNode(Node):
    """One etcd; ``health_port`` answers /health without TLS."""

    def __init__(
        self, machine: Machine, host: str, port: int, health_port: int = 0, scheme: str = "http"
    ) -> None:
        super().__init__(machine, host, port)
        self.scheme = scheme
        self._health_port = health_port or port

    @property
    def endpoints(self) -> list[str]:
        """As the setting of that name takes them."""
        return [self.address]

    def answers(self) -> bool:
        # Reads and writes are served from the moment that there is a leader: /health asks for that.
        if (self._ask("GET", "/health") or {}).get("health") != "true":
            return False
        if self.scheme == "http":  # told to everybody, while newer releases tell root their status
            self.version = str((self._ask("GET", "/version") or {})["etcdserver"])
        return True

    def status(self) -> dict[str, Any]:
        """Its own view: version, leader, raftTerm, and header.member_id; empty if it is down."""
        return self._ask("POST", "/v3/maintenance/status") or {}

    def leads(self) -> bool:
        """Whether it takes itself for the leader."""
        status = self.status()
        return bool(status) and status.get("leader") == status["header"].get("member_id")

    def wipe(self) -> None:
        """Kill it, and take all its data away; it starts as one that has never been used."""
        self.exec("rm", "-rf", *(f"{folder}/member" for folder in self._folders))
        self.kill()

    def back_up(self) -> str:
        """What it holds now, as a file where it runs."""
        backup = f"{self._folders[0]}.backup"
        self.cli("snapshot", "save", backup)
        return backup

    def restore(self, backup: str) -> None:
        """Kill it, and put what ``backup`` holds in its place; of one that was spawned."""
        data = self._folders[0]
        made = f"snapshot restore {backup} --data-dir {data}.restored"
        self.exec("sh", "-c", f"etcdutl {made} || etcdctl {made}")
        self.exec("sh", "-c", f"rm -rf {data}/member; mv {data}.restored/member {data}/member")
        self.kill()

    @property
    def _folders(self) -> Sequence[str]:
        """Of its data, where it runs: of one that was spawned, and of the other ones."""
        if self.kind == "docker":
            return "/var/lib/etcd/data", "/var/lib/etcd"
        return (f"{self.machine._folder}/data",)  # type: ignore[attr-defined]

    def cli(self, *words: str) -> str:
        """What etcdctl, run beside the server, prints; without TLS."""
        where = "127.0.0.1:2379" if self.kind == "docker" else self.address
        return self.exec("etcdctl", "--endpoints", where, *words)

    def _ask(self, verb: str, path: str) -> dict[str, Any] | None:
        port = self._health_port if path == "/health" else self.port
        link = http.client.HTTPConnection(self.host, port, timeout=1.0)
        try:
            link.request(verb, path, body="{}" if verb == "POST" else None)
            return cast("dict[str, Any]", json.loads(link.getresponse().read()))
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            link.close()


class EtcdCluster(Group):
    """Three nodes; any two of them can work."""

    def __init__(self, nodes: Sequence[EtcdNode]) -> None:
        self.nodes: list[EtcdNode] = list(nodes)

    @property
    def endpoints(self) -> list[str]:
        """As the setting of that name takes them."""
        return [node.address for node in self.nodes]

    def leader(self) -> EtcdNode:
        """The node that leads now; of two that think so the one with the later term."""
        found: list[EtcdNode] = []

        def look() -> bool:
            found[:] = [node for node in self.nodes if node.leads()]
            return bool(found)

        wait_for(look, "a leader of the etcd cluster")
        return max(found, key=lambda node: int(node.status().get("raftTerm", 0)))

    def fail_over(self) -> EtcdNode:
        """Have the leader hand over, in good order, to another node, which is returned."""
        old = self.leader()
        new = next(node for node in self.nodes if node is not old and node.answers())
        old.cli("move-leader", f"{int(new.status()['header']['member_id']):x}")
        wait_for(new.leads, f"{new.address} leading")
        new.touched = True
        return new

    def wait_until_ready(self) -> None:
        """Return when all three are up and agree who leads."""
        for node in self.nodes:
            node.wait_until_ready()
        wait_for(self._agree, "all etcd nodes agreeing on a leader")

    def _agree(self) -> bool:
        seen = [node.status() for node in self.nodes]
        views = {(one.get("leader"), one.get("raftTerm")) for one in seen}
        return len(views) == 1 and bool(seen[0].get("leader"))
