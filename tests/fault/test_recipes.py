"""The recipes for services, as they stand on their page: in a real web server, a real worker."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn
from celery import Celery

import distjob
from distjob import Fence, Job
from servers import RedisServer
from until import until

PAGE = Path(__file__).parent.parent.parent / "docs" / "howto" / "services.md"


def _code(word: str) -> str:
    """The page's example that names ``word``."""
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [example for example in examples if word in example]
    return str(found)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "distjob.yaml"
    file.write_text(f"sqlite: {{path: {tmp_path / 'jobs.db'}}}\n")
    return file


@pytest.fixture
def service(settings: Path) -> Iterator[str]:
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(_code("FastAPI("), str(PAGE), "exec"), names)
    server = uvicorn.Server(uvicorn.Config(names["app"], port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def test_fastapi(service: str, settings: Path) -> None:
    post = Request(f"{service}/vms/vm-42/disks/vdb", method="POST")
    with urlopen(post, timeout=30) as answer:
        told = json.load(answer)
    assert (told["vm"], Fence.parse(told["fence"]).sync > 0) == ("vm-42", True)
    with distjob.connect(settings) as jobs:
        assert jobs.status("vm-42").idle
        with jobs.begin("vm-42", Job.MODIFY, api="resize"), pytest.raises(HTTPError) as busy:
            urlopen(post, timeout=30)
        assert busy.value.code == 409
        assert "held by monitor=resize" in json.load(busy.value)["detail"]


def test_celery(redis_server: RedisServer, settings: Path) -> None:
    """The children of a prefork worker have clients of their own, and close them."""
    settings.write_text(f"namespace: celery\nbackend: redis\nredis: {{url: {redis_server.url}}}\n")
    (settings.parent / "tasks.py").write_text(_code("Celery("))
    environ = os.environ | {"BROKER": redis_server.url}
    words = ["--pool=prefork", "--concurrency=2", "--loglevel=ERROR", "--without-mingle"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", *words, "--without-gossip"],
        cwd=settings.parent, env=environ,
    )  # fmt: skip
    try:
        with Celery(broker=redis_server.url, backend=redis_server.url) as app:
            sent = [app.send_task("tasks.resize", args=(f"vm-{n}", n)) for n in range(4)]
            told = [one.get(timeout=60) for one in sent]
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert [text.partition(" by ")[0] for text in told] == [f"vm-{n} is {n}" for n in range(4)]
    with distjob.connect(settings) as jobs:
        assert jobs.list() == []
