"""The blocking shell's duties: losses told, errors kept apart, no heart that dies silently."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from distjob import BackendUnavailable, Client, ClientClosed, Job, LeaseLost, OutcomeUnknown, clock
from distjob.store import Missed
from distjob.testing.memory import MemoryServer, MemoryStore
from keeping import keep

PATIENCE = 20.0


class Moody(MemoryStore):
    """A store of which verbs can be made to fail."""

    def __init__(self, server):
        super().__init__(server)
        self.failing = {}

    def __getattribute__(self, name):
        verb = super().__getattribute__(name)
        failing = super().__getattribute__("__dict__").get("failing", {})
        if name not in failing:
            return verb

        def fail(*_):
            raise failing[name]

        return fail


@pytest.fixture
def server():
    return MemoryServer()


@pytest.fixture
def store(server):
    return Moody(server)


def cut(store):
    store.failing = dict.fromkeys(
        ("commit", "read", "keep_alive", "open_session", "remaining", "close_session"),
        BackendUnavailable("the cable was pulled"),
    )


def until_lost(lease):
    deadline, pause = clock.monotonic() + PATIENCE, threading.Event()
    while not lease.lost:
        assert clock.monotonic() < deadline
        pause.wait(0.01)


def test_a_loss_is_told_once_by_state_error_and_callback(server, store):
    with Client(store, controller="ctl", ttl=0.5) as client:
        lease, told = client.begin("vm", Job.MODIFY), threading.Event()
        calls = []
        lease.on_lost(lambda: (calls.append(threading.current_thread().name), told.set()))
        ended = client.begin("other", Job.MODIFY)
        ended.on_lost(lambda: calls.append("of a job that was ended"))
        ended.end()
        server.close_session(server_session(client))
        assert told.wait(PATIENCE)
        assert lease.lost
        assert lease.remaining == 0
        assert "lost" in repr(lease)
        with pytest.raises(LeaseLost, match=r"'vm'.*modify.*token 1\b.*the store ended it"):
            lease.check()
        with pytest.raises(LeaseLost):
            lease.end()
        late = []
        lease.on_lost(lambda: late.append(threading.current_thread()))
        assert late == [threading.current_thread()]
        assert calls == ["distjob-calls"]
        client.begin("vm", Job.MODIFY).end()  # with the next session


def server_session(client):
    return client._me.session.id


def test_a_callback_that_fails_is_logged_and_harms_nobody(server, store, caplog):
    with Client(store, ttl=0.5) as client:
        lease, told = client.begin("vm", Job.MODIFY), threading.Event()
        lease.on_lost(lambda: {}["mine"])
        lease.on_lost(lambda: sys.exit("mine, too"))
        lease.on_lost(client.close)
        lease.on_lost(told.set)
        with caplog.at_level(logging.ERROR, "distjob"):
            server.close_session(server_session(client))
            assert told.wait(PATIENCE)
        assert "a lease's callback failed" in caplog.text
        assert "KeyError: 'mine'" in caplog.text
        assert "SystemExit: mine, too" in caplog.text
        assert "can't be closed in a callback of its own" in caplog.text
        client.begin("vm", Job.MODIFY).end()


def test_what_the_body_raised_is_never_replaced(store):
    client = Client(store, ttl=0.5)

    def body():
        with client.begin("vm", Job.MODIFY) as lease:
            cut(store)
            until_lost(lease)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        body()
    assert any("ending the job failed" in note for note in caught.value.__notes__)
    store.failing = {}
    client.close()


def test_a_lost_lease_ends_its_block_with_an_error(store):
    client = Client(store, ttl=0.5)

    def body():
        with client.begin("vm", Job.MODIFY) as lease:
            cut(store)
            until_lost(lease)

    with pytest.raises(LeaseLost):
        body()
    store.failing = {}
    client.close()


def test_a_block_is_not_entered_on_the_strength_of_a_dead_session(store):
    client, entered = Client(store, ttl=0.5), []
    lease = client.begin("vm", Job.MODIFY)
    cut(store)
    until_lost(lease)
    with pytest.raises(LeaseLost, match=r"'vm'.*modify.*token 1\b"), lease:
        entered.append("a body without a job")
    assert not entered
    store.failing = {}
    client.close()


def test_a_block_may_end_its_job_itself(store):
    with Client(store) as client:
        with client.begin("vm", Job.MODIFY) as lease:
            lease.end()
        assert "ended" in repr(lease)
        assert not lease.lost


def test_closing_ends_all_jobs_but_one_whose_record_is_broken(server, store):
    other = MemoryStore(server)
    with Client(store, ttl=30.0) as client:
        leases = [client.begin(f"vm-{number}", Job.MODIFY) for number in range(3)]
        nobody = other.open_session(30.0, "nobody")
        other.commit("vm-0", leases[0].token, b"no record", nobody, ())
        session = server_session(client)
    assert not any(other.remaining([session]).values())
    assert [other.read(f"vm-{number}").value for number in (1, 2)] == [None, None]


def test_closing_without_an_answer_is_told_and_is_closed(store):
    client = Client(store, ttl=0.6)
    lease = client.begin("vm", Job.MODIFY)
    cut(store)
    with pytest.raises(BackendUnavailable, match="cable"):
        client.close()
    assert lease.lost
    assert "closed" in repr(client)
    client.close()


def test_closing_without_an_answer_does_not_replace_an_error(store):
    def body():
        with Client(store, ttl=0.6) as client:
            keep(client.begin("vm", Job.MODIFY))
            cut(store)
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        body()
    assert any("closing the client failed" in note for note in caught.value.__notes__)


def test_an_outcome_that_stays_unknown(store):
    client = Client(store, ttl=2.0)
    store.failing = {"commit": BackendUnavailable("no answer", unanswered=True)}
    with pytest.raises(OutcomeUnknown, match=r"'vm': modify may be held"):
        client.begin("vm", Job.MODIFY, wait=0.2)
    store.failing = {}
    client.begin("vm", Job.MODIFY).end()
    client.close()


def test_a_store_that_is_away_is_told_and_nothing_was_changed(store):
    client = Client(store, ttl=2.0)
    store.failing = {"commit": BackendUnavailable("not there"), "read": BackendUnavailable("gone")}
    with pytest.raises(BackendUnavailable, match="not there"):
        client.begin("vm", Job.MODIFY, wait=0.2)
    store.failing = {}
    assert client.status("vm").idle
    client.close()


def test_a_store_that_is_not_there_at_all(server):
    store = Moody(server)
    cut(store)
    with pytest.raises(BackendUnavailable):
        Client(store)
    store.failing = {}
    with pytest.raises(BackendUnavailable):
        store.read("vm")  # it was closed


def test_the_heart_outlives_any_error_and_a_loss_names_the_last_one(store, caplog):
    with Client(store, ttl=0.5) as client:
        lease, told = client.begin("vm", Job.MODIFY), threading.Event()
        lease.on_lost(told.set)
        store.failing = {"keep_alive": ZeroDivisionError("a bug in a backend")}
        assert told.wait(PATIENCE)
        with pytest.raises(LeaseLost, match="not be renewed in time: a bug in a backend"):
            lease.check()
        assert "renewing the session has failed" in caplog.text
        assert "ZeroDivisionError: a bug in a backend" in caplog.text
        store.failing = {}
        client.begin("vm", Job.MODIFY).end()  # with the next session


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_heart_does_not_die_silently(store, caplog):
    client = Client(store, ttl=0.5)
    lease, told = client.begin("vm", Job.MODIFY), threading.Event()
    lease.on_lost(told.set)
    store.failing = {"keep_alive": SystemExit("somebody ends this thread")}
    assert told.wait(PATIENCE)
    assert lease.lost
    with pytest.raises(LeaseLost, match="distjob-session has died, see the log"):
        lease.check()
    with pytest.raises(ClientClosed):
        client.begin("vm", Job.MODIFY)
    for thread in client._background.threads:
        thread.join(PATIENCE)
    assert "distjob-session has died" in caplog.text
    assert "somebody ends this thread" in caplog.text
    store.failing = {}
    client.close()
    with pytest.raises(BackendUnavailable):
        store.read("vm")  # it was closed


class _Forgetful(MemoryStore):
    """Tells that something was missed, and not what: as ZooKeeper does of a burst of wake-ups."""

    def receive(self, session, timeout):
        return [Missed()] if super().receive(session, timeout) else []


@pytest.mark.parametrize("begin", ["begin", "begin_agent"])
def test_a_job_taken_by_force_is_told_though_the_wake_up_was_missed(server, begin):
    lost = threading.Event()
    with Client(_Forgetful(server)) as mine, Client(MemoryStore(server)) as other:
        lease = getattr(mine, begin)("vm", "modify")
        lease.on_lost(lost.set)
        other.evict("vm", [holder.ticket for holder in other.status("vm").holders])
        assert lost.wait(PATIENCE)
        with pytest.raises(LeaseLost, match="taken away by force"):
            lease.check()
