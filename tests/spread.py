"""Spreads the tests over processes: which of them stay together, and in which order they are dealt.

Each process has servers of its own, so tests may kill them. Tests that use the same kind are kept
together (`group_of`), lest each process starts one of each. Most of their time is waiting, for
leases to end and servers to come back: hence two processes for each core. Run so is what is run
whole, or by folders; single files, and what `-k` has chosen, stay in one process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from servers import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdist.workermanage import WorkerController

LAST = "etcd+asyncio"
"""Where gRPC's asyncio was used, a forked child may crash: such a process is dealt no more groups,
and every test that forks is in one, be it `FORKS`."""
FORKS = "forks"
ORDER = (  # the longest first
    *("zookeeper_server", LAST, "etcd_server", "zookeeper_server+asyncio", "redis_server"),
    *("redis_server+asyncio", "zookeeper_cluster", "redis_cluster", "redis_sentinel"),
    *("etcd_cluster", "worlds", "house", "browser", "libvirt", FORKS),
)
FOLDERS = ("fault", "sim", "unit", "contract")
"""What uses no server is dealt in the end, test by test, the long ones of these first."""


def group_of(item: pytest.Item) -> str:
    """The server that it names by a fixture or a parameter; "" if it may run anywhere."""
    if found := item.get_closest_marker("xdist_group"):
        return str(found.args[0])
    given = getattr(item, "callspec", None)
    words = {word for word in given.params.values() if isinstance(word, str)} if given else set()
    names = {word.partition("+")[0].replace("-", "_") for word in words}
    names |= {f"{name}_server" for name in names}
    used = sorted(FIXTURES & (names | set(getattr(item, "fixturenames", ()))))
    if not used:
        return FORKS if item.get_closest_marker("forks") else ""
    if on_asyncio(item):
        return LAST if "etcd" in used[0] else used[0] + "+asyncio" * used[0].endswith("_server")
    return used[0]


def on_asyncio(item: pytest.Item) -> bool:
    """Whether it is named so."""
    return "aio" in item.nodeid.lower().replace("asyncio", "aio")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """How many processes; 0 is this one, which shows output at once and can be debugged."""
    narrowed = config.option.keyword or config.option.capture == "no"
    if narrowed or any(not Path(word).is_dir() for word in config.args):
        return 0
    return 2 * len(os.sched_getaffinity(0))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what stays together, and sort."""
    place = {group: number for number, group in enumerate(ORDER)}
    alone = "PYTEST_XDIST_WORKER" not in os.environ

    def rank(item: pytest.Item) -> tuple[bool, int, int]:
        group = group_of(item)
        if alone:  # then the rest must come before
            return group == LAST, 0, 0
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        return group == "", place.get(group, len(ORDER)), FOLDERS.index(folder)

    items.sort(key=rank)
    for item in items:
        if item.get_closest_marker("forks"):  # Python 3.12 and later warn of a fork beside threads
            item.add_marker(pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"))
        if (group := group_of(item)) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))


class _Forks:
    """Refuses a fork in a test that does not say that it forks: it could come after `LAST`."""

    allowed = True

    def check(self) -> None:
        if not self.allowed:
            msg = "a test that forks needs the mark `forks`: see tests/spread.py"
            raise RuntimeError(msg)  # told as an exception that nobody can catch


_forks = _Forks()
os.register_at_fork(before=_forks.check)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _forks.allowed = item.get_closest_marker("forks") is not None
    try:
        return (yield)
    finally:
        _forks.allowed = True


def dealt_next(waiting: Iterable[str], *, spoilt: bool, alone: bool) -> str | None:
    """The unit of those ``waiting`` that a process is to have; None if none is fit for it.

    ``spoilt``: it has had `LAST`. ``alone``: there is no other process, so `LAST` comes last.
    """
    if alone:
        return min(waiting, key=LAST.__eq__, default=None)
    return next((unit for unit in waiting if not spoilt or "::" in unit), None)  # a single test


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups in our order, each to one process."""
    from xdist.scheduler import LoadGroupScheduling

    class Dealer(LoadGroupScheduling):
        def __init__(self) -> None:
            super().__init__(config, log)
            self.spoilt: set[WorkerController] = set()

        def _assign_work_unit(self, node: WorkerController) -> None:
            alone = len(self.nodes) == 1
            unit = dealt_next(self.workqueue, spoilt=node in self.spoilt, alone=alone)
            if unit is None:
                node.shutdown()
                return
            if unit == LAST:
                self.spoilt.add(node)
            self.workqueue.move_to_end(unit, last=False)
            super()._assign_work_unit(node)

    config.option.loadscopereorder = False
    return Dealer()
