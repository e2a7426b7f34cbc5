"""etcd that has used up its space: of what was refused it is found out if it was made; jobs end.

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
from grpc import StatusCode

from distjob import Client, Job, Lease
from distjob.backend.opened import Blocking
from distjob.backend.world import now
from distjob.errors import BackendUnavailable
from distjob.store import ABSENT, Committed, Reply, Stale, Store, Versioned
from distjob.testing.onloop import ProxyClient
from distjob_etcd import EtcdSettings, backend, full
from distjob_etcd.commit import Commit
from distjob_etcd.faults import EtcdFault, Failure
from distjob_etcd.source import version_of
from on_etcd import failed, opened, opened_async, source_of
from proxy import Proxy
from servers import EtcdNode
from until import until

TTL = 10.0
BEGINNERS = 12
NO_SPACE = "etcdserver: mvcc: database space exceeded"


@pytest.fixture
def small(spawn_etcd: Callable[..., EtcdNode]) -> EtcdNode:
    return spawn_etcd("--quota-backend-bytes=2000000")


def settings_for(node: EtcdNode) -> EtcdSettings:
    return EtcdSettings(endpoints=(node.address,), timeout=5.0)


def connected(node: EtcdNode) -> Blocking:
    return opened(settings_for(node), "default", TTL)


def fill(store: Store, author: str, made: set[str]) -> None:
    """Until it raises: etcd looks at its size only now and then, and some puts slip through."""
    for number in range(3000):
        vm = f"big-{number}"
        assert isinstance(store.commit(vm, ABSENT, b"x" * 100_000, author, ()), Committed)
        made.add(vm)


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
        error = failed(lambda: fill(store, me, set()))
        assert not error.unanswered
        assert "NOSPACE" in str(error)
        assert store.commit("vm", ABSENT, b"y", me, ()) == Stale(held.version, b"x")
        assert not failed(lambda: store.commit("vm", held.version, b"y", me, ())).unanswered
        assert store.read("vm") == Versioned(held.version, b"x")
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
    """Begins from many threads while it gets full: each is granted, or surely was not."""
    held: dict[str, Lease] = {}
    refusals: list[str] = []
    filled: set[str] = set()

    def begin_until_refused(worker: int) -> None:
        for number in itertools.count():
            vm = f"vm-{worker}-{number}"
            try:
                held[vm] = client.begin(vm, Job.MODIFY, wait=0.3)
            except BackendUnavailable as error:
                refusals.append(str(error))
                return

    with contextlib.closing(connected(small)) as store:
        with ThreadPoolExecutor(BEGINNERS + 1) as pool:
            begins = [pool.submit(begin_until_refused, worker) for worker in range(BEGINNERS)]
            filling = pool.submit(fill, store, store.open_session(60.0, "me"), filled)
            assert isinstance(filling.exception(), BackendUnavailable)
            for begun in begins:
                begun.result()
        assert len(refusals) == BEGINNERS
        assert all("NOSPACE" in refusal for refusal in refusals)
        assert {vm for vm, _ in store.scan()} == held.keys() | filled
        assert all(store.read(vm).version == lease.token for vm, lease in held.items())
        if refuses_even_deletions(small):
            make_room(small)
        for lease in held.values():
            lease.end()
        assert not {vm for vm, _ in store.scan() if vm.startswith("vm-")}


def test_what_was_not_answered_is_settled_once_there_is_space(small: EtcdNode) -> None:
    """Settling writes, so until then it is refused, and the commit stays in doubt."""
    with Proxy((small.host, small.port)) as proxy, contextlib.ExitStack() as closing:
        store = connected(small)
        closing.callback(store.close)
        section = EtcdSettings(endpoints=(proxy.address,), timeout=0.5)
        through = opened(section, "default", TTL)
        closing.callback(through.close)
        me = store.open_session(60.0, "me")
        proxy.hold_next_request(holding=b"/vm/vm")
        assert failed(lambda: through.commit("vm", ABSENT, b"late", me, ())).unanswered
        failed(lambda: fill(store, me, set()))
        assert "NOSPACE" in str(failed(lambda: store.settle(me)))
        make_room(small)
        store.settle(me)
        before = int(small.status()["raftAppliedIndex"])
        proxy.release()
        until(lambda: int(small.status()["raftAppliedIndex"]) > before)
        assert store.read("vm").value is None


# -- what the history tells of a refused commit, here that of a server with space -----------------

MINE, OTHERS, REMOVED = b"mine", b"others", None


def told(store: Store, expected: int) -> Reply:
    """The reply of a commit of `MINE` that was refused."""
    source = source_of(store)
    refusal = Failure(StatusCode.RESOURCE_EXHAUSTED, NO_SPACE).fault("here:1", change=True)
    commit = Commit(source._layout, "vm", expected, MINE, "me", ())
    return now(full.seen(source.cluster, commit, refusal, source.cluster.until()))


def untold(store: Store, expected: int) -> str:
    """Whether that was made, where there is no reply."""
    with pytest.raises(EtcdFault, match="NOSPACE") as caught:
        told(store, expected)
    return caught.value.made


Write = Callable[..., list[int]]


@pytest.fixture
def write(roomy: Store) -> Write:
    """Writes values, one after the other, or removes; the versions."""
    me = roomy.open_session(60.0, "me")

    def write(*values: bytes | None) -> list[int]:
        versions = []
        for value in values:
            reply = roomy.commit("vm", roomy.read("vm").version, value, me, ())
            assert isinstance(reply, Committed)
            versions.append(reply.version)
        return versions

    return write


@pytest.fixture
def roomy(etcd_server: EtcdNode, fresh_namespace: str) -> Iterator[Store]:
    with contextlib.closing(
        opened(EtcdSettings(endpoints=(etcd_server.address,)), fresh_namespace)
    ) as store:
        yield store


def test_what_is_as_it_was_expected_was_not_changed(roomy: Store, write: Write) -> None:
    assert untold(roomy, ABSENT) == "no"
    (version,) = write(OTHERS)
    assert untold(roomy, version) == "no"


@pytest.mark.parametrize("since", [[], [OTHERS], [OTHERS, OTHERS, OTHERS]])
def test_what_was_made_is_found(roomy: Store, write: Write, since: list[bytes]) -> None:
    """Also where others have come after it."""
    made, *_ = write(MINE, *since)
    assert told(roomy, ABSENT) == Committed(made)
    expected, made, *_ = write(OTHERS, MINE, *since)
    assert told(roomy, expected) == Committed(made)


def test_another_was_first(roomy: Store, write: Write) -> None:
    first, _, last = write(OTHERS, OTHERS, OTHERS)
    assert told(roomy, ABSENT) == Stale(last, OTHERS)
    assert told(roomy, first) == Stale(last, OTHERS)
    *_, last = write(REMOVED, OTHERS)
    assert told(roomy, ABSENT) == Stale(last, OTHERS)


@pytest.mark.parametrize("since", [[REMOVED], [REMOVED, OTHERS], [MINE, REMOVED, OTHERS]])
def test_what_was_removed_leaves_no_trace(
    roomy: Store, write: Write, since: list[bytes | None]
) -> None:
    first, *_ = write(OTHERS, *since)
    assert untold(roomy, first) == "unknown"


def test_a_history_that_was_compacted(roomy: Store, write: Write, etcd_server: EtcdNode) -> None:
    first, *_, last = write(OTHERS, MINE, OTHERS)
    etcd_server.cli("compact", str(last - source_of(roomy)._layout.base))
    assert untold(roomy, first) == "unknown"
