"""Values on ZooKeeper: what a commit costs, what it compares, and what is left behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from distjob.errors import RecordError
from distjob.store import ABSENT, Committed, Gone, Missed, Stale, Versioned, Woken
from distjob.testing.contract import committed, receive_woken
from distjob.testing.contract.helpers import PATIENCE
from distjob_zookeeper.layout import LARGEST, Layout, Version
from zookeeper_stores import TTL, Open, counted, kazoo_of, nodes

if TYPE_CHECKING:
    from kazoo.client import KazooClient

# -- what it costs --------------------------------------------------------------------------------


def test_a_commit_is_one_request_whatever_was_seen_before(hosts: str, opened: Open) -> None:
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    known = ABSENT
    with counted(store) as sent:
        for value in (b"one", b"two", None, b"three"):
            reply = store.commit("vm", known, value, me, ())
            assert isinstance(reply, Committed)
            known = reply.version if value is not None else ABSENT
        assert len(sent) == 4
    woken = opened(hosts)
    you = woken.open_session(TTL, "you")
    committed(store, "vm", b"four", me, you)
    event = receive_woken(woken, you, 0)[-1]
    ((_, scanned),) = woken.scan()
    read = woken.read("vm")
    assert event.version == scanned.version == read.version
    with counted(woken) as sent:
        assert isinstance(woken.commit("vm", event.version, b"five", you, ()), Committed)
        assert isinstance(woken.commit("vm", scanned.version, b"six", you, ()), Stale)
    assert len(sent) == 3, "who was woken commits without a read, and a refused one looks once"


def test_a_number_without_more_is_told_the_rest(hosts: str, opened: Open) -> None:
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    version = int(committed(store, "vm", b"one", me))
    for number in (version, version + 1):
        stale = store.commit("vm", number, b"?", me, ())
        assert stale == Stale(version=version, value=b"one")
    reply = store.commit("vm", stale.version, b"two", me, ())
    assert isinstance(reply, Committed)
    assert store.commit("vm", version, b"?", "ended", ()) == Gone(sessions=frozenset({"ended"}))


# -- lost replies ---------------------------------------------------------------------------------


def test_merged_wake_ups_are_missed(hosts: str, opened: Open) -> None:
    store, other = opened(hosts), opened(hosts)
    me, you = store.open_session(TTL, "me"), other.open_session(TTL, "you")
    busy = threading.Event()
    kazoo_of(store).handler.callback_queue.put(lambda: busy.wait(PATIENCE))
    committed(other, "vm-1", b"x", you, me)
    last = committed(other, "vm-2", b"y", you, me)
    busy.set()
    events = store.receive(me, PATIENCE)
    assert events == [Missed(), Woken(vm="vm-2", version=last, value=b"y")]


# -- idle VMs -------------------------------------------------------------------------------------


def test_an_idle_vm_leaves_nothing(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    before = nodes(admin, layout.root)
    for number in range(50):
        first = store.commit(f"vm-{number}", ABSENT, b"x", me, ())
        assert isinstance(first, Committed)
        second = store.commit(f"vm-{number}", first.version, b"y", me, ())
        assert isinstance(second, Committed)
        assert nodes(admin, layout.root) == before + 2
        assert isinstance(store.commit(f"vm-{number}", second.version, None, me, ()), Committed)
        assert isinstance(store.commit(f"vm-{number}", ABSENT, None, me, ()), Committed)
    assert nodes(admin, layout.root) == before


def test_a_version_of_an_earlier_life_never_matches(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    """The same data version, of another node of that name: only the life keeps them apart."""
    sleeper, other = opened(hosts), opened(hosts)
    me, you = sleeper.open_session(TTL, "me"), other.open_session(TTL, "you")
    knows = committed(sleeper, "vm", b"x", me)
    committed(other, "vm", None, you)
    held = committed(other, "vm", b"held by another", you)
    assert isinstance(knows, Version)
    assert isinstance(held, Version)
    assert knows.number == held.number == admin.get(layout.vm("vm"))[1].version
    assert knows.life != held.life
    stale = Stale(version=held, value=b"held by another")
    for value in (b"wrong grant", None):
        assert sleeper.commit("vm", knows, value, me, ()) == stale
    # What would have happened: the server itself sees no difference.
    wrong = Version(knows, held.life, knows.number)
    assert isinstance(sleeper.commit("vm", wrong, b"wrong grant", me, ()), Committed)


def test_lives_that_come_and_go_while_many_commit(hosts: str, opened: Open) -> None:
    """Each counts up what it finds, or begins anew; nothing is lost or done twice."""
    stores = [opened(hosts) for _ in range(3)]
    won: list[tuple[int, int]] = []

    def work(number: int) -> None:
        store = stores[number]
        me = store.open_session(30.0, "worker")
        version: int = ABSENT
        while sum(who == number for who, _ in won) < 40:
            value = b"%d" % number if version == ABSENT else None
            reply = store.commit("vm", version, value, me, ())
            if isinstance(reply, Committed):
                won.append((number, reply.version))
                version = ABSENT if value is None else reply.version
            else:
                assert isinstance(reply, Stale)
                version = reply.version

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    versions = [version for _, version in won]
    assert len(versions) >= 120
    assert len(set(versions)) == len(versions)


# -- what others do to the nodes -------------------------------------------------------------------


def test_a_folder_that_was_deleted_is_made_again(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me)
    admin.delete(layout.vms, recursive=True)
    assert list(store.scan()) == []
    assert store.commit("vm", version, b"y", me, ()) == Stale(version=ABSENT, value=None)
    assert isinstance(store.commit("vm", ABSENT, b"y", me, ()), Committed)
    admin.delete(layout.vms, recursive=True)
    assert isinstance(store.commit("vm", ABSENT, None, me, ()), Committed)
    assert store.read("vm") == Versioned(version=ABSENT, value=None)


def test_all_was_deleted_under_a_store(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me)
    admin.delete(layout.root, recursive=True)
    assert not store.keep_alive(me)
    assert store.commit("vm", version, b"y", me, ()) == Gone(sessions=frozenset({me}))
    again = store.open_session(TTL, "again")
    assert store.commit("vm", version, b"y", again, ()) == Stale(version=ABSENT, value=None)
    assert isinstance(store.commit("vm", ABSENT, b"y", again, ()), Committed)


def test_what_others_wrote_is_no_record(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    for theirs in (b"theirs", b""):
        admin.create(layout.vm("vm"), theirs)
        for call in (lambda: store.read("vm"), lambda: store.commit("vm", ABSENT, b"x", me, ())):
            with pytest.raises(RecordError, match="'vm'"):
                call()
        admin.delete(layout.vm("vm"))


def test_nodes_that_somebody_has_changed_by_hand_are_told(
    hosts: str, opened: Open, admin: KazooClient, layout: Layout
) -> None:
    """Rather than that a commit is tried for ever."""
    store = opened(hosts)
    me = store.open_session(TTL, "me")
    version = committed(store, "vm", b"x", me)
    admin.create(f"{layout.vm('vm')}/theirs")
    with pytest.raises(RecordError, match="below the node"):
        store.commit("vm", version, None, me, ())
    reply = store.commit("vm", version, b"y", me, ())
    assert isinstance(reply, Committed)
    assert isinstance(reply.version, Version)
    admin.delete(f"{layout.vm('vm')}/{reply.version.life}")
    for value in (b"z", None):
        with pytest.raises(RecordError, match="below the node"):
            store.commit("vm", reply.version, value, me, ())
    admin.delete(layout.vm("vm"), recursive=True)
    assert isinstance(store.commit("vm", ABSENT, b"y", me, ()), Committed)


def test_wake_ups_of_many_leave_the_value_out(hosts: str, opened: Open) -> None:
    store = opened(hosts)
    names = [store.open_session(TTL, "waits") for _ in range(40)]
    reply = store.commit("vm", ABSENT, b"x" * 60_000, names[0], names)
    assert isinstance(reply, Committed)
    for name in names:
        woken = [event for event in store.receive(name, PATIENCE) if isinstance(event, Woken)]
        assert woken == [Woken(vm="vm", version=reply.version, value=None)]
    last = woken[-1].version
    with pytest.raises(RecordError, match="wake-ups"):
        store.commit("vm", last, b"x" * LARGEST, names[0], names * 10 + ["z" * 90_000])
    assert isinstance(store.commit("vm", last, None, names[0], ()), Committed)
    assert store.keep_alive(names[0])
