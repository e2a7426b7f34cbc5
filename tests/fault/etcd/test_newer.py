"""A user of the documented role, on an etcd that tells its state to root only.

Releases 3.5.28 to 3.5.31 and 3.6.0 to 3.6.11 do so; 3.4.42, 3.5.28 and 3.6.9 list the members to
root only, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from distjob import Client, Job
from distjob.cli.app import cli
from distjob.config import load, open_backend, open_backend_async
from distjob.testing.onloop import ProxyClient
from distjob_etcd import EtcdSettings, backend
from distjob_etcd.client.calls import BlockingCalls
from distjob_etcd.client.members import ALARM, MEMBERS, STATUS, Member, Metadata
from distjob_etcd.faults import Failure
from on_etcd import opened
from servers import EtcdCluster, EtcdNode
from servers.debian import NEWER
from until import until

SECRET, ROOT = "s3cret", "r00t"
DOCS = Path(__file__).parent.parent.parent.parent / "docs"


@pytest.fixture
def guarded(spawn_newer_etcd: Callable[..., EtcdNode]) -> EtcdNode:
    """With the role and the user that docs/howto/operations.md makes, and passwords asked for."""
    node = spawn_newer_etcd()
    assert tuple(map(int, node.version.split("."))) >= NEWER
    text = (DOCS / "howto" / "operations.md").read_text()
    commands = re.findall(r"etcdctl ((?:role|user) [^&\n]+)", text)
    assert len(commands) == 4
    for command in commands:
        words = command.split()
        if words[:2] == ["user", "add"]:
            words[2] += f":{SECRET}"
        node.cli(*words)
    node.cli("user", "add", f"root:{ROOT}")
    node.cli("user", "grant-role", "root", "root")
    node.cli("auth", "enable")
    return node


def settings_for(node: EtcdNode, user: str, password: str) -> dict[str, Any]:
    etcd = {"endpoints": node.endpoints, "timeout": 5.0, "user": user, "password": password}
    return {"namespace": "prod", "backend": "etcd", "etcd": etcd}


def tells_its_state(node: EtcdNode) -> bool:
    """Whether etcd's own client learns it as that user."""
    try:
        node.cli("--user", f"distjob:{SECRET}", "endpoint", "status")
    except RuntimeError as error:
        refusal = str(error)
    else:
        return True
    assert "permission denied" in refusal
    return False


@pytest.fixture(params=["blocking", "asyncio"])
def clients(request: pytest.FixtureRequest, guarded: EtcdNode) -> Iterator[list[Any]]:
    """Two of the documented user."""
    settings = load(settings_for(guarded, "distjob", SECRET))

    def client(name: str) -> Any:
        if request.param == "asyncio":
            return ProxyClient(partial(open_backend_async, settings), controller=name)
        return Client(open_backend(settings), controller=name)

    with client("one") as one, client("two") as two:
        yield [one, two]


def test_the_documented_role_is_enough(clients: list[Any]) -> None:
    one, two = clients
    first = one.begin("vm", Job.MODIFY)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(two.begin, "vm", Job.MODIFY, wait=60.0)
        until(lambda: one.status("vm").waiters)
        first.end()
        second = waiting.result()
    assert second.token > first.token
    second.end()
    assert list(one.list()) == []


def doctor(node: EtcdNode, user: str, password: str, folder: Path) -> dict[str, str]:
    file = folder / "distjob.yaml"
    file.write_text(json.dumps(settings_for(node, user, password)))
    result = CliRunner().invoke(cli, ["doctor", "--config", str(file), "--json"])
    assert result.exit_code == 0, result.output
    return {finding["what"]: finding["level"] for finding in json.loads(result.stdout)["findings"]}


def test_doctor_says_what_it_may_not_see(guarded: EtcdNode, tmp_path: Path) -> None:
    hidden = f"the version, space and leader of etcd at {guarded.address} may be read by root only"
    found = doctor(guarded, "distjob", SECRET, tmp_path)
    assert (found.get(hidden) == "warning") == (not tells_its_state(guarded))
    assert found["all 1 endpoints answer"] == "ok"
    assert found["authentication is on"] == "ok"
    assert any("who waited was let in" in what for what in found)
    assert not [what for what in found if "CVE-2026-33413" in what]


def test_doctor_of_roots_sees_it(guarded: EtcdNode, tmp_path: Path) -> None:
    found = doctor(guarded, "root", ROOT, tmp_path)
    assert found["all 1 endpoints answer"] == "ok"
    assert not [what for what in found if "root only" in what or "does not answer" in what]


def test_a_release_that_tells_root_only_how_many_members_there_are(
    etcd_cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch, fresh_namespace: str
) -> None:
    """As 3.5.28 does, which no package has any more: the refusals are put in at the call."""
    asked: set[str] = set()
    call = BlockingCalls.call

    async def refusing(
        calls: BlockingCalls,
        member: Member,
        method: str,
        request: Any,
        seconds: float,
        words: Metadata,
    ) -> Any:
        asked.add(method)
        if method in (STATUS, MEMBERS, ALARM):
            return Failure(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
        return await call(calls, member, method, request, seconds, words)

    monkeypatch.setattr(BlockingCalls, "call", refusing)
    settings = EtcdSettings(endpoints=tuple(etcd_cluster.endpoints), timeout=5.0)
    store = opened(settings, fresh_namespace, 10.0)
    try:
        assert backend.examine is not None
        found = [finding.what for finding in backend.examine(store) if "root only" in finding.what]
        assert store.guarantees.failover == "none"  # the least that can be promised
    finally:
        store.close()
    assert asked >= {STATUS, MEMBERS, ALARM}
    assert len(found) == len(etcd_cluster.nodes) + 2
    for words in ("version, space and leader", "how many members", "alarms"):
        assert any(words in what for what in found)
