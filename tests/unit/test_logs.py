"""What reaches the log: what is grave by itself, the rest by a hook, secrets never."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from distjob import BackendUnavailable, Client, DistjobError, clock
from distjob.config import load, open_backend, open_backend_async
from distjob.hooks import (
    Begun,
    Ended,
    Event,
    Evicted,
    GaveUp,
    Lost,
    Refused,
    Renewed,
    TimedOut,
    Waiting,
)
from distjob.logs import LogHook, warn
from distjob.testing.memory import MemoryServer, MemoryStore
from distjob.testing.onloop import ProxyClient
from distjob.ticket import Owner
from proxy import Proxy
from servers import free_port

OWNER = Owner("ctl\x1b[31m", "host", 7)
OF: Any = {"owner": OWNER, "ticket": "s\x1b.1", "seconds": 2.0}
GRAVE: list[Event] = [
    Lost(vm="v\nm", job="modify", token=5, held=1.5, how="session", why="it was not renewed"),
    Lost(vm="v\nm", job="modify", token=5, held=1.5, how="force", why="by force"),
    Evicted(vm="v\nm", job="modify", token=5, **OF, how="ended"),
    Evicted(vm="v\nm", job="modify", token=5, **OF, how="orphaned"),
    Evicted(vm="v\nm", job="modify", token=5, **OF, how="force"),
    Evicted(vm="v\nm", job="modify", token=0, **OF, how="ended"),
    Renewed(late=2.0, ttl=10.0),
]
CHATTER: list[tuple[Event, int]] = [
    (Waiting(vm="vm", job="modify", depth=3), logging.DEBUG),
    (Begun(vm="vm", job="modify", token=5, waited=0.1, queued=False), logging.DEBUG),
    (Begun(vm="vm", job="modify", token=5, waited=4.0, queued=True), logging.INFO),
    (TimedOut(vm="vm", job="modify", waited=3.0, blockers=(OWNER,)), logging.INFO),
    (TimedOut(vm="vm", job="modify", waited=3.0, blockers=()), logging.INFO),
    (GaveUp(vm="vm", job="modify", waited=3.0), logging.INFO),
    (Refused(vm="vm", job="modify", depth=3), logging.INFO),
    (Ended(vm="vm", job="modify", token=5, held=3.0), logging.DEBUG),
    (Lost(vm="vm", job="modify", token=5, held=3.0, how="closed", why="closed"), logging.INFO),
    (Renewed(late=0.1, ttl=10.0), logging.DEBUG),
]


class _Keeps(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    caplog.set_level(logging.DEBUG)
    handler, root = _Keeps(), logging.getLogger()
    root.addHandler(handler)
    yield handler.records
    root.removeHandler(handler)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = clock.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert clock.monotonic() < deadline, "it did not come about"
        pause.wait(0.005)


@pytest.mark.parametrize("event", GRAVE, ids=repr)
def test_what_is_grave_is_a_warning(event: Event, records: list[logging.LogRecord]) -> None:
    warn(event)
    LogHook()(event)
    [record] = records
    assert (record.name, record.levelno) == ("distjob", logging.WARNING)
    assert record.getMessage().isprintable()
    facts = vars(record)
    assert facts["event"] == type(event).__name__
    if isinstance(event, Lost | Evicted):
        assert (facts["vm"], facts["job"], facts["how"]) == ("v\nm", "modify", event.how)
        assert "'v\\nm'" in record.getMessage()
        assert facts["token"] == event.token
    if isinstance(event, Evicted):
        assert (facts["controller"], facts["host"], facts["pid"]) == (OWNER.controller, "host", 7)
        assert "host, pid 7" in record.getMessage()


@pytest.mark.parametrize(("event", "level"), CHATTER, ids=repr)
def test_the_rest_is_for_who_asks(
    event: Event, level: int, records: list[logging.LogRecord]
) -> None:
    warn(event)
    assert records == []
    LogHook(long_wait=3.0)(event)
    [record] = records
    assert (record.name, record.levelno) == ("distjob", level)
    assert record.getMessage().isprintable()
    assert vars(record)["event"] == type(event).__name__


def test_a_loss_is_logged_though_there_is_no_hook(records: list[logging.LogRecord]) -> None:
    server = MemoryServer()
    with Client(MemoryStore(server)) as a, Client(MemoryStore(server)) as b:
        lease = a.begin("vm", "modify")
        b.evict("vm", [b.status("vm").holders[0].ticket])
        until(lambda: lease.lost)
        until(lambda: len(records) >= 2)
        with b.begin("vm", "modify"):
            pass
    told = {vars(record)["event"]: record for record in records}
    assert set(told) == {"Lost", "Evicted"}
    assert vars(told["Lost"])["token"] == lease.token == vars(told["Evicted"])["token"]


# -- secrets --------------------------------------------------------------------------------------

SECRET = "hunter2hunter2"


def section(kind: str, port: int, folder: str) -> dict[str, Any]:
    """With a password, for what listens on ``port``; what it makes there is others' not to use."""
    login = {"user": "me", "password": SECRET, "timeout": 0.5}
    match kind:
        case "redis":
            return {"url": f"redis://default:{SECRET}@127.0.0.1:{port}/0", "timeout": 0.5}
        case "etcd":
            return {"endpoints": [f"127.0.0.1:{port}"], **login}
        case "zookeeper":
            return {"hosts": f"127.0.0.1:{port}/{folder}", **login}
    raise AssertionError(kind)


@pytest.mark.parametrize("how", ["threads", "asyncio"])
@pytest.mark.parametrize("kind", ["redis", "etcd", "zookeeper"])
def test_no_password_is_logged_or_told(
    kind: str,
    how: str,
    request: pytest.FixtureRequest,
    fresh_namespace: str,
    records: list[logging.LogRecord],
) -> None:
    told: list[Event] = []
    said: list[str] = []

    def client(port: int) -> Any:
        own = section(kind, port, fresh_namespace)
        settings = load({"namespace": fresh_namespace, "backend": kind, kind: own})
        said.append(repr(settings))
        hooks = [told.append, LogHook(), _fails]
        if how == "asyncio":
            return ProxyClient(partial(open_backend_async, settings), ttl=2.0, hooks=hooks)
        return Client(open_backend(settings), ttl=2.0, hooks=hooks)

    with pytest.raises(DistjobError) as caught:
        client(free_port())
    said.append(_all_of(caught.value))
    server = request.getfixturevalue(f"{kind}_server")
    with Proxy((server.host, server.port)) as proxy:
        jobs = client(proxy.port)
        said.append(repr(jobs))
        lease = jobs.begin("vm", "modify")
        proxy.cut()
        said.append(_tried(jobs))
        proxy.stall()
        until(lambda: lease.lost)
        with pytest.raises(DistjobError) as caught:
            lease.end()
        said.append(_all_of(caught.value))
        proxy.flow()
        until(lambda: any(isinstance(event, Lost) for event in told))
        proxy.refuse()
        said.append(_tried(jobs))
        proxy.accept()
        with contextlib.suppress(BackendUnavailable):  # etcd's client may not have noticed yet
            jobs.__exit__(None, None, None)
    assert records
    assert told
    form = logging.Formatter("%(name)s %(message)s")
    for text in (*said, *map(repr, told), *(form.format(r) + repr(vars(r)) for r in records)):
        assert SECRET not in text


def _fails(_event: Event) -> None:
    raise ValueError("so that a traceback is logged")


def _tried(jobs: Any) -> str:
    """What is said, if anything."""
    try:
        jobs.begin("other", "modify", wait=0.1).end()
    except DistjobError as error:
        return _all_of(error)
    return ""


def _all_of(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__
    return text
