"""No password is in a log, an error, a hook's event or a repr, whatever goes wrong on the way."""

from __future__ import annotations

import contextlib
import logging
from functools import partial
from typing import Any

import pytest

from distjob import BackendUnavailable, Client, DistjobError
from distjob.config import load, open_backend, open_backend_async
from distjob.hooks import Event, Lost
from distjob.hooks.logs import LogHook
from distjob.testing.onloop import ProxyClient
from proxy import Proxy
from servers import free_port
from until import until

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
