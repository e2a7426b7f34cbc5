"""etcd that has used up its space: what was refused may have been made, and jobs still end.

The change that finds etcd full is applied, and refused all the same; as are those beside it, until
the alarm is raised. Afterwards nothing is applied but deletions, and is refused in the same words.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from distjob import Client, Job, Lease
from distjob.backend.opened import Blocking
from distjob.errors import BackendUnavailable, OutcomeUnknown
from distjob.store import ABSENT, Committed, Store
from distjob.testing.onloop import ProxyClient
from distjob_etcd import EtcdSettings, backend
from distjob_etcd.source import version_of
from on_etcd import failed, opened, opened_async
from servers import EtcdNode
from until import until

TTL = 10.0
BEGINNERS = 12


@pytest.fixture
def small(spawn_etcd: Callable[..., EtcdNode]) -> EtcdNode:
    return spawn_etcd("--quota-backend-bytes=2000000")


def settings_for(node: EtcdNode) -> EtcdSettings:
    return EtcdSettings(endpoints=(node.address,), timeout=5.0)


def connected(node: EtcdNode) -> Blocking:
    return opened(settings_for(node), "default", TTL)


def fill(store: Store, author: str) -> None:
    """Until it raises: etcd looks at its size only now and then, and some puts slip through."""
    for number in range(3000):
        store.commit(f"big-{number}", ABSENT, b"x" * 100_000, author, ())


def refuses_even_deletions(node: EtcdNode) -> bool:
    """These releases refuse every transaction when they are full."""
    version = version_of(node.version)
    return version < (3, 4, 20) or (3, 5, 0) <= version < (3, 5, 7)


def make_room(node: EtcdNode) -> None:
    """As an operator does: delete, compact, defragment, take the alarm back."""
    node.cli("del", "--prefix", "distjob/default/vm/big-")
    node.cli("compact", str(node.status()["header"]["revision"]))
    node.cli("defrag")
    node.cli("alarm", "disarm")


def test_a_full_server_still_lets_jobs_end(small: EtcdNode) -> None:
    with contextlib.closing(connected(small)) as store:
        me = store.open_session(TTL, "me")
        held = store.commit("vm", ABSENT, b"x", me, (me,))
        assert isinstance(held, Committed)
        error = failed(lambda: fill(store, me))
        assert error.unanswered
        assert "NOSPACE" in str(error)
        assert failed(lambda: store.open_session(TTL, "you")).unanswered
        assert store.keep_alive(me)
        assert store.read("vm").version == held.version
        assert store.remaining([me])[me] > 0
        if refuses_even_deletions(small):
            failed(lambda: store.commit("vm", held.version, None, me, ()))
        else:
            assert isinstance(store.commit("vm", held.version, None, me, ()), Committed)
        found = [finding for finding in backend.examine(store) if finding.level == "danger"]
        assert any("NOSPACE" in finding.what for finding in found)


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest, small: EtcdNode) -> Iterator[Any]:
    """A client of either kind; the one on asyncio is used from threads, its begins are tasks."""
    settings, named = settings_for(small), {"controller": "one", "ttl": TTL}
    if request.param == "asyncio":
        client: Any = ProxyClient(partial(opened_async, settings, "default", TTL), **named)
    else:
        client = Client(opened(settings, "default", TTL), **named)
    with client:
        yield client


def test_no_begin_that_was_refused_holds_its_job(small: EtcdNode, client: Any) -> None:
    """Begins from many threads while it gets full: what was granted unseen is taken back."""
    held: dict[str, Lease] = {}
    refusals: list[str] = []

    def begin_until_refused(worker: int) -> None:
        for number in itertools.count():
            vm = f"vm-{worker}-{number}"
            try:
                held[vm] = client.begin(vm, Job.MODIFY, wait=0.3)
            except OutcomeUnknown as error:
                refusals.append(str(error))
                return

    with contextlib.closing(connected(small)) as store:
        with ThreadPoolExecutor(BEGINNERS + 1) as pool:
            begins = [pool.submit(begin_until_refused, worker) for worker in range(BEGINNERS)]
            filling = pool.submit(fill, store, store.open_session(60.0, "me"))
            assert isinstance(filling.exception(), BackendUnavailable)
            for begun in begins:
                begun.result()
        assert len(refusals) == BEGINNERS
        assert all("NOSPACE" in refusal for refusal in refusals)
        if refuses_even_deletions(small):
            make_room(small)

        def jobs() -> set[str]:
            return {vm for vm, _ in store.scan() if vm.startswith("vm-")}

        until(lambda: jobs() == held.keys())
