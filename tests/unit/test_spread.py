"""What stays together when tests are spread over processes, and what a process is dealt."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spread import FORKS, LAST, ORDER, dealt_next, group_of

TESTS = Path(__file__).parent.parent


def item(name: str, *fixtures: str, forks: bool = False, **params: object) -> Any:
    return SimpleNamespace(
        nodeid=name,
        fixturenames=fixtures,
        callspec=SimpleNamespace(params=params),
        get_closest_marker=lambda mark: mark == "forks" and forks,
    )


@pytest.mark.parametrize(
    ("one", "group"),
    [
        (item("test_record.py::test"), ""),
        (item("test_fork.py::test", forks=True), FORKS),
        (item("test.py::test", "redis_server", forks=True), "redis_server"),
        (item("test_redis_aio.py::test", "redis_server"), "redis_server+asyncio"),
        (item("test.py::test[redis+asyncio]", open_store="redis+asyncio"), "redis_server+asyncio"),
        (item("test.py::test[redis-sentinel+asyncio]", open_store="redis-sentinel+asyncio"),
         "redis_sentinel"),
        (item("test.py::test[etcd]", config="etcd"), "etcd_server"),
        (item("test.py::test[etcd+asyncio]", open_store="etcd+asyncio"), LAST),
        (item("test.py::TestClusterOnAsyncio::test", "etcd_cluster"), LAST),
        (item("test.py::test[zookeeper_cluster]", server="zookeeper_cluster"), "zookeeper_cluster"),
        (item("test.py::test[sqlite]", open_store="sqlite", number=7), ""),
    ],
    ids=lambda one: getattr(one, "nodeid", None),
)  # fmt: skip
def test_groups(one: Any, group: str) -> None:
    assert group_of(one) == group
    assert group in ("", *ORDER)


def test_a_group_of_its_own_is_kept() -> None:
    mark = SimpleNamespace(args=("worlds",))
    one = item("test_world.py::test", "redis_server")
    one.get_closest_marker = {"xdist_group": mark}.get
    assert group_of(one) == "worlds"


def test_where_grpc_was_used_on_asyncio_no_group_follows() -> None:
    waiting = [LAST, "redis_server", FORKS, "tests/unit/test_names.py::test[a::b]"]
    assert dealt_next(waiting, spoilt=False, alone=False) == LAST
    assert dealt_next(waiting[1:], spoilt=False, alone=False) == "redis_server"
    assert dealt_next(waiting[1:], spoilt=True, alone=False) == waiting[3]
    assert dealt_next(waiting[1:3], spoilt=True, alone=False) is None
    assert dealt_next(waiting, spoilt=False, alone=True) == "redis_server"
    assert dealt_next(waiting[:1], spoilt=False, alone=True) == LAST


def test_a_fork_that_was_not_announced_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text("""
import os, pytest

def fork():
    if os.fork() == 0:
        os._exit(0)
    os.wait()

def test_not_announced():
    fork()

@pytest.mark.forks
def test_announced():
    fork()
""")
    told = run(tmp_path, "-n0")
    assert "1 failed, 1 passed" in told, told
    assert "needs the mark `forks`" in told


def test_what_names_one_group_is_in_one_process(tmp_path: Path) -> None:
    """That pytest and xdist understand each other, which was not so at all times."""
    (tmp_path / "fault").mkdir()
    (tmp_path / "fault" / "test_inner.py").write_text("""
import os, pytest

@pytest.mark.xdist_group("browser")
@pytest.mark.parametrize("number", range(6))
def test_one(number, worker_id):
    print("ran in", worker_id)
    assert False
""")
    told = run(tmp_path, "-n2", "--dist=loadgroup")
    ran = [line for line in told.splitlines() if line.startswith("ran in ")]
    assert (len(ran), len(set(ran))) == (6, 1), told


def run(folder: Path, *words: str) -> str:
    """What pytest says of the tests in ``folder``, which are spread as ours."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = forks\nfilterwarnings = error\n")
    shutil.copy(TESTS / "spread.py", folder)  # it sorts by the folders beside it
    ours = ("-p", "spread", "-p", "no:cacheprovider", "-q")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *ours, *words, "."],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{folder}:{TESTS}", "HOME": str(folder)},
    ).stdout  # fmt: skip
