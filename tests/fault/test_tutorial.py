"""The tutorial, followed as typed: real controllers that are killed and frozen, on each store."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

from follow import fences, follow
from servers import RedisServer

PAGE = Path(__file__).parent.parent.parent / "docs" / "tutorial" / "two-controllers.md"
INSTALLS = re.compile(r"^(?:python3 -m venv|pip install|docker compose) .*\n", re.MULTILINE)


def _followed(text: str, store: str) -> None:
    """But for what installs: this environment stands for the tutorial's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # on a disk, as guards want it
        folder = Path(name)
        (folder / "tutorial").mkdir()
        (folder / "tutorial" / ".venv").symlink_to(sys.prefix)
        bare = {k: v for k, v in os.environ.items() if not k.startswith(("DISTJOB_", "PYTHON"))}
        environ = bare | {"TERM": "xterm"}
        assert (
            follow(INSTALLS.sub("true\n", text), folder, store=store, environ=environ, limit=40)
            > 20
        )


def test_on_sqlite() -> None:
    _followed(PAGE.read_text(), "sqlite")


def test_on_redis(redis_server: RedisServer) -> None:
    text = PAGE.read_text()
    assert "redis://localhost:6379/0" in text
    _followed(text.replace("redis://localhost:6379/0", redis_server.url), "redis")


def test_a_page_that_is_not_so_is_found(tmp_path: Path) -> None:
    follow("```sh\necho 7 things\n```\n\n```text\n9 things\n```\n", tmp_path)
    with pytest.raises(AssertionError, match="status 3"):
        follow("```sh\n(exit 3)\n```\n\n```sh\ntrue\n```\n", tmp_path)
    page = "```sh\necho things\n```\n\n```text\nsomething else\n```\n"
    with pytest.raises(AssertionError, match="something else"):
        follow(page, tmp_path, limit=0.2)


def test_the_two_stores_differ_in_one_file() -> None:
    text = PAGE.read_text()
    sqlite, redis = (list(fences(text, store)) for store in ("sqlite", "redis"))
    only = [one[:2] for one in redis if one not in sqlite]
    assert only == [("sh", ""), ("yaml", "distjob.yaml")]
    assert [one[:2] for one in sqlite if one not in redis] == [("yaml", "distjob.yaml")]
